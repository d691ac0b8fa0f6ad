//! `pin`: what must stay.

pub mod follow;
pub mod jobs;
pub mod list;

use super::api::{Call, resolve_to_block};
use super::arguments::{Arguments, CidText};
use super::error::RpcError;
use super::reply::{Reply, Sink};
use cairn_node::Session;
use cairn_node::pins::jobs::JobError;
use cairn_store::cid::{Cid, Multihash};
use cairn_store::config::ByteSize;
use cairn_store::dag::has_no_links;
use cairn_store::dag::walk::{Missing, Options, Visit, walk};
use cairn_store::pin::{Expiry, Metadata, PINS_AT_ONCE, PinMode, PinProgress, PinWish};
use cairn_store::unixfs::read::ReadError;
use cairn_store::{Block, Store};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// The answer of `pin add`, `pin rm` and `pin update`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Pins {
    /// What was pinned or unpinned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<String>,
    /// Blocks seen so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<u64>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many bytes there are in all, where the first block says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What is pinned later, in the background.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queued: Vec<String>,
    /// Why that may take long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// What was queued and is not pinned any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cancelled: Vec<String>,
}

/// How something is to be pinned.
#[derive(Debug, Clone)]
struct Terms {
    mode: PinMode,
    name: Option<String>,
    metadata: Metadata,
    expiry: Expiry,
    max_bytes: Option<u64>,
}

impl Terms {
    async fn read(call: &Call) -> Result<Self, RpcError> {
        let arguments = &call.arguments;
        let name = arguments
            .text(&["name", "n"])
            .filter(|name| !name.is_empty());
        let expiry = match arguments.duration(&["expire-in"])? {
            None => Expiry::Never,
            Some(Duration::ZERO) => {
                return Err(RpcError::wrong(
                    "expire-in must be longer than nothing; leave it out for a pin that stays",
                ));
            }
            Some(after) => Expiry::At(call.context.follows().await?.expiry_after(after)?),
        };
        let max_bytes: Option<ByteSize> =
            arguments.parsed(&["max-size"], "a number of bytes like 500MB or 2GiB")?;
        Ok(Self {
            mode: match arguments.choice(&["recursive", "r"])?.unwrap_or(true) {
                true => PinMode::Recursive,
                false => PinMode::Direct,
            },
            name: name.map(str::to_owned),
            metadata: metadata(arguments)?,
            expiry,
            max_bytes: max_bytes.map(|bytes| bytes.0),
        })
    }

    fn wish(&self, cid: Cid) -> PinWish {
        PinWish {
            metadata: self.metadata.clone(),
            expiry: self.expiry,
            max_bytes: self.max_bytes,
            ..PinWish::new(cid, self.mode).named(self.name.clone())
        }
    }
}

/// Every `meta`, as `key=value`.
fn metadata(arguments: &Arguments) -> Result<Metadata, RpcError> {
    let pairs = arguments.each("meta").map(|text| {
        let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = pair.ok_or_else(|| {
            RpcError::wrong(format!(
                "invalid value {text:?} for meta: expected key=value"
            ))
        })?;
        Ok((key.to_owned(), value.to_owned()))
    });
    pairs.collect()
}

/// A line of `pin verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Verified {
    /// The pin.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cid: String,
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

async fn roots(call: &Call, session: &Session, name: &str) -> Result<Vec<Cid>, RpcError> {
    let mut roots = Vec::new();
    for path in call.paths(name).await? {
        roots.push(resolve_to_block(session, &path).await?);
    }
    Ok(roots)
}

/// `pin add`.
pub async fn add(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    if arguments.flag(&["follow"])? {
        return follow::add(call).await;
    }
    if arguments.flag(&["background"])? {
        return jobs::add(call).await;
    }
    let terms = Terms::read(&call).await?;
    let progress = arguments.flag(&["progress"])?;
    let cids = arguments.cids()?;
    call.context.writable_store().await?;
    let session = call.session().await?;
    Ok(Reply::values(move |out| async move {
        let roots = roots(&call, &session, "ipfs-path").await?;
        let meter = Meter::default();
        let mut pinned = Vec::new();
        for batch in roots.chunks(PINS_AT_ONCE) {
            let wishes = batch.iter().map(|root| terms.wish(*root)).collect();
            let here = call.context.pin_here(&session, wishes).await?;
            let (here, rest): (Vec<_>, Vec<_>) =
                batch.iter().zip(here).partition(|(_, is_here)| *is_here);
            pinned.extend(here.into_iter().map(|(root, _)| root));
            for (root, _) in rest {
                let teller = (progress).then_some(&out);
                let counted = meter.clone();
                let on_progress = move |now: PinProgress| counted.at(now);
                let pinning = async {
                    if terms.mode == PinMode::Recursive && terms.max_bytes.is_none() {
                        session.prefetch(root).await.map_err(ReadError::from)?;
                    }
                    let wish = terms.wish(*root);
                    call.context
                        .pin_as(session.clone(), wish, on_progress)
                        .await
                };
                let done = tell_while(&meter, teller, pinning).await;
                done.map_err(|error| after(error, &pinned, &cids))?;
                pinned.push(root);
            }
        }
        out.value(&Pins {
            pins: roots.iter().map(|root| cids.text(root)).collect(),
            ..Pins::default()
        })
        .await
    }))
}

/// The error behind some that were pinned.
fn after(error: RpcError, pinned: &[&Cid], cids: &CidText) -> RpcError {
    if pinned.is_empty() {
        return error;
    }
    let named = pinned.iter().take(PINNED_NAMED_MAX);
    let named: Vec<String> = named.map(|root| cids.text(root)).collect();
    let more = match pinned.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    RpcError::failed(format!("{error}; pinned before: {}{more}", named.join(" ")))
}

/// `pin rm`: all of them, or none. What is only queued is cancelled.
pub async fn remove(call: Call) -> Result<Reply, RpcError> {
    let recursive = call.arguments.choice(&["recursive", "r"])?.unwrap_or(true);
    let only = if recursive {
        None
    } else {
        Some(PinMode::Direct)
    };
    let cids = call.arguments.cids()?;
    let store = call.context.writable_store().await?;
    let session = call.upkeep_session().await?;
    let roots = roots(&call, &session, "ipfs-path").await?;
    // A pin that is named twice goes once.
    let mut seen = HashSet::new();
    let roots: Vec<Cid> = roots
        .into_iter()
        .filter(|root| seen.insert((root.codec(), *root.hash())))
        .collect();
    not_followed(&call, &roots).await?;
    let jobs = call.context.jobs().await?;
    // Or it would be pinned again.
    let queued: Vec<Cid> = roots
        .iter()
        .copied()
        .filter(|root| jobs.has(root))
        .collect();
    let may_be_unpinned: HashSet<Cid> = queued.iter().copied().collect();
    let pinned = || {
        let stands = |root: &Cid| !may_be_unpinned.contains(root) || store.pin(root).is_some();
        roots.iter().copied().filter(stands).collect::<Vec<Cid>>()
    };
    store.pins_removable(&pinned(), only)?;
    for root in &queued {
        match jobs.cancel(root).await {
            // It was pinned at this moment.
            Err(JobError::Unknown(_)) => {}
            cancelled => cancelled?,
        }
    }
    let pinned = pinned();
    if !pinned.is_empty() {
        store.pins_remove(&pinned, only).await?;
    }
    Reply::value(&Pins {
        pins: roots.iter().map(|root| cids.text(root)).collect(),
        cancelled: queued.iter().map(|root| cids.text(root)).collect(),
        ..Pins::default()
    })
}

/// What a followed name leads to would be pinned again.
async fn not_followed(call: &Call, roots: &[Cid]) -> Result<(), RpcError> {
    match call.context.follows().await?.holds(roots) {
        None => Ok(()),
        Some((root, path)) => Err(RpcError::failed(format!(
            "{root} is pinned because {path} is followed, and would be again; `cairn pin unfollow {path}` first"
        ))),
    }
}

/// `pin update`: the new pin is whole before the old one goes.
pub async fn update(call: Call) -> Result<Reply, RpcError> {
    let unpin = call.arguments.choice(&["unpin"])?.unwrap_or(true);
    let cids = call.arguments.cids()?;
    let store = call.context.writable_store().await?.clone();
    let session = call.session().await?;
    Ok(Reply::values(move |out| async move {
        let roots = roots(&call, &session, "from-path").await?;
        let [from, to] = roots.as_slice() else {
            return Err(RpcError::wrong("argument \"to-path\" is required"));
        };
        let old = store
            .pin(from)
            .filter(|pin| pin.mode == PinMode::Recursive)
            .ok_or_else(|| RpcError::failed("'from' cid was not recursively pinned already"))?;
        if from.hash() != to.hash() {
            if unpin {
                not_followed(&call, &[*from]).await?;
            }
            // It goes on as the same pin of something else; one that stands there already expires no earlier.
            let expiry = match store.pin(to) {
                Some(_) => Expiry::AsItWas,
                None => old.expires.map_or(Expiry::Never, Expiry::At),
            };
            let wish = PinWish {
                metadata: old.metadata,
                expiry,
                ..PinWish::new(*to, PinMode::Recursive).named(old.name)
            };
            call.context.pin_as(session, wish, |_| {}).await?;
            if unpin {
                store.pin_remove(from, Some(PinMode::Recursive)).await?;
            }
        }
        out.value(&Pins {
            pins: vec![cids.text(from), cids.text(to)],
            ..Pins::default()
        })
        .await
    }))
}

/// `pin verify`: whether everything that is pinned is here.
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

/// Which of `wanted` must stay, and why: `recursive`, `direct` or `indirect through <root>`.
pub async fn reached_by(
    store: &Store,
    local: &Session,
    wanted: &[Cid],
) -> Result<HashMap<Multihash, String>, RpcError> {
    let mut missing: HashSet<Multihash> = wanted.iter().map(|cid| *cid.hash()).collect();
    let mut reached = HashMap::new();
    for pin in store.pin_pages() {
        // By multihash: the block is one, whatever the codec it is asked for by.
        if missing.remove(pin.cid.hash()) {
            reached.insert(*pin.cid.hash(), pin.mode.name().to_owned());
        }
    }
    for pin in store.pin_pages() {
        if missing.is_empty() {
            break;
        }
        if pin.mode != PinMode::Recursive || has_no_links(pin.cid.codec()) {
            continue;
        }
        // What cannot be read may reach anything: then nothing is known, and nothing is said.
        let mut below = pin!(below(local, pin.cid, Missing::Stop));
        while !missing.is_empty()
            && let Some(cid) = below.try_next().await?
        {
            if missing.remove(cid.hash()) {
                reached.insert(*cid.hash(), format!("indirect through {}", pin.cid));
            }
        }
    }
    Ok(reached)
}

/// Every block below a pin, the pin itself left out.
fn below(
    local: &Session,
    root: Cid,
    missing: Missing,
) -> impl Stream<Item = Result<Cid, ReadError>> + Send + use<> {
    let options = Options {
        missing,
        ..Options::default()
    };
    walk(local.clone(), root, options).try_filter_map(move |visit| {
        let cid = match visit {
            Visit::Block { block, .. } => *Block::cid(&block),
            Visit::Missing { cid, .. } => cid,
        };
        std::future::ready(Ok((cid != root).then_some(cid)))
    })
}

/// How far pinning is. Cheap to clone.
#[derive(Debug, Clone, Default)]
struct Meter(Arc<cairn_node::pins::jobs::Meter>);

impl Meter {
    fn at(&self, now: PinProgress) {
        self.0.at(now);
    }

    fn read(&self) -> Pins {
        let now = self.0.read();
        Pins {
            progress: Some(now.blocks),
            bytes: Some(now.bytes),
            total: now.total,
            ..Pins::default()
        }
    }
}

/// Does `work` and tells now and then how far it is, if that changed and somebody wants to know.
async fn tell_while<T>(meter: &Meter, teller: Option<&Sink>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let Some(out) = teller else {
        return work.await;
    };
    let mut ticks = tokio::time::interval(PROGRESS_TIME);
    let mut told = None;
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => {
                let now = meter.read();
                if told.as_ref() != Some(&now) {
                    out.offer(&now);
                    told = Some(now);
                }
            }
        }
    }
}

/// How long somebody waits for a figure that changed. Clusters give up on pins that stand still.
const PROGRESS_TIME: Duration = Duration::from_millis(250);
/// Most bad blocks below one pin that are named.
const BAD_NODES_MAX: usize = 1024;
/// Most pins that were made before an error and are named in it.
const PINNED_NAMED_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_kubos_shape() {
        let pins = Pins {
            pins: vec!["bafy".to_owned()],
            ..Pins::default()
        };
        assert_eq!(
            serde_json::to_string(&pins).unwrap(),
            r#"{"Pins":["bafy"]}"#
        );
        let progress = Pins {
            progress: Some(5),
            bytes: Some(10),
            ..Pins::default()
        };
        assert_eq!(
            serde_json::to_string(&progress).unwrap(),
            r#"{"Progress":5,"Bytes":10}"#
        );
    }

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
