//! A DAG, or a part of it, as a CARv1 that clients check for themselves.
//!
//! First the blocks on the way from the root, then what was asked for, depth first. Identity
//! blocks are in their CIDs and are never written. A block that cannot be had ends the stream with
//! an error: the connection breaks, and no client takes a part for the whole.

mod part;

use super::ahead::Leave;
use super::{Context, answer, not_modified};
use crate::body::{self, Body, Break, Chunks};
use crate::budget;
use crate::encode::{FINGERPRINT, fingerprint};
use crate::error::Failure;
use crate::headers::{self, Disposition, Match};
use crate::metrics::Kind;
use crate::request::{Query, Verb};
use bytes::Bytes;
use cairn_store::car::write;
use cairn_store::dag::Budget;
use cairn_store::dag::walk::{self, Missing, Options, Order, Repeats, Visit};
use cairn_store::unixfs::read::{Node, ReadError};
use cairn_store::{Block, BlockSource, Cid, cid};
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use http::{HeaderValue, Response, header};
use part::{Follow, follow};
use std::ops::Range;
use std::pin::Pin;
use std::str::FromStr;

/// Blocks in the order they are sent.
type Blocks = Pin<Box<dyn Stream<Item = Result<Block, Break>> + Send>>;

/// How much of the DAG is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Everything below.
    All,
    /// What it takes to show the file or to list the folder.
    Entity(Option<EntityBytes>),
    /// The one block.
    Block,
}

/// Which bytes of a file: inclusive; negative numbers count from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntityBytes {
    from: i64,
    /// `None` is `*`, the end.
    to: Option<i64>,
}

/// Answers with a CAR.
pub(super) async fn serve<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
) -> Result<Response<Body>, Failure> {
    let scope = Scope::parse(&context.request.query)?;
    let repeats = context
        .request
        .wish
        .as_ref()
        .map_or(Repeats::Skip, |wish| wish.car.repeats);
    let etag = etag(context, scope, repeats);
    let matched = headers::if_none_match(context.request, &etag);
    if matched == Match::Named {
        return Ok(not_modified(
            Kind::Car,
            headers::value(etag),
            context.cache(),
        ));
    }
    let root = &context.resolved.cid;
    let here = context.source.size(root).await.map_err(Failure::source)?;
    here.ok_or_else(|| Failure::absent(context.request.reach, root))?;
    if matched == Match::Any {
        return Ok(not_modified(
            Kind::Car,
            headers::value(etag),
            context.cache(),
        ));
    }
    let media = HeaderValue::from_static(match repeats {
        Repeats::Skip => "application/vnd.ipld.car; version=1; order=dfs; dups=n",
        Repeats::Keep => "application/vnd.ipld.car; version=1; order=dfs; dups=y",
    });
    let mut response = answer(Kind::Car, &etag, media, context.cache());
    let map = response.headers_mut();
    map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    map.insert(header::ACCEPT_RANGES, headers::NONE);
    map.insert(
        header::CONTENT_DISPOSITION,
        context.disposition(Disposition::Attachment, "car"),
    );
    let blocks = blocks(context, scope, repeats).await?;
    if context.request.verb == Verb::Get {
        // Far enough to reach the first block: what fails there is still told by a status.
        let header = write::header(&[*root]);
        let wanted = header.len() + 1;
        let peeked = body::peek(sections(header, blocks), wanted)
            .await
            .map_err(|why| why.into_failure(context.reach()))?;
        *response.body_mut() = Body::stream(peeked.into_chunks(), None, context.idle());
    }
    Ok(response)
}

/// The blocks on the way, then those below.
async fn blocks<S: BlockSource + Clone + 'static>(
    context: &Context<'_, S>,
    scope: Scope,
    repeats: Repeats,
) -> Result<Blocks, Failure> {
    let root = context.resolved.cid;
    let source = context.source.clone();
    let way: Vec<Cid> = match context.resolved.blocks.split_last() {
        Some((_, way)) => way.to_vec(),
        None => Vec::new(),
    };
    let way = each(source.clone(), way);
    let budget = budget::of_archive(context.config);
    let below = match scope {
        Scope::All => all(source, root, repeats, budget, context.leave),
        Scope::Block => each(source, vec![root]),
        Scope::Entity(_) if root.codec() != cid::DAG_PB => each(source, vec![root]),
        Scope::Entity(bytes) => match (context.open(&root).await, bytes) {
            (Ok(Node::File(_)), None) => all(source, root, repeats, budget, context.leave),
            (Ok(Node::File(file)), Some(bytes)) => {
                let range = bytes.within(file.size())?;
                follow(source, root, Follow::Part(range), repeats, budget)
            }
            (Ok(Node::Directory(directory)), _) if directory.is_sharded() => {
                follow(source, root, Follow::Shards, repeats, budget)
            }
            // A folder in one block, a link, or nothing that UnixFS knows: the block is all of it.
            (Ok(_) | Err(Failure::Broken(_) | Failure::Format(_)), _) => each(source, vec![root]),
            (Err(failure), _) => return Err(failure),
        },
    };
    Ok(way.chain(below).boxed())
}

/// Blocks by name, one after the other.
fn each<S: BlockSource + Clone + 'static>(source: S, cids: Vec<Cid>) -> Blocks {
    stream::iter(cids)
        .then(move |cid| {
            let source = source.clone();
            async move { fetch(&source, &cid).await }
        })
        .boxed()
}

async fn fetch<S: BlockSource>(source: &S, cid: &Cid) -> Result<Block, Break> {
    let block = source.block(cid).await.map_err(ReadError::from)?;
    Ok(block.ok_or(ReadError::NotFound(*cid))?)
}

/// Everything below, links of every codec followed.
fn all<S: BlockSource + Clone + 'static>(
    source: S,
    root: Cid,
    repeats: Repeats,
    budget: Budget,
    leave: &Leave,
) -> Blocks {
    let leave = leave.take();
    let options = Options {
        repeats,
        max_depth: None,
        budget,
        missing: Missing::Stop,
        order: Order::Links,
        read_ahead: if leave.is_some() {
            READ_AHEAD_BLOCKS
        } else {
            1
        },
    };
    walk::walk(source, root, options)
        .map_err(Break::of_archive)
        .and_then(move |visit| {
            // Held for as long as the walk.
            let _ = &leave;
            future::ready(match visit {
                Visit::Block { block, .. } => Ok(block),
                // Told only to those who ask for it; never to be taken for the end.
                Visit::Missing { cid, .. } => Err(ReadError::NotFound(cid).into()),
            })
        })
        .boxed()
}

/// The bytes of the CAR.
fn sections(header: Bytes, blocks: Blocks) -> Chunks {
    let sections = blocks
        .try_filter(|block| future::ready(!cid::is_identity(block.cid())))
        .map(|block| match block {
            Ok(block) => {
                let prefix = write::section_prefix(&block);
                let (_, data) = block.into_parts();
                [Some(Ok(prefix)), Some(Ok(data))]
            }
            Err(why) => [Some(Err(why)), None],
        })
        .flat_map(|pieces| stream::iter(pieces.into_iter().flatten()));
    stream::once(future::ready(Ok(header)))
        .chain(sections)
        .boxed()
}

/// Varies with everything that the bytes vary with.
fn etag<S>(context: &Context<'_, S>, scope: Scope, repeats: Repeats) -> String {
    let mut hash = fingerprint(FINGERPRINT, format!("{scope:?} {repeats:?}").as_bytes());
    for cid in &context.resolved.blocks {
        hash = fingerprint(hash, &cid.to_bytes());
    }
    format!("W/\"{}.car.{hash:016x}\"", context.resolved.cid)
}

impl Scope {
    fn parse(query: &Query) -> Result<Self, Failure> {
        let bytes = query.first("entity-bytes").map(str::parse).transpose()?;
        match (query.first("dag-scope"), bytes) {
            (None | Some("all" | "entity" | "block" | ""), Some(bytes)) => {
                Ok(Self::Entity(Some(bytes)))
            }
            (None | Some("all" | ""), None) => Ok(Self::All),
            (Some("entity"), None) => Ok(Self::Entity(None)),
            (Some("block"), None) => Ok(Self::Block),
            (Some(other), _) => Err(Failure::Parameter(format!(
                "unsupported dag-scope {other:?}: it may be all, entity or block"
            ))),
        }
    }
}

impl FromStr for EntityBytes {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::Parameter(format!(
                "invalid entity-bytes {text:?}: it should read like 0:*, 0:1023 or -1024:*"
            ))
        };
        let (from, to) = text.split_once(':').ok_or_else(wrong)?;
        let from: i64 = from.parse().map_err(|_| wrong())?;
        let to: Option<i64> = match to {
            "*" => None,
            to => Some(to.parse().map_err(|_| wrong())?),
        };
        match to {
            Some(to) if (from < 0) == (to < 0) && to < from => Err(wrong()),
            _ => Ok(Self { from, to }),
        }
    }
}

impl EntityBytes {
    /// The bytes of a file of `size`; an error if they lie wholly outside.
    fn within(self, size: u64) -> Result<Range<u64>, Failure> {
        let at = |position: i64| {
            if position < 0 {
                size.checked_sub(position.unsigned_abs())
            } else {
                Some(position.unsigned_abs())
            }
        };
        let start = at(self.from).unwrap_or(0);
        let end = match self.to {
            None => Some(size),
            Some(to) => at(to).map(|last| last.saturating_add(1).min(size)),
        };
        match end {
            _ if size == 0 => Ok(0..0),
            Some(end) if start < end => Ok(start..end),
            _ => Err(Failure::Parameter(format!(
                "entity-bytes lies outside the file, which has {size} bytes"
            ))),
        }
    }
}

/// How many blocks a walk asks for ahead of the one that is sent.
const READ_AHEAD_BLOCKS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_bytes_read_in_every_form() {
        let within =
            |text: &str, size| EntityBytes::from_str(text).and_then(|bytes| bytes.within(size));
        for (text, range) in [
            ("0:1000", 0..1001),
            ("2200:*", 2200..3072),
            ("512:1023", 512..1024),
            ("512:-256", 512..2817),
            ("-5:*", 3067..3072),
            ("-9999:*", 0..3072),
            ("-9999:-3", 0..3070),
            ("0:0", 0..1),
            ("0:99999", 0..3072),
        ] {
            assert_eq!(within(text, 3072), Ok(range), "{text}");
        }
        for text in [
            "",
            "5",
            "5:4",
            "-3:-4",
            "a:b",
            "0:",
            ":5",
            "1:2:3",
            "9999:*",
            "3072:*",
            "0:-9999",
            "99999999999999999999:*",
        ] {
            assert!(
                matches!(within(text, 3072), Err(Failure::Parameter(_))),
                "{text}"
            );
        }
        assert_eq!(within("0:*", 0), Ok(0..0));
        assert!(
            EntityBytes {
                from: i64::MIN,
                to: Some(i64::MIN)
            }
            .within(u64::MAX)
            .is_ok()
        );
    }

    #[test]
    fn entity_bytes_imply_their_scope() {
        let scope = |query| Scope::parse(&Query::parse(Some(query)));
        assert_eq!(scope(""), Ok(Scope::All));
        assert_eq!(scope("dag-scope=block"), Ok(Scope::Block));
        assert!(matches!(
            scope("entity-bytes=0:*"),
            Ok(Scope::Entity(Some(_)))
        ));
        assert!(scope("dag-scope=half").is_err());
    }
}
