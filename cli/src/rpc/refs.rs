//! `refs`: the links below a root; `refs local`: every block that is here.

use super::api::{Call, resolve_to_block};
use super::arguments::CidText;
use super::error::RpcError;
use super::reply::Reply;
use cairn_node::Session;
use cairn_store::Cid;
use cairn_store::dag::{self, Link};
use cairn_store::source::BlockSource;
use cairn_store::unixfs::read::ReadError;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// A line of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ref {
    /// A reference, in the format asked for.
    #[serde(rename = "Ref")]
    pub reference: String,
    /// Why there is none.
    pub err: String,
}

/// How references are looked for and written.
#[derive(Debug, Clone)]
struct Options {
    depth: Option<usize>,
    repeats: Repeats,
    format: String,
    cids: CidText,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    Told,
    LeftOut,
}

/// `refs`.
pub async fn refs(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let paths = call.paths("ipfs-path").await?;
    let recursive = arguments.flag(&["recursive", "r"])?;
    let depth: i64 = arguments.parsed(&["max-depth"], "a number")?.unwrap_or(-1);
    let format = arguments
        .text(&["format"])
        .filter(|format| !format.is_empty());
    let format = if arguments.flag(&["edges", "e"])? {
        if format.is_some_and(|format| format != ONLY_TARGET) {
            return Err(RpcError::failed(
                "using format argument with edges is not allowed",
            ));
        }
        "<src> -> <dst>"
    } else {
        format.unwrap_or(ONLY_TARGET)
    };
    let options = Options {
        depth: if recursive {
            usize::try_from(depth).ok()
        } else {
            Some(1)
        },
        repeats: if arguments.flag(&["unique", "u"])? {
            Repeats::LeftOut
        } else {
            Repeats::Told
        },
        format: format.to_owned(),
        cids: arguments.cids()?,
    };
    let session = call.session().await?;
    Ok(Reply::values(move |out| async move {
        let mut walk = Walk {
            seen: HashMap::new(),
            options,
        };
        for path in &paths {
            let root = resolve_to_block(&session, path).await?;
            // Each open node with what is left of its links.
            let mut open = vec![(root, links(&session, &root).await?.into_iter())];
            while let Some((from, rest)) = open.last_mut() {
                let Some(link) = rest.next() else {
                    open.pop();
                    continue;
                };
                let from = *from;
                let depth = open.len();
                let (deeper, told) = walk.visit(&link.cid, depth);
                if told {
                    out.value(&Ref {
                        reference: walk.text(&from, &link),
                        err: String::new(),
                    })
                    .await?;
                }
                if deeper {
                    if open.len() >= DEPTH_MAX {
                        return Err(RpcError::failed(format!(
                            "{} lies deeper than {DEPTH_MAX} links",
                            link.cid
                        )));
                    }
                    let below = links(&session, &link.cid).await?;
                    open.push((link.cid, below.into_iter()));
                }
            }
        }
        Ok(())
    }))
}

async fn links(session: &Session, cid: &Cid) -> Result<Vec<Link>, RpcError> {
    if cid.codec() == cairn_store::cid::RAW {
        return Ok(Vec::new());
    }
    let block = session.block(cid).await?;
    let block = block.ok_or_else(|| RpcError::from(ReadError::NotFound(*cid)))?;
    Ok(dag::links(&block)?)
}

struct Walk {
    /// Where each block was seen highest.
    seen: HashMap<Cid, usize>,
    options: Options,
}

impl Walk {
    /// Whether to go below a link at `depth` (the root's have 1), and whether to tell it.
    fn visit(&mut self, cid: &Cid, depth: usize) -> (bool, bool) {
        let (at_end, beyond) = match self.options.depth {
            Some(limit) => (depth == limit, depth > limit),
            None => (false, false),
        };
        if beyond {
            return (false, false);
        }
        if self.options.repeats == Repeats::Told {
            return (!at_end, true);
        }
        let before = self.seen.get(cid).copied();
        if before.is_some_and(|before| self.options.depth.is_none() || before <= depth) {
            return (false, false);
        }
        self.seen.insert(*cid, depth);
        (!at_end, before.is_none())
    }

    fn text(&self, from: &Cid, link: &Link) -> String {
        let cids = self.options.cids;
        if self.options.format == ONLY_TARGET {
            return cids.text(&link.cid);
        }
        self.options
            .format
            .replace("<src>", &cids.text(from))
            .replace("<dst>", &cids.text(&link.cid))
            .replace("<linkname>", &link.name)
    }
}

/// `refs local`.
pub async fn local(call: Call) -> Result<Reply, RpcError> {
    let cids = call.arguments.cids()?;
    let store = call.context.store().await?.clone();
    Ok(Reply::values(move |out| async move {
        let listed = store.list(move |cid| {
            let line = Ref {
                reference: cids.text(&cid),
                err: String::new(),
            };
            match out.blocking_value(&line) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        Ok(listed.await?)
    }))
}

const ONLY_TARGET: &str = "<dst>";
/// Deepest level that is walked.
const DEPTH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(depth: Option<usize>, repeats: Repeats) -> Walk {
        Walk {
            seen: HashMap::new(),
            options: Options {
                depth,
                repeats,
                format: "<src> -> <dst> <linkname>".to_owned(),
                cids: CidText::default(),
            },
        }
    }

    #[test]
    fn a_limit_on_depth_is_kept() {
        let mut walk = walk(Some(2), Repeats::Told);
        let cid = Cid::default();
        assert_eq!(walk.visit(&cid, 1), (true, true));
        assert_eq!(walk.visit(&cid, 2), (false, true));
        assert_eq!(walk.visit(&cid, 3), (false, false));
    }

    #[test]
    fn a_repeat_is_walked_again_only_if_more_can_be_seen_from_there() {
        let mut walk = walk(Some(3), Repeats::LeftOut);
        let cid = Cid::default();
        assert_eq!(walk.visit(&cid, 3), (false, true));
        assert_eq!(walk.visit(&cid, 1), (true, false));
        assert_eq!(walk.visit(&cid, 2), (false, false));
    }

    #[test]
    fn edges_are_written_in_the_format_asked_for() {
        let walk = walk(None, Repeats::Told);
        let cid = cairn_store::cid::parse("bafkqaaa").unwrap();
        let link = Link {
            name: "n".to_owned(),
            cid,
            tsize: None,
        };
        assert_eq!(walk.text(&cid, &link), "bafkqaaa -> bafkqaaa n");
    }
}
