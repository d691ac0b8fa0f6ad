//! A name that says the root, told of it when it says something else.

use super::{Failure, Job, Shell};
use crate::rpc::key::KeysAnswer;
use crate::rpc::name::NameAnswer;
use crate::rpc::reply::json_line;
use crate::rpc::resolve::PathAnswer;
use cairn_node::name::path::Root;
use cairn_store::cid::Cid;

/// The name that a key signs for: the key by its own name, or by that.
pub(super) async fn name_of(shell: &Shell, key: &str) -> Result<String, Failure> {
    let question = shell.question("key/list");
    let keys: KeysAnswer = shell.ask(question).await?.value().await?;
    let id = |text: &str| match Root::name(text) {
        Ok(Root::Key(id)) => Some(id),
        _ => None,
    };
    let is_meant = |name: &str, signs: &str| {
        name == key || id(key).is_some_and(|wanted| id(signs) == Some(wanted))
    };
    let found = keys
        .keys
        .into_iter()
        .find(|known| is_meant(&known.name, &known.id));
    found.map(|known| known.id).ok_or_else(|| {
        Failure::runtime(format!(
            "there is no key {key:?} to publish with, and nothing was done; `cairn key ls` names those there are, \
             `cairn key gen` makes one"
        ))
    })
}

impl Job {
    /// Publishes the root, unless that is what was published last and still holds.
    pub(super) async fn publish(
        &self,
        shell: &mut Shell,
        name: &str,
        root: &Cid,
    ) -> Result<(), Failure> {
        let value = format!("/ipfs/{root}");
        if said(shell, name).await? == Some(value.clone()) {
            return Ok(());
        }
        let question = shell
            .question("name/publish")
            .arg(value)
            .with("key", name)
            .with("allow-offline", true);
        let published: NameAnswer = shell.ask(question).await?.value().await?;
        if shell.global.wants_json() {
            return Ok(shell.printer.bytes(&json_line(&published)?)?);
        }
        if !self.arguments.quiet && !self.arguments.quieter {
            shell.printer.line(&format!(
                "published to {}: {}",
                published.name, published.value
            ))?;
        }
        Ok(())
    }
}

/// What a name of ours says, as far as is known here.
async fn said(shell: &Shell, name: &str) -> Result<Option<String>, Failure> {
    let question = shell
        .question("name/resolve")
        .arg(format!("/ipns/{name}"))
        .with("recursive", false)
        .maybe("offline", (!shell.global.offline).then_some(true));
    match shell.ask(question).await {
        Ok(answer) => Ok(Some(answer.value::<PathAnswer>().await?.path)),
        // Nothing was published yet, or it has expired.
        Err(Failure::Runtime(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}
