//! `denylist`: what is not wanted here, as the files say it at this moment.

mod pasted;

use super::api::Call;
use super::context::broke;
use super::error::RpcError;
use super::reply::Reply;
use crate::output;
use cairn_node::denylist::{Denylist, Grounds, ListStat, Match};
use cairn_node::name::path::NamePath;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// The answer of `denylist ls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListsAnswer {
    /// The lists, each overriding those before it.
    pub lists: Vec<ListAnswer>,
    /// What is wrong with the folders, or that there are too many lists.
    pub troubles: Vec<String>,
}

/// One list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListAnswer {
    /// Its file.
    pub path: String,
    /// What it calls itself.
    pub name: String,
    /// How many of its lines are rules that hold.
    pub rules: u64,
    /// How many are left out: they are no rules, or there is no room for them.
    pub skipped: u64,
    /// For how many there is no room.
    pub beyond: u64,
    /// The first of those left out.
    pub faults: Vec<FaultAnswer>,
    /// When it was read, in RFC 3339; empty if it never was.
    pub read_at: String,
    /// Whether its file is changing, so that the rules are those of before.
    pub settling: bool,
    /// Why it is not read as it is now.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// A line that is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FaultAnswer {
    /// Its number.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// The answer of `denylist check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckAnswer {
    /// The path that was understood.
    pub path: String,
    /// Whether it is denied.
    pub denied: bool,
    /// The rule that decides, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleAnswer>,
    /// What the gateway answers with, if it is denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RuleAnswer {
    /// What it is about: the path, or the name or block that it begins with.
    pub about: String,
    /// The file of its list.
    pub list: String,
    /// The number of its line.
    pub line: u32,
    /// That line; empty if the file has changed.
    pub text: String,
}

/// `denylist ls`.
pub async fn list(call: Call) -> Result<Reply, RpcError> {
    let denylist = current(&call).await?;
    Reply::value(&ListsAnswer {
        lists: denylist.lists().into_iter().map(ListAnswer::from).collect(),
        troubles: denylist.troubles(),
    })
}

/// `denylist check`.
pub async fn check(call: Call) -> Result<Reply, RpcError> {
    let readings = pasted::readings(call.arguments.first("path")?)?;
    let denylist = current(&call).await?.clone();
    let decided = tokio::task::spawn_blocking(move || {
        let rules = readings.into_iter().map(|path| {
            let rule = denylist.decides(&path);
            answer(&path, rule)
        });
        let answers: Vec<CheckAnswer> = rules.collect();
        let denied = answers.iter().find(|answer| answer.denied).cloned();
        denied.or_else(|| answers.into_iter().next())
    });
    let answer = decided.await.map_err(|_| broke("reading denylists"))?;
    Reply::value(&answer.unwrap_or_default())
}

fn answer(path: &NamePath, rule: Option<Match>) -> CheckAnswer {
    let denies = rule.as_ref().and_then(|rule| rule.denies);
    CheckAnswer {
        path: path.to_string(),
        denied: denies.is_some(),
        rule: rule.map(|rule| RuleAnswer {
            about: rule.path.to_string(),
            list: rule.list.display().to_string(),
            line: rule.line,
            text: rule.text.unwrap_or_default(),
        }),
        status: denies.map(|grounds| match grounds {
            Grounds::Policy => 410,
            Grounds::Legal => 451,
        }),
    }
}

/// The lists, with what was written to them until now.
async fn current(call: &Call) -> Result<&Denylist, RpcError> {
    let denylist = call.context.denylist().await?;
    denylist
        .settle()
        .await
        .map_err(|_| broke("reading denylists"))?;
    Ok(denylist)
}

impl From<ListStat> for ListAnswer {
    fn from(list: ListStat) -> Self {
        let faults = list.faults.into_iter();
        Self {
            path: list.path.display().to_string(),
            name: list.name.unwrap_or_default(),
            rules: list.rules,
            skipped: list.skipped,
            beyond: list.beyond,
            faults: faults
                .map(|(line, why)| FaultAnswer { line, why })
                .collect(),
            read_at: list.read_at.map_or_else(String::new, |at| {
                let since = at.duration_since(SystemTime::UNIX_EPOCH);
                output::utc(since.unwrap_or_default().as_secs())
            }),
            settling: list.is_settling,
            error: list.error.unwrap_or_default(),
        }
    }
}
