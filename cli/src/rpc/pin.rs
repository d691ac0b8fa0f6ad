//! `pin`: what must stay.

pub mod follow;
pub mod jobs;
pub mod list;
pub mod verify;

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
use cairn_store::pin::{Expiry, Metadata, PINS_AT_ONCE, PinError, PinMode, PinProgress, PinWish};
use cairn_store::unixfs::read::ReadError;
use cairn_store::{Block, Store};
use futures::{Stream, TryStreamExt};
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
            Some(after) if after > EXPIRE_IN_MAX => {
                return Err(RpcError::wrong(
                    "expire-in must be 1000 years (365000d) at most; leave it out for a pin that stays",
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
    let store = call.context.writable_store().await?.clone();
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
                    // Of one that is pinned already nearly all is here, and nobody is to send it again.
                    let is_all_wanted = terms.mode == PinMode::Recursive
                        && terms.max_bytes.is_none()
                        && store.pin(root).is_none();
                    if is_all_wanted {
                        session.prefetch(root).await.map_err(ReadError::from)?;
                    }
                    let wish = terms.wish(*root);
                    call.context
                        .pin_whole(session.clone(), wish, on_progress)
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
    let named = pinned.iter().take(NAMED_MAX);
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
    let refused = pinned().into_iter().filter_map(|root| {
        let error = store.pins_removable(&[root], only).err()?;
        let why = match error {
            PinError::OtherMode { .. } => error.to_string(),
            _ => format!("{} is {error}", cids.text(&root)),
        };
        Some((error.into(), why))
    });
    all_or_none(roots.len(), refused.collect(), "nothing was unpinned")?;
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

/// What is done to all of so many or to none: the error that says why of each for which it cannot be. Of a single one it
/// is the one that tools look for.
fn all_or_none(
    count: usize,
    mut refused: Vec<(RpcError, String)>,
    nothing: &str,
) -> Result<(), RpcError> {
    if count <= 1 {
        return refused.pop().map_or(Ok(()), |(error, _)| Err(error));
    }
    if refused.is_empty() {
        return Ok(());
    }
    let named = refused.iter().take(NAMED_MAX);
    let named: Vec<&str> = named.map(|(_, why)| why.as_str()).collect();
    let more = match refused.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let left = match count - refused.len() {
        0 => String::new(),
        1 => "; the other one stays as it is".to_owned(),
        left => format!("; the other {left} stay as they are"),
    };
    let named = named.join("; ");
    Err(RpcError::failed(format!("{nothing}: {named}{more}{left}")))
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
            // One that stands there already need not be whole.
            call.context.pin_whole(session, wish, |_| {}).await?;
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
/// Most pins that are named in one error.
const NAMED_MAX: usize = 100;
/// Longest that a pin may be asked to stay without being asked to stay for good; its end has a year of four digits.
const EXPIRE_IN_MAX: Duration = Duration::from_secs(365_000 * 24 * 3600);

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
    fn what_is_done_to_all_or_none_says_why_of_each() {
        let refused = |names: &[&str]| {
            let refused = names.iter().map(|name| {
                let error = RpcError::failed("not pinned");
                (error, format!("{name} is not pinned"))
            });
            refused.collect::<Vec<_>>()
        };
        let told = |count, names: &[&str]| {
            let told = all_or_none(count, refused(names), "nothing was done");
            told.map_err(|error| error.message().to_owned())
        };
        assert_eq!(told(1, &[]), Ok(()));
        assert_eq!(told(3, &[]), Ok(()));
        assert_eq!(told(1, &["a"]).unwrap_err(), "not pinned");
        assert_eq!(
            told(4, &["a", "b"]).unwrap_err(),
            "nothing was done: a is not pinned; b is not pinned; the other 2 stay as they are"
        );
        let many = told(NAMED_MAX + 3, &["a"; NAMED_MAX + 2]).unwrap_err();
        let end = "; and 2 more; the other one stays as it is";
        assert!(many.ends_with(end), "{many}");
    }
}
