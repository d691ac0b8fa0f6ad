//! Pins that follow names: `pin add --follow`, `pin followed` and `pin unfollow`.

use super::super::api::Call;
use super::super::error::RpcError;
use super::super::reply::Reply;
use super::{Meter, Pins, tell_while};
use cairn_node::pins::{FollowPinError, Wish};
use cairn_store::Cid;
use cairn_store::pin::PinProgress;
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// A name that a pin follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FollowedAnswer {
    /// The path, from a name.
    pub path: String,
    /// What it led to last, which is pinned.
    pub cid: String,
    /// What its pins are called.
    pub name: String,
    /// For how many seconds what it led to before stays.
    pub grace_seconds: u64,
    /// What it led to before and is still pinned for that.
    pub before: Vec<BeforeAnswer>,
    /// Why the last look at it came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// In how many seconds it is looked at again; only where a daemon runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_seconds: Option<u64>,
}

/// What a name led to before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BeforeAnswer {
    /// It.
    pub cid: String,
    /// In how many seconds it is let go.
    pub left_seconds: u64,
}

/// `pin add --follow`.
pub async fn add(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    if !arguments.choice(&["recursive", "r"])?.unwrap_or(true) {
        return Err(RpcError::wrong(
            "what follows a name is pinned with everything below it; leave --recursive=false out",
        ));
    }
    for option in ["background", "expire-in", "max-size", "meta", "priority"] {
        arguments.lacks(
            &[option],
            "what follows a name is pinned at once, and stays as long as the name leads there",
        )?;
    }
    let name = arguments.text(&["name", "n"]);
    let mut wish = Wish {
        pin_name: name.filter(|name| !name.is_empty()).map(str::to_owned),
        ..Wish::default()
    };
    if let Some(grace) = arguments.duration(&["grace"])? {
        wish.grace = grace;
    }
    let progress = arguments.flag(&["progress"])?;
    let cids = arguments.cids()?;
    let paths = arguments.paths("ipfs-path")?;
    call.context.writable_store().await?;
    let session = call.session().await?;
    let follows = call.context.follows().await?.clone();
    let how = call.how()?;
    Ok(Reply::values(move |out| async move {
        let meter = Meter::default();
        let mut pinned: Vec<Cid> = Vec::new();
        for path in &paths {
            let counted = meter.clone();
            let on_progress = move |now: PinProgress| counted.at(now);
            let adding = follows.add(path, wish.clone(), &session, how, on_progress);
            let added = tell_while(&meter, progress.then_some(&out), adding).await;
            match added {
                Ok(cid) => pinned.push(cid),
                Err(error) if pinned.is_empty() => return Err(error.into()),
                Err(error) => {
                    let done = paths.iter().take(pinned.len()).map(ToString::to_string);
                    let done = done.collect::<Vec<_>>().join(" ");
                    return Err(RpcError::failed(format!(
                        "{error}; followed before: {done}"
                    )));
                }
            }
        }
        out.value(&Pins {
            pins: pinned.iter().map(|cid| cids.text(cid)).collect(),
            ..Pins::default()
        })
        .await
    }))
}

/// `pin followed`.
pub async fn list(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let follows = call.context.follows().await?.clone();
    Ok(Reply::values(move |out| async move {
        for one in follows.list() {
            let before = one.before.iter().map(|(cid, until)| BeforeAnswer {
                cid: cids.text(cid),
                left_seconds: left(*until),
            });
            out.value(&FollowedAnswer {
                cid: cids.text(&one.cid),
                before: before.collect(),
                grace_seconds: one.grace.as_secs(),
                next_seconds: one.next.map(|next| next.as_secs()),
                path: one.path,
                name: one.pin_name,
                error: one.error,
            })
            .await?;
        }
        Ok(())
    }))
}

/// `pin unfollow`: what is pinned stays so.
pub async fn end(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let paths = call.arguments.paths("ipns-path")?;
    call.context.writable_store().await?;
    let follows = call.context.follows().await?;
    let mut pins = Vec::new();
    for path in &paths {
        pins.push(cids.text(&follows.end(path).await?));
    }
    Reply::value(&Pins {
        pins,
        ..Pins::default()
    })
}

impl From<FollowPinError> for RpcError {
    fn from(error: FollowPinError) -> Self {
        match error {
            FollowPinError::Content(_)
            | FollowPinError::Long(_)
            | FollowPinError::LongName(_)
            | FollowPinError::Grace => Self::wrong(error.to_string()),
            error => Self::failed(error.to_string()),
        }
    }
}

/// How many seconds there are until then.
fn left(until: SystemTime) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    until.saturating_sub(now).as_secs()
}
