//! `repo import-kubo`.

use super::Shell;
use crate::args::ImportKuboArgs;
use crate::exit::Failure;
use crate::output::{self, Progress, human_bytes};
use crate::rpc::repo::import_kubo::{Figures, KuboLine, Outcome, Setting};
use cairn_node::explain::counted;

/// `repo import-kubo`.
pub async fn import_kubo(shell: &mut Shell, arguments: ImportKuboArgs) -> Result<(), Failure> {
    let path = std::path::absolute(&arguments.dir)?;
    let folder = path.to_str().ok_or_else(|| {
        Failure::runtime(format!(
            "{}: a path that is not UTF-8 cannot be asked for",
            path.display()
        ))
    })?;
    let watched = shell.wants_progress(None);
    let question = shell
        .question("repo/import-kubo")
        .arg(folder)
        .maybe("identity", arguments.identity.then_some(true))
        .maybe("config", arguments.config.then_some(true))
        .maybe("progress", watched.then_some(true));
    let progress = match watched {
        true => Progress::share_with_words(),
        false => Progress::none(),
    };
    let mut settings: Vec<Setting> = Vec::new();
    shell
        .print_each(question, |line: KuboLine, printer| {
            if let Some(now) = line.progress {
                progress.say(words(&now));
                progress.at_share(now.bytes, now.total);
                return Ok(());
            }
            if let Some(setting) = line.setting {
                settings.push(setting);
                return Ok(());
            }
            let mut texts = Vec::new();
            if let Some(left) = &line.left {
                let what = match (&left.kind[..], &left.what[..]) {
                    ("file", what) => what.to_owned(),
                    ("files", root) => format!("file tree {root}"),
                    (kind, "") => kind.to_owned(),
                    (kind, what) => format!("{kind} {what}"),
                };
                texts.push(format!("not taken: {what}: {}", left.why));
            }
            if let Some(key) = &line.key {
                texts.push(format!("key {} {}: {}", key.name, key.id, key.state));
            }
            if !line.msg.is_empty() {
                texts.push(line.msg.clone());
            }
            if let Some(result) = &line.result {
                texts.extend(table(&settings));
                texts.extend(sums(result));
            }
            progress.beside(|| {
                for text in texts {
                    printer.line(&output::escape_line(&text))?;
                }
                Ok(printer.flush_if(watched)?)
            })
        })
        .await
}

fn words(now: &Figures) -> String {
    let blocks = counted(now.new + now.there, "block", "blocks");
    match now.pins_total {
        0 => blocks,
        total => format!("{blocks}, {} of {total} pins", now.pins),
    }
}

/// What Kubo's configuration says that is not so here.
fn table(settings: &[Setting]) -> Vec<String> {
    let rows: Vec<Vec<String>> = settings
        .iter()
        .filter(|setting| setting.state != "same")
        .map(|setting| {
            let what = match &setting.state[..] {
                "written" => format!("written: {} = {}", setting.key, setting.value),
                "suggested" => {
                    let value = shell_word(plain(&setting.value));
                    format!("cairn config {} {value}", setting.key)
                }
                "refused" => format!("not as it is: {}", setting.key),
                _ => "no counterpart".to_owned(),
            };
            let note = match setting.note.is_empty() {
                true => String::new(),
                false => format!(" ({})", setting.note),
            };
            vec![setting.kubo.clone(), format!("{what}{note}")]
        })
        .collect();
    let mut lines = Vec::new();
    if !rows.is_empty() {
        lines.push("settings of Kubo's that are other ones here:".to_owned());
        lines.extend(
            output::columns(&rows)
                .into_iter()
                .map(|line| format!("  {line}")),
        );
    }
    lines
}

/// A text without the quotes that it has in TOML.
fn plain(value: &str) -> &str {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.filter(|inner| !inner.contains('\\')).unwrap_or(value)
}

/// A text as one word of a shell's.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn sums(result: &Outcome) -> Vec<String> {
    let blocks = |count| counted(count, "block", "blocks");
    let mut lines = vec![format!(
        "{} of {} imported, {} were here already",
        blocks(result.new),
        human_bytes(result.new_bytes),
        result.there
    )];
    lines.push(format!(
        "{} made, {} were here already, {} not whole{}",
        counted(result.pins_made, "pin", "pins"),
        result.pins_there,
        result.pins_broken,
        match result.records_lost {
            true => "; there may be more in what could not be read of Kubo's database",
            false => "",
        }
    ));
    lines.push(match &result.files[..] {
        "taken" => "the file tree is Kubo's".to_owned(),
        "there" => "the file tree was Kubo's already".to_owned(),
        "beside" => "the file tree stays what it was; Kubo's is pinned".to_owned(),
        "broken" => "the file tree stays what it was; Kubo's is not whole".to_owned(),
        "unknown" => "whether Kubo has a file tree is not known: none was found in what could be read of its database"
            .to_owned(),
        _ => "Kubo has no file tree".to_owned(),
    });
    lines.push(format!(
        "{} taken, {} were here already; {} with the next number",
        counted(result.keys_made, "key", "keys"),
        result.keys_there,
        match result.names {
            1 => "1 name goes on".to_owned(),
            names => format!("{names} names go on"),
        },
    ));
    if !result.changed {
        lines.push("nothing was changed: everything that can be taken is here".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_one_word_whatever_is_in_it() {
        assert_eq!(shell_word("64"), "'64'");
        assert_eq!(shell_word("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn what_could_not_be_read_is_not_told_as_absent() {
        let outcome = Outcome {
            records_lost: true,
            files: "unknown".to_owned(),
            ..Outcome::default()
        };
        let lines = sums(&outcome);
        assert!(lines[1].contains("could not be read"), "{lines:?}");
        assert!(lines[2].contains("not known"), "{lines:?}");
        let none = sums(&Outcome::default());
        assert_eq!(none[2], "Kubo has no file tree");
        assert!(none[4].starts_with("nothing was changed"), "{none:?}");
        let changed = Outcome {
            changed: true,
            ..Outcome::default()
        };
        assert_eq!(sums(&changed).len(), 4);
    }
}
