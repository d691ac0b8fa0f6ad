//! `pin verify`: whether everything that is pinned is here.

use super::super::api::Call;
use super::super::error::RpcError;
use super::super::reply::Reply;
use cairn_store::dag::walk::{Missing, Options, Visit, walk};
use cairn_store::pin::PinMode;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::pin::pin;

/// A line of `pin verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Verified {
    /// The pin.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cid: String,
    /// Whether it is of one block alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub direct: bool,
    /// Why it could not be looked at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub err: String,
    /// Whether everything below it is here.
    pub ok: bool,
    /// What is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bad_nodes: Vec<BadNode>,
}

/// A block that is missing below a pin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BadNode {
    /// The block.
    pub cid: String,
    /// Why it cannot be had.
    pub err: String,
}

/// `pin verify`.
pub async fn verify(call: Call) -> Result<Reply, RpcError> {
    let verbose = call.arguments.flag(&["verbose", "v"])?;
    let quiet = call.arguments.flag(&["quiet", "q"])?;
    if verbose && quiet {
        return Err(RpcError::failed(
            "the --verbose and --quiet options can not be used at the same time",
        ));
    }
    let cids = call.arguments.cids()?;
    let store = call.context.store().await?.clone();
    Ok(Reply::values(move |out| async move {
        for pin in store.pin_pages() {
            let mut answer = Verified {
                cid: cids.text(&pin.cid),
                direct: pin.mode == PinMode::Direct,
                ..Verified::default()
            };
            let mut bad = Bad::default();
            let options = Options {
                missing: Missing::Tell,
                max_depth: (pin.mode == PinMode::Direct).then_some(0),
                ..Options::default()
            };
            let mut visits = pin!(walk(store.anew(), pin.cid, options));
            while let Some(visit) = visits.next().await {
                match visit {
                    Ok(Visit::Block { .. }) => {}
                    Ok(Visit::Missing { cid, why }) => bad.take(BadNode {
                        cid: cids.text(&cid),
                        err: why,
                    }),
                    Err(error) => {
                        answer.err = error.to_string();
                        break;
                    }
                }
            }
            bad.tell(&mut answer);
            if verbose || !answer.ok {
                out.value(&answer).await?;
            }
        }
        Ok(())
    }))
}

/// What is missing below a pin: the first are named, all are counted.
#[derive(Default)]
struct Bad {
    named: Vec<BadNode>,
    more: u64,
}

impl Bad {
    fn take(&mut self, node: BadNode) {
        if self.named.len() < BAD_NODES_MAX {
            self.named.push(node);
        } else {
            self.more += 1;
        }
    }

    fn tell(self, answer: &mut Verified) {
        if self.more > 0 {
            if !answer.err.is_empty() {
                answer.err.push_str("; ");
            }
            let more = format!(
                "{BAD_NODES_MAX} bad blocks are named, and {} more",
                self.more
            );
            answer.err.push_str(&more);
        }
        answer.ok = self.named.is_empty() && answer.err.is_empty();
        answer.bad_nodes = self.named;
    }
}

/// Most bad blocks below one pin that are named.
const BAD_NODES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_blocks_beyond_a_bound_are_counted_and_not_named() {
        let told = |count: usize, err: &str| {
            let mut bad = Bad::default();
            for at in 0..count {
                bad.take(BadNode {
                    cid: format!("bafy{at}"),
                    err: "not found".to_owned(),
                });
            }
            let mut answer = Verified {
                err: err.to_owned(),
                ..Verified::default()
            };
            bad.tell(&mut answer);
            (answer.ok, answer.bad_nodes.len(), answer.err)
        };
        assert_eq!(told(0, ""), (true, 0, String::new()));
        assert_eq!(told(0, "wrong"), (false, 0, "wrong".to_owned()));
        let most = told(BAD_NODES_MAX, "");
        assert_eq!(most, (false, BAD_NODES_MAX, String::new()));
        let (ok, named, err) = told(BAD_NODES_MAX + 3, "wrong");
        assert_eq!((ok, named), (false, BAD_NODES_MAX));
        assert_eq!(err, "wrong; 1024 bad blocks are named, and 3 more");
    }
}
