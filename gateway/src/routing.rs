//! Delegated routing, `/routing/v1`: who has what, who is where and what names point at, for whoever asks over HTTP.
//!
//! `request` understands an address; `keep` has the record of a name kept, if the operator lets it; this file finds the answer, within bounds of its own: lookups at once,
//! records and time. An answer's head waits for the first record, so that it can say for how long it may be
//! kept. Nothing found is an answer too (IPIP-513).

mod keep;
mod request;

use crate::body::Body;
use crate::config::Config;
use crate::error::Failure;
use crate::headers::{self, Match};
use crate::metrics::Kind;
use crate::response::KindExtension;
use bytes::Bytes;
use cairn_node::PeerId;
use cairn_node::clock;
use cairn_node::ipns;
use cairn_node::routing::{Directory, Filters, Record, RoutingError};
use cairn_store::block::Prefix;
use cairn_store::cid::{self, HashKind, Version, is_identity};
use cairn_store::{Block, Cid};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use request::{Asked, Form, Question};
use std::fmt;
use std::future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// What the gateway needs to know about others.
pub(crate) trait Lookups: fmt::Debug + Send + Sync + 'static {
    /// Who has a block. An error comes last.
    fn providers(&self, cid: Cid, limit: usize) -> Found;
    /// Where a peer is.
    fn peer(&self, peer: PeerId) -> BoxFuture<'static, Result<Option<Record>, RoutingError>>;
    /// Who is nearest to a key, the nearest first.
    fn nearest(&self, key: Vec<u8>) -> BoxFuture<'static, Result<Vec<Record>, RoutingError>>;
    /// What a name points at.
    fn name(&self, name: PeerId) -> BoxFuture<'static, Result<Option<ipns::Record>, RoutingError>>;
    /// Has a name's record kept that holds; says how many peers took it.
    fn keep(
        &self,
        name: PeerId,
        record: Vec<u8>,
    ) -> BoxFuture<'static, Result<usize, RoutingError>>;
}

type Found = BoxStream<'static, Result<Record, RoutingError>>;

impl Lookups for Directory {
    fn providers(&self, cid: Cid, limit: usize) -> Found {
        Self::providers(self, cid, limit)
    }

    fn peer(&self, peer: PeerId) -> BoxFuture<'static, Result<Option<Record>, RoutingError>> {
        let this = self.clone();
        async move { Self::peer(&this, peer).await }.boxed()
    }

    fn nearest(&self, key: Vec<u8>) -> BoxFuture<'static, Result<Vec<Record>, RoutingError>> {
        let this = self.clone();
        async move { Self::nearest(&this, key).await }.boxed()
    }

    fn name(&self, name: PeerId) -> BoxFuture<'static, Result<Option<ipns::Record>, RoutingError>> {
        let this = self.clone();
        async move { Self::name(&this, name).await }.boxed()
    }

    fn keep(
        &self,
        name: PeerId,
        record: Vec<u8>,
    ) -> BoxFuture<'static, Result<usize, RoutingError>> {
        let this = self.clone();
        async move { Self::keep(&this, name, record).await }.boxed()
    }
}

/// Whether it is answered, and from where.
#[derive(Debug)]
pub(crate) enum Routing {
    /// Nothing is at these addresses.
    Off,
    /// There is no network to look into.
    Offline,
    /// From these.
    On {
        lookups: Arc<dyn Lookups>,
        /// Places for lookups.
        places: Arc<Semaphore>,
        /// Places for records that are to be kept, if any are taken.
        keeping: Option<Arc<Semaphore>>,
    },
}

impl Routing {
    pub(crate) fn new(config: &Config, lookups: Option<Arc<dyn Lookups>>) -> Self {
        match lookups {
            _ if !config.routing => Self::Off,
            None => Self::Offline,
            Some(lookups) => Self::On {
                lookups,
                places: Arc::new(Semaphore::new(LOOKUPS_MAX)),
                keeping: config
                    .routing_put
                    .then(|| Arc::new(Semaphore::new(keep::PUTS_MAX))),
            },
        }
    }

    /// Whether an address is one of these.
    pub(crate) fn is_at(&self, path: &str) -> bool {
        !matches!(self, Self::Off) && is_below(path)
    }

    /// What may be done at an address.
    pub(crate) fn methods(&self, path: &str) -> HeaderValue {
        match self {
            Self::On {
                keeping: Some(_), ..
            } if request::is_of_name(path) => headers::METHODS_AND_PUT,
            _ => headers::METHODS,
        }
    }

    /// Answers what is asked at such an address. The body is read only if it is to be kept.
    pub(crate) async fn answer<B>(
        &self,
        config: &Config,
        parts: &Parts,
        body: Pin<&mut B>,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data: Send, Error: fmt::Display> + Send,
    {
        let question = request::parse(parts)?;
        let Self::On {
            lookups,
            places,
            keeping,
        } = self
        else {
            return Err(Failure::Unsupported(
                "this node runs offline, so it looks nothing up".to_owned(),
            ));
        };
        if parts.method == Method::HEAD {
            return Ok(head(&question));
        }
        if let Question::Keep(name) = question {
            let keeping = keeping.as_ref().ok_or_else(keep::is_off)?;
            return keep::keep(&**lookups, keeping, config, (name, &parts.headers), body).await;
        }
        let place = Arc::clone(places).try_acquire_owned();
        let place = place.map_err(|_| Failure::Busy)?;
        // Before the gateway gives up on the request as a whole, and with it on what was found.
        let patience = config.head_timeout.duration() * 9 / 10;
        let until = Instant::now() + LOOKUP_TIME_MAX.min(patience);
        let lookup = Lookup { place, until };
        let mut response = match question {
            Question::Records {
                asked,
                filters,
                form,
            } => lookup.records(&**lookups, asked, filters, form).await,
            Question::Name(name) => {
                let known = parts.headers.get(header::IF_NONE_MATCH);
                lookup.name(&**lookups, name, known).await
            }
            Question::Keep(_) => Err(Failure::Method),
        }?;
        response
            .extensions_mut()
            .insert(KindExtension(Kind::Routing));
        Ok(response)
    }
}

/// One that has its place.
struct Lookup {
    place: OwnedSemaphorePermit,
    until: Instant,
}

impl Lookup {
    async fn records(
        self,
        lookups: &dyn Lookups,
        asked: Asked,
        filters: Filters,
        form: Form,
    ) -> Result<Response<Body>, Failure> {
        let (list, found) = match asked {
            // It is in its own name, wherever it is used.
            Asked::Providers(cid) if is_identity(&cid) => ("Providers", stream::empty().boxed()),
            Asked::Providers(cid) => ("Providers", lookups.providers(cid, FOUND_MAX)),
            Asked::Peer(peer) => {
                let found = lookups.peer(peer).map(|found| found.map(Vec::from_iter));
                ("Peers", flat(found))
            }
            Asked::Nearest(key) => ("Peers", flat(lookups.nearest(key))),
        };
        let records_max = match form {
            Form::Json => JSON_RECORDS_MAX,
            Form::Lines => LINE_RECORDS_MAX,
        };
        let place = self.place;
        let mut records = found
            .filter_map(move |found| {
                // Given back with the stream.
                let _ = &place;
                let record = match found {
                    Ok(record) => filters.apply(record).map(Ok),
                    Err(RoutingError::Stopping) => Some(Err(Failure::Stopping)),
                    // Nobody to ask, or not all of them in time: what was found is the answer.
                    Err(error) => {
                        tracing::debug!(%error, "a lookup for others ended early");
                        None
                    }
                };
                future::ready(record)
            })
            .take_until(sleep_until(self.until))
            .take(records_max)
            .boxed();
        let first = match records.next().await {
            Some(Err(failure)) => return Err(failure),
            Some(Ok(record)) => Some(record),
            None => None,
        };
        let caching = match first {
            Some(_) => FOUND_CACHING,
            None => EMPTY_CACHING,
        };
        // An error is the last of them: the node is stopping, and what was found is the answer.
        let all =
            stream::iter(first).chain(records.filter_map(|record| future::ready(record.ok())));
        let body = match form {
            Form::Json => Body::whole(json(list, &all.collect::<Vec<_>>().await)),
            Form::Lines => {
                let lines = all.map(|record| Ok(Bytes::from(record.to_json() + "\n")));
                // It ends by itself before that.
                Body::stream(lines.boxed(), None, LOOKUP_TIME_MAX * 2)
            }
        };
        let mut response = Response::new(body);
        let map = response.headers_mut();
        map.insert(header::CONTENT_TYPE, form.media_type());
        map.insert(header::VARY, HeaderValue::from_static("Accept"));
        map.insert(header::CACHE_CONTROL, caching);
        map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
        headers::last_modified(map, Some(SystemTime::now()));
        Ok(response)
    }

    async fn name(
        self,
        lookups: &dyn Lookups,
        name: PeerId,
        known: Option<&HeaderValue>,
    ) -> Result<Response<Body>, Failure> {
        let found = tokio::time::timeout_at(self.until, lookups.name(name)).await;
        let found = match found {
            Ok(Err(RoutingError::Stopping)) => return Err(Failure::Stopping),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a name was not looked up");
                None
            }
            Ok(Ok(found)) => found,
            Err(_) => None,
        };
        drop(self.place);
        let now = clock::wall();
        // One that has expired is as good as none.
        let found = found.filter(|record| record.expires() > now);
        let Some(record) = found else {
            let mut response = Response::new(Body::whole("no record of this name was found\n"));
            let map = response.headers_mut();
            map.insert(header::CONTENT_TYPE, headers::TEXT);
            map.insert(header::CACHE_CONTROL, EMPTY_CACHING);
            map.insert(header::VARY, HeaderValue::from_static("Accept"));
            return Ok(response);
        };
        let mut response = Response::new(Body::whole(record.bytes().to_vec()));
        let map = response.headers_mut();
        map.insert(header::CONTENT_TYPE, request::NAME_RECORD);
        map.insert(header::VARY, HeaderValue::from_static("Accept"));
        map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
        map.insert(header::CACHE_CONTROL, name_caching(&record, now));
        headers::expires(map, record.expires());
        headers::last_modified(map, Some(now));
        let tag = tag(record.bytes());
        if let Some(tag) = &tag {
            map.insert(header::ETAG, tag.clone());
        }
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let (known, tag) = (known.map(text), tag.as_ref().map(text));
        if let (Some(known), Some(tag)) = (known, tag)
            && headers::matches(&known, &tag) != Match::No
        {
            map.remove(header::CONTENT_TYPE);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::empty();
        }
        Ok(response)
    }
}

/// The headers of an answer that is not looked for.
fn head(question: &Question) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let map = response.headers_mut();
    let kind = match question {
        Question::Records { form, .. } => form.media_type(),
        Question::Name(_) | Question::Keep(_) => request::NAME_RECORD,
    };
    map.insert(header::CONTENT_TYPE, kind);
    map.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
        .extensions_mut()
        .insert(KindExtension(Kind::Routing));
    response
}

/// What comes all at once, as a stream.
fn flat(found: impl Future<Output = Result<Vec<Record>, RoutingError>> + Send + 'static) -> Found {
    let all = found.map(|found| match found {
        Ok(records) => stream::iter(records).map(Ok).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    });
    stream::once(all).flatten().boxed()
}

fn json(list: &str, records: &[Record]) -> String {
    let records: Vec<String> = records.iter().map(Record::to_json).collect();
    format!("{{\"{list}\":[{}]}}", records.join(","))
}

/// For as long as its owner says and it holds.
fn name_caching(record: &ipns::Record, now: SystemTime) -> HeaderValue {
    let left = record.expires().duration_since(now).unwrap_or_default();
    let ttl = match record.ttl() {
        Duration::ZERO => NAME_TTL_DEFAULT,
        ttl => ttl,
    };
    let fresh = ttl.min(left);
    let stale = (left - fresh).min(STALE_MAX).as_secs();
    headers::value(format!(
        "public, max-age={}, stale-while-revalidate={stale}, stale-if-error={stale}",
        fresh.as_secs()
    ))
}

/// Another for every other record.
pub(crate) fn tag(bytes: &[u8]) -> Option<HeaderValue> {
    let raw = Prefix {
        version: Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    let named = Block::new(raw, Bytes::copy_from_slice(bytes)).ok()?;
    Some(headers::value(format!("\"{}\"", named.cid())))
}

/// Where all of it is.
const BASE: &str = "/routing/v1";

/// Whether all that is asked at an address is of this kind.
pub(crate) fn is_below(path: &str) -> bool {
    let below = path.strip_prefix(BASE);
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
/// Lookups at once: half of those that the node has, so that strangers leave room for its own.
const LOOKUPS_MAX: usize = 32;
/// How long one may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(30);
/// Providers that are looked for; filters may leave few of them.
const FOUND_MAX: usize = 256;
/// Records of a list, for which clients wait until it is whole.
const JSON_RECORDS_MAX: usize = 20;
/// Records of a stream.
const LINE_RECORDS_MAX: usize = 100;
/// Who has something changes slowly, but somebody may have what nobody had a moment ago.
const FOUND_CACHING: HeaderValue = HeaderValue::from_static(
    "public, max-age=300, stale-while-revalidate=172800, stale-if-error=172800",
);
const EMPTY_CACHING: HeaderValue = HeaderValue::from_static(
    "public, max-age=15, stale-while-revalidate=172800, stale-if-error=172800",
);
/// How long an answer that is no longer fresh may be used: as long as provider records are kept.
const STALE_MAX: Duration = Duration::from_secs(172_800);
/// How long a record of a name is fresh that does not say.
const NAME_TTL_DEFAULT: Duration = Duration::from_secs(60);
