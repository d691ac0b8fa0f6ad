//! `/ipns/…`: from a name to the content that it leads to now, and the records of names as they are.

use crate::body::Body;
use crate::error::{Failure, Reach};
use crate::headers::{self, Disposition, Match};
use crate::metrics::Kind;
use crate::request::{Request, Verb};
use crate::response::{self, KindExtension};
use crate::routing::tag;
use cairn_node::PeerId;
use cairn_node::denylist::Denial;
use cairn_node::ipns::Record;
use cairn_node::name::dns::LookupError;
use cairn_node::name::domain::Domain;
use cairn_node::name::follow::{Depth, FollowError, WalkError};
use cairn_node::name::path::{NamePath, Root};
use cairn_node::name::resolve::{Freshness, How};
use cairn_node::name::resolver::{NameError, Resolver};
use cairn_store::dag::path::ContentPath;
use futures::future::{BoxFuture, FutureExt};
use http::{HeaderValue, Response, header};
use std::fmt;
use std::time::Duration;

/// Who knows where names lead.
pub(crate) trait Names: fmt::Debug + Send + Sync + 'static {
    /// The content that a path leads to, and for how long that holds.
    fn lead(&self, path: NamePath, how: How) -> BoxFuture<'_, Result<Led, FollowError<NameError>>>;

    /// The newest record of a key, and for how long nobody need ask for a newer one.
    fn record(
        &self,
        key: PeerId,
        how: How,
    ) -> BoxFuture<'_, Result<(Record, Freshness), NameError>>;

    /// Whether the operator wants a path, before it is followed.
    fn admits(&self, path: &NamePath) -> Result<(), Denial>;

    /// Whether a domain has a DNSLink; an error if that is not known. Told at once where nobody may be asked, and always
    /// if it is to be answered from what is here.
    fn is_bound(&self, domain: Domain, how: How) -> BoxFuture<'_, Result<bool, LookupError>>;
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Led {
    /// The content.
    pub(crate) content: ContentPath,
    /// For how long.
    pub(crate) holds: Holds,
}

/// For how long an answer may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Content under its CID never changes.
    ForEver,
    /// Until the name is to be looked up again.
    For(Duration),
}

impl Holds {
    /// The same as a header.
    pub(crate) fn cache(self) -> HeaderValue {
        match self {
            Self::ForEver => headers::IMMUTABLE,
            Self::For(time) => headers::for_a_while(time),
        }
    }
}

impl Names for Resolver {
    fn lead(&self, path: NamePath, how: How) -> BoxFuture<'_, Result<Led, FollowError<NameError>>> {
        async move {
            let led = self.follow(path, Depth::default(), how).await?;
            let holds = Holds::For(led.ttl.unwrap_or(TTL_UNKNOWN));
            match led.path.content() {
                Some(content) => Ok(Led { content, holds }),
                // It was followed to its end.
                None => Err(WalkError::Long(led.path.root.to_string()).into()),
            }
        }
        .boxed()
    }

    fn record(
        &self,
        key: PeerId,
        how: How,
    ) -> BoxFuture<'_, Result<(Record, Freshness), NameError>> {
        async move {
            let record = self.names().resolve(&key, how).await?;
            let fresh = self.names().freshness(&key, &record);
            Ok((record, fresh))
        }
        .boxed()
    }

    fn admits(&self, path: &NamePath) -> Result<(), Denial> {
        self.denylist().check_path(path)
    }

    fn is_bound(&self, domain: Domain, how: How) -> BoxFuture<'_, Result<bool, LookupError>> {
        async move {
            let found = match how {
                How::Here => self.dns().known(&domain),
                How::Usual | How::Anew => self.dns().dnslink(&domain).await,
            };
            match found {
                Ok(_) => Ok(true),
                // It may be bound all the same.
                Err(error @ (LookupError::Failed { .. } | LookupError::Busy(_))) => Err(error),
                Err(error @ LookupError::Offline(_))
                    if self.dns().asks_about(&domain) && how == How::Here =>
                {
                    Err(error)
                }
                Err(_) => Ok(false),
            }
        }
        .boxed()
    }
}

/// Where what is asked for is.
pub(crate) async fn lead(names: &dyn Names, request: &Request) -> Result<Led, Failure> {
    names.admits(&request.asked)?;
    if let Some(content) = request.asked.content() {
        return Ok(Led {
            content,
            holds: Holds::ForEver,
        });
    }
    let led = names.lead(request.asked.clone(), how(request)).await;
    led.map_err(|error| match error {
        FollowError::Name(NameError::Denied(denial)) => denial.into(),
        error => failure(request, &error),
    })
}

/// The record of a name.
pub(crate) async fn record(
    names: &dyn Names,
    request: &Request,
) -> Result<Response<Body>, Failure> {
    let wrong = |why: &str| Failure::Parameter(format!("format ipns-record: {why}"));
    let key = match request.asked.root {
        Root::Key(key) => key,
        Root::Domain(_) => return Err(wrong("a domain has a DNSLink and no record")),
        Root::Content(_) => return Err(wrong("it exists only under /ipns")),
    };
    if !request.asked.segments.is_empty() {
        return Err(wrong("a record is that of a name, without a path below it"));
    }
    names.admits(&request.asked)?;
    let found = names.record(key, how(request)).await;
    let (record, fresh) = found.map_err(|error| failure(request, &error))?;
    let etag = tag(record.bytes()).unwrap_or(HeaderValue::from_static("\"\""));
    let cache = headers::for_a_while(fresh.ttl);
    // Caches count from when the record was asked for, as this node does.
    let age = HeaderValue::from(fresh.age.min(fresh.ttl).as_secs());
    let named = headers::if_none_match(request, etag.to_str().unwrap_or_default());
    if named != Match::No {
        let mut response = response::not_modified(Kind::Name, etag, cache);
        response.headers_mut().insert(header::AGE, age);
        response::about(&mut response, request);
        return Ok(response);
    }
    let bytes = record.bytes().to_vec();
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(KindExtension(Kind::Name));
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, RECORD_MEDIA);
    map.insert(header::CACHE_CONTROL, cache);
    map.insert(header::AGE, age);
    map.insert(header::ETAG, etag);
    map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    map.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let name = request
        .query
        .first("filename")
        .filter(|name| !name.is_empty());
    let own = format!("{}.ipns-record", cairn_node::ipns::text(&key));
    let disposition = Disposition::wanted(request, Disposition::Attachment);
    let disposition = disposition.header(name.unwrap_or(&own));
    map.insert(header::CONTENT_DISPOSITION, disposition);
    if request.verb == Verb::Get {
        *response.body_mut() = Body::whole(bytes);
    }
    response::about(&mut response, request);
    Ok(response)
}

fn how(request: &Request) -> How {
    match request.reach {
        Reach::Anywhere => How::Usual,
        Reach::CacheOnly | Reach::Here => How::Here,
    }
}

fn failure(request: &Request, error: &impl fmt::Display) -> Failure {
    match request.reach {
        Reach::CacheOnly => Failure::NotCached,
        Reach::Here => Failure::NotHere("the record of this name is not here".to_owned()),
        Reach::Anywhere => Failure::Name(error.to_string()),
    }
}

const RECORD_MEDIA: HeaderValue = HeaderValue::from_static("application/vnd.ipfs.ipns-record");
/// How long where a name leads is kept by others if nothing says how long it holds: the operator fixed it.
const TTL_UNKNOWN: Duration = Duration::from_secs(60);
