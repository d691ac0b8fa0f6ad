//! `denylist`: what is not wanted here, as the files say it at this moment.

use super::api::Call;
use super::context::broke;
use super::error::RpcError;
use super::reply::Reply;
use cairn_node::denylist::{Denylist, Grounds, ListStat};
use cairn_node::name::path::NamePath;
use serde::{Deserialize, Serialize};

/// The answer of `denylist ls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ListsAnswer {
    /// The lists, each overriding those before it.
    pub lists: Vec<ListAnswer>,
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
    /// How many are left out.
    pub skipped: u64,
    /// The first of those.
    pub faults: Vec<FaultAnswer>,
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
    /// The path.
    pub path: String,
    /// Whether it is denied.
    pub denied: bool,
    /// Which rule does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// What the gateway answers with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// `denylist ls`.
pub async fn list(call: Call) -> Result<Reply, RpcError> {
    let lists = current(&call).await?.lists();
    Reply::value(&ListsAnswer {
        lists: lists.into_iter().map(ListAnswer::from).collect(),
    })
}

/// `denylist check`.
pub async fn check(call: Call) -> Result<Reply, RpcError> {
    let Some(path) = call.arguments.paths("path")?.into_iter().next() else {
        return Err(RpcError::wrong("argument \"path\" is required"));
    };
    let denial = current(&call).await?.denial(&path);
    Reply::value(&answer(&path, denial.as_ref()))
}

fn answer(path: &NamePath, denial: Option<&cairn_node::denylist::Denial>) -> CheckAnswer {
    CheckAnswer {
        path: path.to_string(),
        denied: denial.is_some(),
        by: denial.map(|it| it.by.to_string()).unwrap_or_default(),
        status: denial.map(|it| match it.grounds {
            Grounds::Policy => 410,
            Grounds::Legal => 451,
        }),
    }
}

/// The lists, with what was written to them until now.
async fn current(call: &Call) -> Result<&Denylist, RpcError> {
    let denylist = call.context.denylist().await?;
    let reading = denylist.clone();
    let read = tokio::task::spawn_blocking(move || reading.reload()).await;
    read.map_err(|_| broke("reading denylists"))?;
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
            faults: faults
                .map(|(line, why)| FaultAnswer { line, why })
                .collect(),
            error: list.error.unwrap_or_default(),
        }
    }
}
