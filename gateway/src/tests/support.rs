//! Content made by hand, and a client without a network.

use crate::config::Config;
use crate::content::Content;
use crate::handler::Handler;
use crate::metrics::Metrics;
use crate::names::{Holds, Led, Names};
use crate::routing::{Lookups, Routing};
use bytes::Bytes;
use cairn_node::PeerId;
use cairn_node::ipns::Record;
use cairn_node::name::dns::LookupError;
use cairn_node::name::domain::Domain;
use cairn_node::name::follow::{FollowError, WalkError};
use cairn_node::name::path::{NamePath, Root};
use cairn_node::name::resolve::{Freshness, How, ResolveError};
use cairn_node::name::resolver::NameError;
use cairn_store::block::Prefix;
use cairn_store::cid::{self, HashKind, Version};
use cairn_store::dag::path::ContentPath;
use cairn_store::dag::pb::{PbLink, PbNode, encode};
use cairn_store::source::{Denial, Grounds};
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::import::{Importer, Metadata};
use cairn_store::{Block, BlockSource, Cid, SourceError};
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What happens to those who ask for a block that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are told that it is nowhere.
    Absent,
    /// They are told that nobody answered.
    TooSlow,
    /// They are told that nobody was found.
    Nowhere,
    /// They are told nothing.
    Hangs,
    /// They are told that its bytes are damaged.
    Damaged,
}

/// Blocks here and blocks elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) here: HashMap<Cid, Block>,
    pub(super) elsewhere: HashMap<Cid, Block>,
    pub(super) missing: Missing,
    pub(super) config: Config,
    pub(super) names: Known,
    /// How many blocks were asked for so far.
    asked: Arc<AtomicU64>,
}

/// Names of which it is known where they lead.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) leads: BTreeMap<Root, String>,
    pub(super) records: HashMap<PeerId, Record>,
    /// Paths that the operator denies.
    pub(super) denied: Vec<String>,
    /// Whether DNS fails for the others.
    pub(super) fails: bool,
}

/// For how long all of them hold.
pub(super) const TTL: Duration = Duration::from_secs(1234);
/// How long ago a record was asked for.
const AGE: Duration = Duration::from_secs(34);

impl Names for Known {
    fn lead(&self, path: NamePath, _: How) -> BoxFuture<'_, Result<Led, FollowError<NameError>>> {
        let led = match self.leads.get(&path.root) {
            Some(to) => {
                let below = path.segments.join("/");
                let content: ContentPath = format!("{to}/{below}").parse().unwrap();
                let holds = Holds::For(TTL);
                Ok(Led { content, holds })
            }
            None => Err(WalkError::Circle(vec![path.root.to_string()]).into()),
        };
        ready(led).boxed()
    }

    fn is_bound(&self, domain: Domain, how: How) -> BoxFuture<'_, Result<bool, LookupError>> {
        let is_bound = self.leads.contains_key(&Root::Domain(domain.clone()));
        let bound = match (is_bound, how) {
            (false, How::Here) if self.fails => Err(LookupError::Offline(domain)),
            (false, _) if self.fails => Err(LookupError::Busy(domain)),
            (is_bound, _) => Ok(is_bound),
        };
        ready(bound).boxed()
    }

    fn admits(&self, path: &NamePath) -> Result<(), Denial> {
        if !self.denied.contains(&path.to_string()) {
            return Ok(());
        }
        Err(Denial {
            what: path.to_string().into(),
            by: "a rule of a test".into(),
            grounds: Grounds::Legal,
        })
    }

    fn record(&self, key: PeerId, _: How) -> BoxFuture<'_, Result<(Record, Freshness), NameError>> {
        let found = self.records.get(&key).cloned();
        let found = found.ok_or(NameError::Record(ResolveError::NotFound(key)));
        let fresh = Freshness { ttl: TTL, age: AGE };
        ready(found.map(|record| (record, fresh))).boxed()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Blocks {
    site: Arc<Site>,
    only_here: bool,
}

impl BlockSource for Blocks {
    async fn block(&self, cid: &Cid) -> Result<Option<Block>, SourceError> {
        self.site.asked.fetch_add(1, Ordering::Relaxed);
        let found = Block::from_identity(cid)
            .or_else(|| self.site.here.get(cid).cloned())
            .or_else(|| {
                self.site
                    .elsewhere
                    .get(cid)
                    .filter(|_| !self.only_here)
                    .cloned()
            });
        match (found, self.site.missing) {
            (Some(block), _) => Ok(Some(block)),
            (None, Missing::Damaged) => Err(SourceError::Damaged { cid: *cid }),
            (None, _) if self.only_here => Ok(None),
            (None, Missing::Absent) => Ok(None),
            (None, Missing::TooSlow) => Err(SourceError::TooSlow {
                cid: *cid,
                tried: "3 providers found, 2 dialled, none answered".into(),
                is_anywhere: true,
            }),
            (None, Missing::Nowhere) => Err(SourceError::TooSlow {
                cid: *cid,
                tried: "2 searches for providers found 0".into(),
                is_anywhere: false,
            }),
            (None, Missing::Hangs) => std::future::pending().await,
        }
    }

    /// All that there is.
    fn admits(&self, _: &Cid) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Content for Arc<Site> {
    type Source = Blocks;

    fn session(&self, _idle: Duration) -> Blocks {
        Blocks {
            site: Arc::clone(self),
            only_here: false,
        }
    }

    fn local(&self) -> Blocks {
        Blocks {
            site: Arc::clone(self),
            only_here: true,
        }
    }
}

impl Site {
    pub(super) fn new() -> Self {
        Self {
            here: HashMap::new(),
            elsewhere: HashMap::new(),
            missing: Missing::Absent,
            config: Config::default(),
            names: Known::default(),
            asked: Arc::default(),
        }
    }

    /// How many blocks were asked for so far, all handlers together.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn put(&mut self, codec: u64, data: impl Into<Bytes>) -> Cid {
        let prefix = Prefix {
            version: Version::V1,
            codec,
            hash: HashKind::Sha2_256,
        };
        let block = Block::new(prefix, data.into()).unwrap();
        let cid = *block.cid();
        self.here.insert(cid, block);
        cid
    }

    pub(super) fn raw(&mut self, data: impl Into<Bytes>) -> Cid {
        self.put(cid::RAW, data)
    }

    /// A dag-pb node of links (name, child, Tsize) and UnixFS data.
    pub(super) fn node(&mut self, links: &[(&str, Cid, u64)], data: Vec<u8>) -> Cid {
        let links = links
            .iter()
            .map(|(name, cid, tsize)| PbLink {
                cid: *cid,
                name: Some((*name).to_owned()),
                tsize: Some(*tsize),
            })
            .collect();
        self.put(
            cid::DAG_PB,
            encode(&PbNode {
                links,
                data: Some(data.into()),
            }),
        )
    }

    /// A file of several chunks, one raw leaf each.
    pub(super) fn file(&mut self, chunks: &[&[u8]]) -> Cid {
        let sizes: Vec<u64> = chunks.iter().map(|chunk| chunk.len() as u64).collect();
        let leaves: Vec<_> = chunks
            .iter()
            .map(|chunk| ("", self.raw(chunk.to_vec()), chunk.len() as u64))
            .collect();
        let mut data = vec![0x08, 2];
        number(&mut data, 3, sizes.iter().sum());
        for size in sizes {
            number(&mut data, 4, size);
        }
        self.node(&leaves, data)
    }

    /// A file in one dag-pb node, changed at `seconds`.
    pub(super) fn dated_file(&mut self, content: &[u8], seconds: u8) -> Cid {
        let mut data = vec![0x08, 2];
        bytes(&mut data, 2, content);
        number(&mut data, 3, content.len() as u64);
        bytes(&mut data, 8, &[0x08, seconds]);
        self.node(&[], data)
    }

    pub(super) fn folder(&mut self, entries: &[(&str, Cid)]) -> Cid {
        let mut links: Vec<_> = entries.iter().map(|(name, cid)| (*name, *cid, 7)).collect();
        links.sort();
        self.node(&links, vec![0x08, 1])
    }

    pub(super) fn symlink(&mut self, target: &str) -> Cid {
        let mut data = vec![0x08, 4];
        bytes(&mut data, 2, target.as_bytes());
        self.node(&[], data)
    }

    /// Nobody has this block any more.
    pub(super) fn lose(&mut self, cid: &Cid) {
        self.here.remove(cid).unwrap();
    }

    /// Only others have it.
    pub(super) fn move_elsewhere(&mut self, cid: &Cid) {
        let block = self.here.remove(cid).unwrap();
        self.elsewhere.insert(*cid, block);
    }

    pub(super) fn handler(&self) -> Handler<Arc<Self>> {
        self.handler_with(None)
    }

    /// The same with somebody who knows who has what.
    pub(super) fn handler_with(&self, lookups: Option<Arc<dyn Lookups>>) -> Handler<Arc<Self>> {
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        let routing = Routing::new(&self.config, lookups);
        Handler::new(
            Arc::new(self.clone()),
            (routing, Arc::new(self.names.clone())),
            self.config.clone(),
            metrics,
        )
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[]).await
    }

    pub(super) async fn head(&self, path: &str) -> Answer {
        self.ask("HEAD", path, &[]).await
    }

    pub(super) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(&self.handler(), method, path, headers).await
    }
}

pub(super) async fn ask(
    handler: &Handler<Arc<Site>>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Answer {
    send(handler, (method, path), headers, Empty::<Bytes>::new()).await
}

/// The same with a body.
pub(super) async fn put(
    handler: &Handler<Arc<Site>>,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(body));
    send(handler, ("PUT", path), headers, body).await
}

pub(super) async fn send<B>(
    handler: &Handler<Arc<Site>>,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: B,
) -> Answer
where
    B: http_body::Body<Data: Send, Error: std::fmt::Display> + Send,
{
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).unwrap();
    let (parts, body) = handler.answer(request).await.into_parts();
    let body = match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(why) => Err(why.to_string()),
    };
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Result<Bytes, String>,
}

impl Answer {
    pub(super) fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// A header, empty if it is not there.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| std::str::from_utf8(value.as_bytes()).unwrap())
    }

    /// Whether the body broke off.
    pub(super) fn is_broken(&self) -> bool {
        self.body.is_err()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.body.as_ref().unwrap()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap()
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// A protobuf field that is a number.
pub(super) fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// A protobuf field that is bytes.
pub(super) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

impl Site {
    /// A HAMT folder of small files, as the importer makes it.
    pub(super) fn hamt(&mut self, names: &[String]) -> Cid {
        let profile = Profile {
            hamt_threshold: 1,
            ..Profile::v1_2025()
        };
        let mut importer = Importer::new(profile, &mut self.here, |_| {});
        importer.enter("folder", Metadata::default()).unwrap();
        for name in names {
            importer
                .file(name, &mut name.as_bytes(), Metadata::default())
                .unwrap();
        }
        importer.leave().unwrap();
        importer.finish().unwrap().pop().unwrap().cid
    }
}
