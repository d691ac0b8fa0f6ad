//! `key`. What would carry a private key or an old secret through the RPC is done here, on the repository itself: `export`, beside a
//! daemon too, and `seal`.

use super::{Shell, sources};
use crate::args::{BaseArgs, KeyCommand};
use crate::config::keystore::Secrets;
use crate::exit::Failure;
use crate::output::{Printer, columns, error, escape_line, note};
use crate::rpc::client::Question;
use crate::rpc::entries::LocalUpload;
use crate::rpc::key::{
    KeyAnswer, KeysAnswer, RenameAnswer, SignAnswer, VerifyAnswer, unknown_form,
};
use cairn_node::keystore::{Form, Keystore, KeystoreError, OWN, Sealed, Secret};
use cairn_store::durable::{self, Access};
use std::fs;
use std::path::{Path, PathBuf};

/// `key`.
pub async fn key(shell: &mut Shell, command: KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Gen {
            name,
            kind,
            size,
            ids,
        } => {
            let question = shell
                .question("key/gen")
                .arg(name)
                .maybe("type", kind)
                .maybe("size", size);
            shell.print_each(based(question, ids), print_id).await
        }
        KeyCommand::Ls { long, ids } => {
            let question = shell.question("key/list");
            let print = |keys: KeysAnswer, printer: &mut Printer| print_keys(&keys, long, printer);
            shell.print_each(based(question, ids), print).await
        }
        KeyCommand::Rm { names, long, ids } => {
            let question = shell.question("key/rm").args(names);
            let print = |keys: KeysAnswer, printer: &mut Printer| print_keys(&keys, long, printer);
            shell.print_each(based(question, ids), print).await
        }
        KeyCommand::Rename {
            name,
            new_name,
            force,
            ids,
        } => {
            let question = shell
                .question("key/rename")
                .arg(name)
                .arg(new_name)
                .maybe("force", force.then_some(true));
            shell.print_each(based(question, ids), print_renamed).await
        }
        KeyCommand::Export {
            name,
            output,
            format,
        } => export(shell, name, output, format).await,
        KeyCommand::Import {
            name,
            file,
            format,
            allow_any_key_type,
            ids,
        } => {
            let question = shell
                .question("key/import")
                .arg(name)
                .maybe("format", format)
                .maybe("allow-any-key-type", allow_any_key_type.then_some(true))
                .upload(of(Some(file)));
            shell.print_each(based(question, ids), print_id).await
        }
        KeyCommand::Sign { file, key, ids } => {
            let question = shell.question("key/sign").maybe("key", key);
            let question = based(question, ids).upload(of(file));
            let print = |answer: SignAnswer, printer: &mut Printer| {
                Ok(printer.line(&escape_line(&answer.signature))?)
            };
            shell.print_each(question, print).await
        }
        KeyCommand::Verify {
            file,
            key,
            signature,
            ids,
        } => {
            let question = shell
                .question("key/verify")
                .maybe("key", key)
                .with("signature", signature);
            verify(shell, based(question, ids).upload(of(file))).await
        }
        KeyCommand::Seal {
            old_passphrase_file,
            old_key_file,
            plain,
        } => {
            let old = match (old_passphrase_file, old_key_file) {
                (Some(path), _) => Some(Secret::from_passphrase_file(&path)),
                (None, Some(path)) => Some(Secret::from_key_file(&path)),
                (None, None) => None,
            };
            let old = old.transpose().map_err(runtime)?;
            seal(shell, old, plain).await
        }
    }
}

fn runtime(error: impl ToString) -> Failure {
    Failure::runtime(error.to_string())
}

fn based(question: Question, ids: BaseArgs) -> Question {
    question.maybe("ipns-base", ids.ipns_base)
}

fn of(file: Option<PathBuf>) -> LocalUpload {
    LocalUpload {
        sources: sources(file.into_iter().collect(), None),
        ..LocalUpload::default()
    }
}

fn print_id(key: KeyAnswer, printer: &mut Printer) -> Result<(), Failure> {
    Ok(printer.line(&escape_line(&key.id))?)
}

fn print_keys(answer: &KeysAnswer, long: bool, printer: &mut Printer) -> Result<(), Failure> {
    let cells = |key: &KeyAnswer| {
        let name = escape_line(&key.name).into_owned();
        match long {
            true => vec![escape_line(&key.id).into_owned(), name],
            false => vec![name],
        }
    };
    let rows: Vec<Vec<String>> = answer.keys.iter().map(cells).collect();
    for line in columns(&rows) {
        printer.line(&line)?;
    }
    Ok(())
}

fn print_renamed(answer: RenameAnswer, printer: &mut Printer) -> Result<(), Failure> {
    let how = if answer.overwrite {
        " with overwriting"
    } else {
        ""
    };
    let line = format!("Key {} renamed to {}", answer.id, answer.now);
    Ok(printer.line(&format!("{}{how}", escape_line(&line)))?)
}

/// Fails if it was not signed by that key, so that a script need not read.
async fn verify(shell: &mut Shell, question: Question) -> Result<(), Failure> {
    let is_failure = |answer: &VerifyAnswer| !answer.signature_valid;
    let failed = shell
        .print_tested(question, is_failure, |answer, printer| {
            let word = if answer.signature_valid {
                "valid"
            } else {
                "invalid"
            };
            Ok(printer.line(&format!("{word}, {}", escape_line(&answer.key.id)))?)
        })
        .await?;
    if failed { Err(Failure::Told) } else { Ok(()) }
}

async fn export(
    shell: &mut Shell,
    name: String,
    output: Option<PathBuf>,
    format: Option<String>,
) -> Result<(), Failure> {
    let form = match format.as_deref() {
        None => Form::default(),
        Some(name) => Form::named(name).ok_or_else(|| runtime(unknown_form(name)))?,
    };
    if name == OWN {
        return Err(runtime(KeystoreError::Own { what: "export" }));
    }
    let path = output.unwrap_or_else(|| PathBuf::from(format!("{name}.{}", form.suffix())));
    let keys = shell.repository.keystore()?;
    let opened = tokio::task::spawn_blocking(move || {
        keys.load(&name)?.written(form).map_err(KeystoreError::from)
    });
    let bytes = opened.await.map_err(runtime)?.map_err(runtime)?;
    if path == Path::new("-") {
        return Ok(shell.printer.bytes(&bytes)?);
    }
    // A pipe or a device takes it as it comes.
    let written = match fs::metadata(&path) {
        Ok(about) if !about.is_file() => fs::write(&path, &bytes),
        _ => durable::write(&path, &bytes, Access::Owner),
    };
    written.map_err(|error| runtime(format!("cannot write {}: {error}", path.display())))
}

async fn seal(shell: &mut Shell, old: Option<Secret>, plain: bool) -> Result<(), Failure> {
    if shell.is_remote() {
        return Err(Failure::runtime(
            "a daemon runs on this repository, and seals new keys with what it was started with; stop it (`cairn shutdown`), \
             seal, and start it again",
        ));
    }
    let repository = shell.repository.clone();
    let secrets = repository.secrets()?;
    let secrets = match plain {
        true => Secrets {
            secret: None,
            old: old.or(secrets.secret),
        },
        false => Secrets {
            old: old.or(secrets.old),
            ..secrets
        },
    };
    if secrets.secret.is_none() && !plain {
        return Err(runtime(KeystoreError::NoSecret));
    }
    let sealing = tokio::task::spawn_blocking(move || {
        let keys = Keystore::open_with_old(repository.path(), secrets.secret, secrets.old)?;
        let mut done = Vec::new();
        keys.seal(|name, result| done.push((name.to_owned(), result)))?;
        Ok::<_, KeystoreError>(done)
    });
    let done = sealing.await.map_err(runtime)?.map_err(runtime)?;
    let (mut failed, mut already) = (false, 0);
    for (name, result) in done {
        match result {
            Ok(Sealed::Anew) => {
                let what = if plain { "unsealed" } else { "sealed" };
                shell
                    .printer
                    .line(&format!("{what} {}", escape_line(&name)))?;
            }
            Ok(Sealed::Already) => already += 1,
            Err(why) => {
                failed = true;
                shell.printer.flush()?;
                error(&format!("{}: {why}", escape_line(&name)));
            }
        }
    }
    if already > 0 {
        note(&format!("{already} more were as they shall be"));
    }
    if failed { Err(Failure::Told) } else { Ok(()) }
}
