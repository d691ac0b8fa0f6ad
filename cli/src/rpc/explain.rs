//! `explain`: where a block is, or how it is looked for, as it happens. Kubo has no such command.
//!
//! [`Explaining`] is a source of blocks that tells about each it hands out, so a path is followed
//! by the same code as ever and every block on the way is explained.

use super::api::Call;
use super::error::RpcError;
use super::reply::{Reply, Sink};
use cairn_node::bitswap::policy::DenyContent;
use cairn_node::explain::{self, ADVICE, Ask, Listener, Step, Told, counted};
use cairn_node::routing::Routing;
use cairn_node::swarm::Peers;
use cairn_node::{PeerId, Session};
use cairn_store::dag::path;
use cairn_store::pin::PinMode;
use cairn_store::store::Keep;
use cairn_store::{Block, BlockSource, Cid, SourceError, Store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A line of the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Line {
    /// Since the question.
    pub seconds: f64,
    /// The block it is about.
    pub cid: String,
    /// What happened, in a word for programs.
    pub event: String,
    /// Who, if it is about a peer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// Where the peer may be reached.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Bytes of the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The same for people.
    pub text: String,
}

/// `explain`.
pub async fn explain(call: Call) -> Result<Reply, RpcError> {
    let paths = call.paths("cid").await?;
    let Some(path) = paths.into_iter().next() else {
        return Err(RpcError::wrong("argument \"cid\" is required"));
    };
    let store = call.context.store().await?.clone();
    let session = call.session_that_tells().await?;
    let is_online = call.is_online().await?;
    let online = call.context.node().ok();
    let peers = online.map(|online| online.peers.clone());
    let routing = online.map(|online| online.routing.clone());
    let denied = online
        .map(|online| online.denied.clone())
        .unwrap_or_default();
    Ok(Reply::values(move |out| async move {
        let source = Explaining {
            store,
            session,
            is_online,
            peers,
            denied,
            routing,
            out,
            since: Instant::now(),
        };
        source.session.admits_path(&path)?;
        if path.segments.is_empty() {
            return match source.block(&path.root).await? {
                Some(_) => Ok(()),
                None => Err(not_here(&path.root)),
            };
        }
        let resolved = path::resolve(&source, &path.root, &path.segments).await?;
        if !resolved.remainder.is_empty() {
            return Ok(());
        }
        // The last block of a path is named by its folder; it is not read on the way.
        match source.block(&resolved.cid).await? {
            Some(_) => Ok(()),
            None => Err(not_here(&resolved.cid)),
        }
    }))
}

/// Nobody is sent here who is here.
fn without_advice(text: &str) -> String {
    text.replace(ADVICE, "")
}

fn not_here(cid: &Cid) -> RpcError {
    RpcError::failed(format!("block was not found: ipld: could not find {cid}"))
}

/// The store and the peers behind it, with a voice.
struct Explaining {
    store: Store,
    session: Session,
    is_online: bool,
    peers: Option<Peers>,
    /// What is given to no peer.
    denied: DenyContent,
    routing: Option<Routing>,
    out: Sink,
    since: Instant,
}

impl BlockSource for Explaining {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        self.session.admits(cid)?;
        let about = About {
            cid: *cid,
            since: self.since,
            out: &self.out,
        };
        about.explain(self).await
    }

    fn admits(&self, cid: &Cid) -> Result<(), SourceError> {
        self.session.admits(cid)
    }
}

/// One block being explained.
struct About<'a> {
    cid: Cid,
    since: Instant,
    out: &'a Sink,
}

impl About<'_> {
    async fn explain(&self, source: &Explaining) -> Result<Option<Block>, SourceError> {
        let cid = &self.cid;
        if let Some(block) = Block::from_identity(cid) {
            let text =
                "the CID holds its bytes itself (identity): neither store nor peers are asked";
            self.say("identity", text).await;
            return Ok(Some(block));
        }
        match source.store.block(cid).await {
            Ok(Some(block)) => {
                self.stored(source, block.data().len()).await;
                self.say("verdict", "found: it is here, nothing need be fetched")
                    .await;
                return Ok(Some(block));
            }
            Ok(None) => self.say("absent", "it is not in the store").await,
            Err(error @ SourceError::Damaged { .. }) => {
                let text = "it is in the store but damaged, which counts as absent";
                self.say("damaged", text).await;
                if !source.is_online {
                    let advice =
                        "not found: run `cairn repo verify --heal` with the daemon running";
                    self.say("verdict", advice).await;
                    return Err(error);
                }
            }
            Err(error @ SourceError::Elsewhere { .. }) => {
                let text = format!("{error}; that counts as absent");
                self.say("elsewhere", &text).await;
                if !source.is_online {
                    return Err(error);
                }
            }
            Err(error) => {
                self.say("disk", &error.to_string()).await;
                return Err(error);
            }
        }
        if !source.is_online {
            self.say("offline", "no peers are asked: this is offline")
                .await;
            let advice =
                "not found: run it with the daemon running and without --offline to ask peers";
            self.say("verdict", advice).await;
            return Ok(None);
        }
        let (teller, listener) = explain::pair();
        let fetching = source.session.fetch_told(cid, teller);
        let (fetched, seen) = tokio::join!(fetching, self.listen(listener));
        self.say("summary", &seen.summary()).await;
        let ill = source.routing.iter().flat_map(Routing::ill_routers);
        for router in ill {
            let text =
                format!("a router in `routing.endpoints` failed when it was asked last: {router}");
            self.say("router", &text).await;
        }
        let verdict = match &fetched {
            Ok(Some(_)) => seen.success(),
            Ok(None) => "not found".to_owned(),
            Err(SourceError::TooSlow { .. }) => {
                let refuses = source.peers.as_ref().and_then(Peers::refuses);
                seen.advice(refuses.as_deref())
            }
            Err(error) => format!("not found: {error}"),
        };
        self.say("verdict", &verdict).await;
        fetched.map_err(|error| match error {
            SourceError::TooSlow {
                cid,
                tried,
                is_anywhere,
            } => SourceError::TooSlow {
                cid,
                tried: without_advice(&tried).into(),
                is_anywhere,
            },
            other => other,
        })
    }

    async fn stored(&self, source: &Explaining, bytes: usize) {
        let standing = source.store.standing(&self.cid).await.ok().flatten();
        // By multihash: the block is one, whatever the codec it is pinned by.
        let pins = source.store.pins_on(&self.cid).into_iter();
        let modes: Vec<PinMode> = pins.map(|pin| pin.mode).collect();
        let how = match standing.map(|standing| standing.keep) {
            _ if modes.contains(&PinMode::Recursive) => {
                "kept: it is pinned, with all below it (recursive)"
            }
            _ if !modes.is_empty() => "kept: it is pinned, it alone (direct)",
            Some(Keep::Kept) => {
                "kept until a garbage collection finds that nothing pins it; no pin names it, `cairn pin ls <cid>` \
                 tells whether one reaches it"
            }
            Some(Keep::Cached) => "cached, may go when space is needed",
            None => "going just now",
        };
        let line = Line {
            bytes: Some(bytes as u64),
            ..self.line(
                "stored",
                format!("it is in the store: {bytes} bytes, {how}"),
            )
        };
        self.send(&line).await;
        if source.denied.names(&self.cid) {
            let text =
                "peers that ask for it are told that it is not here: `serve.content_deny` names it";
            self.say("denied", text).await;
        }
    }

    /// Tells what happens until nothing more does.
    async fn listen(&self, mut listener: Listener) -> Seen {
        let mut seen = Seen::default();
        while let Some(told) = listener.next().await {
            seen.take(&told);
            self.send(&self.told(&told)).await;
        }
        seen.dropped = listener.dropped();
        seen
    }

    fn told(&self, told: &Told) -> Line {
        let with = |event: &str, peer: &PeerId, text: String| Line {
            peer: peer.to_string(),
            ..self.line(event, text)
        };
        match &told.step {
            Step::Begun { connected } => self.line(
                "begun",
                format!(
                    "asking peers; {} Bitswap",
                    counted(*connected, "connected one speaks", "connected ones speak")
                ),
            ),
            Step::Shared { others } => self.line(
                "shared",
                format!(
                    "{} for it already: who was asked and has not answered is told below, and not asked again",
                    counted(*others, "other fetch here waits", "other fetches here wait"),
                ),
            ),
            Step::Asked { peer, what } => {
                let (event, what) = match what {
                    Ask::Have => ("want-have", "whether it has it"),
                    Ask::Block => ("want-block", "for the block"),
                };
                with(event, peer, format!("{event} to {peer}: asked {what}"))
            }
            Step::Said { peer, has: true } => with("have", peer, format!("HAVE from {peer}")),
            Step::Said { peer, has: false } => {
                with("dont-have", peer, format!("DONT_HAVE from {peer}"))
            }
            Step::Searching => self.line("search", "searching for providers".to_owned()),
            Step::Found {
                peer,
                addresses,
                connected,
            } => {
                let addresses: Vec<String> = addresses
                    .iter()
                    .take(ADDRESSES_TOLD_MAX)
                    .map(ToString::to_string)
                    .collect();
                let place = match (connected, addresses.as_slice()) {
                    (true, _) => "connected already".to_owned(),
                    (false, []) => "without an address".to_owned(),
                    (false, known) => format!("at {}", known.join(", ")),
                };
                Line {
                    addresses,
                    ..with("provider", peer, format!("provider {peer} found, {place}"))
                }
            }
            Step::Dialled { peer, outcome } => match outcome {
                Ok(()) => with("dialled", peer, format!("connected to {peer}")),
                Err(why) => with("dial-failed", peer, format!("dial failed: {why}")),
            },
            Step::Received { peer, bytes, took } => {
                let took = span(*took);
                Line {
                    bytes: Some(*bytes),
                    ..with(
                        "block",
                        peer,
                        format!("block from {peer} {took}: {bytes} bytes, hash ok"),
                    )
                }
            }
            Step::Wrong { peer } => with(
                "wrong",
                peer,
                format!("{peer} sent bytes of another hash, which nobody asked for"),
            ),
            Step::Silent { peer } => {
                with("silent", peer, format!("{peer} is silent; asking others"))
            }
            Step::Gone { peer } => with("gone", peer, format!("{peer} has gone")),
            Step::Gateway { url, step } => self.of_gateway(url, step),
            Step::LeftOut { url, why } => {
                self.line("left-out", format!("the gateway {url} is not asked: {why}"))
            }
            Step::Stored => self.line("kept", "written into the store, cached".to_owned()),
            Step::NotStored { why } => self.line(
                "not-kept",
                format!("cannot be written into the store: {why}"),
            ),
            Step::TooLarge { bytes } => self.line(
                "too-large",
                format!("it has {bytes} bytes, more than a block may have; not taken"),
            ),
            Step::Here => self.line("here", "it turned up in the store".to_owned()),
            Step::GivenUp { tried } => {
                let tried = without_advice(tried);
                self.line("given-up", format!("given up: {tried}"))
            }
            _ => self.line("other", format!("{:?}", told.step)),
        }
    }

    fn of_gateway(&self, url: &str, step: &Step) -> Line {
        let mut bytes_of_it = None;
        let (event, text) = match step {
            Step::Asked { .. } => ("http-get", format!("asked the gateway {url} for the block")),
            Step::Said { .. } => ("http-absent", format!("{url} does not have it")),
            Step::Failed { .. } => ("http-failed", format!("{url} did not give it")),
            Step::Unreached { why, .. } => {
                ("http-unreached", format!("{url} cannot be reached: {why}"))
            }
            Step::Received { bytes, took, .. } => {
                bytes_of_it = Some(*bytes);
                let took = span(*took);
                let text = format!("block from {url} {took}: {bytes} bytes, hash ok");
                ("block", text)
            }
            Step::Wrong { .. } => ("wrong", format!("{url} sent bytes of another hash")),
            Step::Silent { .. } => ("silent", format!("{url} is silent; asking others")),
            Step::Gone { .. } => ("gone", format!("{url} is asked no more")),
            other => ("other", format!("{url}: {other:?}")),
        };
        Line {
            addresses: vec![url.to_owned()],
            bytes: bytes_of_it,
            ..self.line(event, text)
        }
    }

    fn line(&self, event: &str, text: String) -> Line {
        Line {
            seconds: self.since.elapsed().as_secs_f64(),
            cid: self.cid.to_string(),
            event: event.to_owned(),
            text,
            ..Line::default()
        }
    }

    async fn say(&self, event: &str, text: &str) {
        self.send(&self.line(event, text.to_owned())).await;
    }

    async fn send(&self, line: &Line) {
        // A reader that has gone ends the whole answer anyway.
        let _ = self.out.value(line).await;
    }
}

fn span(took: Option<Duration>) -> String {
    took.map_or_else(
        || "without being asked for it".to_owned(),
        |took| format!("in {:.1} ms", took.as_secs_f64() * 1e3),
    )
}

/// What happened, counted.
#[derive(Debug, Default)]
struct Seen {
    connected: usize,
    searches: u64,
    providers: u64,
    dials: u64,
    dials_failed: u64,
    want_haves: u64,
    want_blocks: u64,
    haves: u64,
    dont_haves: u64,
    wrong: u64,
    blocks: u64,
    gateways: u64,
    from: Option<String>,
    last_failure: Option<String>,
    /// The last gateway that could not be reached, and why.
    unreached: Option<String>,
    unreached_gateways: u64,
    /// Those that were asked, and of them those that could not be reached: one may be asked again just before the end.
    asked_urls: BTreeSet<String>,
    unreached_urls: BTreeSet<String>,
    dropped: u64,
}

impl Seen {
    fn take(&mut self, told: &Told) {
        match &told.step {
            Step::Begun { connected } => self.connected = *connected,
            Step::Asked { what, .. } => match what {
                Ask::Have => self.want_haves += 1,
                Ask::Block => self.want_blocks += 1,
            },
            Step::Said { has: true, .. } => self.haves += 1,
            Step::Said { has: false, .. } => self.dont_haves += 1,
            Step::Searching => self.searches += 1,
            Step::Found { .. } => self.providers += 1,
            Step::Dialled { outcome, .. } => {
                self.dials += 1;
                if let Err(why) = outcome {
                    self.dials_failed += 1;
                    self.last_failure = Some(why.to_string());
                }
            }
            Step::Received { peer, .. } => {
                self.blocks += 1;
                self.from = Some(peer.to_string());
            }
            Step::Wrong { .. } => self.wrong += 1,
            Step::Gateway { url, step } => match &**step {
                Step::Asked { .. } => {
                    self.gateways += 1;
                    self.asked_urls.insert(url.clone());
                }
                Step::Received { .. } => {
                    self.blocks += 1;
                    self.from = Some(url.clone());
                }
                Step::Wrong { .. } => self.wrong += 1,
                Step::Unreached { why, .. } => {
                    self.unreached_gateways += 1;
                    self.unreached_urls.insert(url.clone());
                    self.unreached = Some(format!("{url}: {why}"));
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn summary(&self) -> String {
        let mut text = format!(
            "{}, {} found, {} of which {} failed, {} want-have and {} want-block sent, {} HAVE, {} DONT_HAVE, {} \
             received",
            counted(self.searches, "search", "searches"),
            counted(self.providers, "provider", "providers"),
            counted(self.dials, "dial", "dials"),
            self.dials_failed,
            self.want_haves,
            self.want_blocks,
            self.haves,
            self.dont_haves,
            counted(self.blocks, "block", "blocks"),
        );
        if self.gateways > 0 {
            let requests = counted(self.gateways, "request", "requests");
            text.push_str(&format!(", {requests} to gateways"));
        }
        if self.unreached_gateways > 0 {
            let unreached = self.unreached_gateways;
            text.push_str(&format!(" of which {unreached} did not reach them"));
        }
        if self.dropped > 0 {
            let dropped = format!(
                " ({} happened than could be told)",
                counted(self.dropped, "more thing", "more things")
            );
            text.push_str(&dropped);
        }
        text
    }

    fn success(&self) -> String {
        match &self.from {
            Some(who) => format!("found: {who} sent it"),
            None => "found: it came into the store meanwhile".to_owned(),
        }
    }

    /// What is wrong, most telling first, and what to do. `refuses` tells why no connection is made.
    fn advice(&self, refuses: Option<&str>) -> String {
        let asked = self.want_haves + self.want_blocks + self.gateways;
        let (what, advice) = if self.haves > 0 {
            (
                "peers say that they have it but do not send it",
                "try again later, or connect to another peer that has it",
            )
        } else if self.wrong > 0 {
            (
                "who was asked sent other bytes",
                "connect to another peer that has it",
            )
        } else if let Some(why) = refuses {
            let whom = match asked {
                0 => "nobody could be asked",
                _ => "nobody that was asked has it, and nobody else can be asked",
            };
            return format!("not found: {whom}: {why}");
        } else if self.dials > 0 && self.dials == self.dials_failed {
            let why = self.last_failure.as_deref().unwrap_or_default();
            return format!(
                "not found: none of its providers can be reached, the last failure: {why}; see whether they \
                 are up and whether `network` reaches them"
            );
        } else if let Some(unreached) = &self.unreached
            && self.providers == 0
            && asked == self.gateways
            && self.asked_urls.is_subset(&self.unreached_urls)
        {
            return format!(
                "not found: no gateway that was asked can be reached, the last failure: {unreached}; see \
                 whether it is up and `fetch.gateways` names it rightly"
            );
        } else if asked == 0 && self.providers == 0 {
            (
                "no peer could be asked and no provider is known",
                "connect to a peer that has it (`cairn swarm connect`), or to peers that know others \
                 (`cairn bootstrap add`)",
            )
        } else if self.providers == 0 {
            (
                "nobody that was asked has it and nobody is known to provide it",
                "ask whoever has it to be online and to provide it, or connect to them (`cairn swarm connect`)",
            )
        } else {
            (
                "its providers did not answer, or have it no more",
                "try again later, or connect to another peer that has it",
            )
        };
        format!("not found: {what}; {advice}")
    }
}

/// Addresses of one provider that are told.
const ADDRESSES_TOLD_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(steps: impl IntoIterator<Item = Step>) -> Seen {
        let mut seen = Seen::default();
        for step in steps {
            let after = Duration::ZERO;
            seen.take(&Told { after, step });
        }
        seen
    }

    #[test]
    fn what_happened_once_is_told_as_one() {
        let peer = PeerId::random();
        let found = Step::Found {
            peer,
            addresses: vec![],
            connected: false,
        };
        let of = |steps: Vec<Step>| seen(steps).summary();
        let one = of(vec![Step::Searching, found.clone()]);
        assert!(
            one.starts_with("1 search, 1 provider found, 0 dials of which 0 failed, 0 want-have"),
            "{one}"
        );
        let two = of(vec![Step::Searching, found.clone(), Step::Searching, found]);
        assert!(two.starts_with("2 searches, 2 providers found"), "{two}");
        assert!(two.ends_with("0 DONT_HAVE, 0 blocks received"), "{two}");
    }

    #[test]
    fn the_advice_fits_what_happened() {
        let peer = PeerId::random();
        let asked = Step::Asked {
            peer,
            what: Ask::Have,
        };
        let found = Step::Found {
            peer,
            addresses: vec![],
            connected: false,
        };
        let failed = Step::Dialled {
            peer,
            outcome: Err("nobody there".into()),
        };
        let lacks = Step::Said { peer, has: false };
        let has = Step::Said { peer, has: true };
        let of_gateway = |step| Step::Gateway {
            url: "http://127.0.0.1:8080".to_owned(),
            step: Box::new(step),
        };
        for (steps, told) in [
            (vec![], "no peer could be asked"),
            (
                vec![asked.clone(), lacks.clone()],
                "nobody is known to provide it",
            ),
            (
                vec![of_gateway(asked.clone()), of_gateway(lacks)],
                "nobody that was asked has it",
            ),
            (
                vec![found.clone(), failed],
                "the last failure: nobody there",
            ),
            (vec![asked.clone(), has], "do not send it"),
            (vec![found, asked], "did not answer"),
        ] {
            let seen = seen(steps);
            let advice = seen.advice(None);
            assert!(advice.contains(told), "{advice}");
            // Who has no room for new peers need not be told to connect to some.
            let advice = seen.advice(Some("no memory"));
            let is_named = advice.ends_with(": no memory") && !advice.contains("connect");
            assert_ne!(is_named, told.contains("do not send"), "{advice}");
        }
        let alone = Seen::default().advice(Some("no memory"));
        assert_eq!(alone, "not found: nobody could be asked: no memory");
    }
}
