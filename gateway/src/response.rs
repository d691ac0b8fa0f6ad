//! From a request that was understood to its answer. `choose` decides who answers; the files below
//! answer in one form each.

pub(crate) mod ahead;
mod block;
mod car;
mod directory;
mod document;
mod file;
mod ranged;
mod redirects;
mod tar;
mod ways;

use crate::body::Body;
use crate::budget::Metered;
use crate::config::Config;
use crate::content::Content;
use crate::error::{Failure, Reach};
use crate::format::Format;
use crate::headers::{self, Match};
use crate::metrics::Kind;
use crate::names::{Holds, Led, Names};
use crate::request::Request;
use crate::{encode, headers::Disposition};
use ahead::Leave;
use cairn_node::name::path::{NamePath, Root};
use cairn_store::dag::path::{ResolveError, Resolved};
use cairn_store::unixfs::read::{self, Node};
use cairn_store::{BlockSource, Cid, cid};
use http::{HeaderValue, Response, StatusCode, header};
use redirects::Instead;
use std::sync::Arc;
use std::time::Duration;
use ways::Ways;

/// What all answers of a gateway share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) leave: Leave,
    pub(crate) ways: Ways,
}

impl Shared {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            leave: Leave::new(config.read_ahead_max),
            ways: Ways::new(),
        }
    }

    /// The same for peers, who are not all given the same.
    pub(crate) fn for_peers(&self) -> Self {
        Self {
            leave: self.leave.clone(),
            ways: Ways::none(),
        }
    }
}

/// What every answer is made from.
pub(crate) struct Context<'a, S> {
    request: &'a Request,
    config: &'a Config,
    leave: &'a Leave,
    source: S,
    /// Where the path led.
    resolved: Arc<Resolved>,
    /// Who knows what is denied.
    names: &'a dyn Names,
    /// What was followed to get there.
    led: &'a Led,
}

/// Answers a request for content.
pub(crate) async fn content<C: Content>(
    (content, names): (&C, &dyn Names),
    config: &Config,
    shared: &Shared,
    request: &Request,
    led: Led,
) -> Result<Response<Body>, Failure> {
    let source = match request.reach {
        Reach::Anywhere => content.session(config.retrieval_timeout.duration()),
        Reach::CacheOnly | Reach::Here => content.local(),
    };
    let source = Metered::new(source, config);
    let (root, segments) = (&led.content.root, &led.content.segments);
    let other;
    let (request, resolved, status) = match shared.ways.follow(&source, root, segments).await {
        Ok(resolved) => (request, resolved, None),
        Err(error @ ResolveError::NoLink { .. }) => {
            match Box::pin(redirects::instead((&source, names), request, &led)).await? {
                Some(Instead::Content(instead, status)) => {
                    let (instead, resolved) = *instead;
                    other = instead;
                    (&other, Arc::new(resolved), status)
                }
                Some(Instead::Moved(status, location)) => {
                    let cache = led.holds.cache();
                    let mut response = redirects::moved(status, location, cache);
                    about(&mut response, request);
                    return Ok(response);
                }
                None => return Err(Failure::resolve(request.reach, error)),
            }
        }
        Err(error) => return Err(Failure::resolve(request.reach, error)),
    };
    // Also where the answer is made without reading it.
    source.admits(&resolved.cid).map_err(Failure::source)?;
    if request.reach != Reach::Anywhere {
        let here = source.size(&resolved.cid).await.map_err(Failure::source)?;
        here.ok_or_else(|| Failure::absent(request.reach, &resolved.cid))?;
    }
    let context = Context {
        request,
        config,
        leave: &shared.leave,
        source,
        resolved,
        names,
        led: &led,
    };
    let mut response = match status {
        Some(status) => Box::pin(redirects::page(&context, status)).await?,
        None => Box::pin(context.choose()).await?,
    };
    about(&mut response, request);
    let map = response.headers_mut();
    if !map.contains_key(header::LOCATION) {
        map.insert(headers::X_IPFS_ROOTS, context.roots());
    }
    Ok(response)
}

/// What every answer says of what was asked.
pub(crate) fn about(response: &mut Response<Body>, request: &Request) {
    let map = response.headers_mut();
    // A cache must not answer a browser with the CAR that someone else accepted; nor, where the query asks for a CAR, with
    // another kind of it.
    map.insert(header::VARY, HeaderValue::from_static("Accept"));
    if !map.contains_key(header::LOCATION) {
        map.insert(headers::X_IPFS_PATH, encode::header(&request.path));
        if let Some(canonical) = request.canonical() {
            map.insert(header::CONTENT_LOCATION, headers::value(canonical));
        }
    }
}

impl<S: BlockSource + Clone + 'static> Context<'_, S> {
    async fn choose(&self) -> Result<Response<Body>, Failure> {
        let asked = self.request.wish.as_ref().map(|wish| wish.format);
        if let Some(Format::Car) = asked {
            return car::serve(self).await;
        }
        if !self.resolved.remainder.is_empty() {
            let names = self.resolved.remainder.join("/");
            return Err(Failure::Inside(format!(
                "{names:?} is inside the document {}, which is only served as a whole",
                self.resolved.cid
            )));
        }
        let native = Format::of_codec(self.codec());
        match (asked, native) {
            (Some(Format::Raw), _) => block::serve_raw(self).await,
            (Some(Format::Tar), _) => tar::serve(self).await,
            // Answered before the path is followed.
            (Some(Format::IpnsRecord), _) => Err(self.mismatch(Format::IpnsRecord)),
            (None, Some(_)) if document::is_wanted(self) => document::serve(self).await,
            (None, Some(native)) => block::serve_document(self, native).await,
            (Some(asked), Some(native)) if is_same_data(asked, native) => {
                block::serve_document(self, asked).await
            }
            (Some(Format::Json | Format::Cbor) | None, None) => self.unixfs(asked).await,
            (Some(asked), _) => Err(self.mismatch(asked)),
        }
    }

    /// Files, folders and links, as a browser wants them.
    async fn unixfs(&self, asked: Option<Format>) -> Result<Response<Body>, Failure> {
        if !matches!(self.codec(), cid::DAG_PB | cid::RAW) {
            let codec = self.codec();
            let name = cid::codec_name(codec).map_or_else(|| format!("{codec:#x}"), str::to_owned);
            return Err(Failure::Format(format!(
                "{} has the codec {name}, which is not shown here",
                self.resolved.cid
            )));
        }
        let etag = self.etag("");
        if headers::if_none_match(self.request, &etag) == Match::Named {
            return Ok(not_modified(Kind::File, headers::value(etag), self.cache()));
        }
        if let Some(answer) = directory::known(self) {
            return Ok(answer);
        }
        let node = self.open(&self.resolved.cid).await?;
        match node {
            Node::File(file) => file::serve(self, &file, self.name()).await,
            Node::Symlink(link) => Ok(file::serve_symlink(self, link)),
            Node::Directory(_) if asked.is_some() => Err(Failure::Format(
                "a folder cannot be had in this format".to_owned(),
            )),
            Node::Directory(directory) => directory::serve(self, &directory).await,
        }
    }

    /// Asks whether what lies below the path asked for, under this name, may be served in its place.
    fn admits_below(&self, name: &str) -> Result<(), Failure> {
        let (asked, led) = (&self.request.asked, &self.led.content);
        for (root, segments) in [
            (asked.root.clone(), &asked.segments),
            (Root::Content(led.root), &led.segments),
        ] {
            let segments = [&segments[..], &[name.to_owned()]].concat();
            self.names.admits(&NamePath { root, segments })?;
        }
        Ok(())
    }

    async fn open(&self, cid: &Cid) -> Result<Node, Failure> {
        read::open(&self.source, cid)
            .await
            .map_err(|error| Failure::read(self.request.reach, error))
    }

    fn mismatch(&self, asked: Format) -> Failure {
        let codec = cid::codec_name(self.codec()).unwrap_or("another codec");
        Failure::Format(format!(
            "{} is {codec} and is not converted to {}",
            self.resolved.cid,
            asked.name()
        ))
    }

    /// How long the content may be kept.
    fn cache(&self) -> HeaderValue {
        self.led.holds.cache()
    }

    /// How long a page about it may be.
    fn page_cache(&self) -> HeaderValue {
        match self.led.holds {
            Holds::ForEver => headers::GENERATED,
            Holds::For(time) => headers::for_a_while(time),
        }
    }

    fn codec(&self) -> u64 {
        self.resolved.cid.codec()
    }

    /// The entity tag of the content, in the form that `suffix` names.
    fn etag(&self, suffix: &str) -> String {
        format!("\"{}{suffix}\"", self.resolved.cid)
    }

    /// The name that a browser should show: asked for, or the last of the path.
    fn name(&self) -> Option<&str> {
        let given = self
            .request
            .query
            .first("filename")
            .filter(|name| !name.is_empty());
        given.or_else(|| self.request.asked.segments.last().map(String::as_str))
    }

    /// `Content-Disposition` of an answer whose own name is the CID and `extension`.
    fn disposition(&self, otherwise: Disposition, extension: &str) -> HeaderValue {
        let disposition = Disposition::wanted(self.request, otherwise);
        match self
            .request
            .query
            .first("filename")
            .filter(|name| !name.is_empty())
        {
            Some(name) => disposition.header(name),
            None => disposition.header(&format!("{}.{extension}", self.resolved.cid)),
        }
    }

    fn roots(&self) -> HeaderValue {
        let mut out = String::with_capacity(64 * self.resolved.roots.len());
        for root in &self.resolved.roots {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(&root.to_string());
        }
        headers::value(out)
    }

    fn idle(&self) -> Duration {
        self.config.retrieval_timeout.duration()
    }

    fn reach(&self) -> Reach {
        self.request.reach
    }
}

/// Plain and linked JSON are the same bytes to whoever does not follow links; CBOR likewise.
fn is_same_data(asked: Format, native: Format) -> bool {
    asked == native
        || matches!(
            (asked, native),
            (Format::Json, Format::DagJson) | (Format::Cbor, Format::DagCbor)
        )
}

/// An answer with what every content has.
fn answer(kind: Kind, etag: &str, media: HeaderValue, cache: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.extensions_mut().insert(kind_extension(kind));
    let map = response.headers_mut();
    map.reserve(HEADERS);
    map.insert(header::CONTENT_TYPE, media);
    map.insert(header::CACHE_CONTROL, cache);
    map.insert(header::ETAG, headers::value(etag.to_owned()));
    response
}

/// The client has it already.
pub(crate) fn not_modified(kind: Kind, etag: HeaderValue, cache: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.extensions_mut().insert(kind_extension(kind));
    let map = response.headers_mut();
    map.insert(header::CACHE_CONTROL, cache);
    map.insert(header::ETAG, etag);
    response
}

/// Another address, for ever.
pub(crate) fn moved(location: String) -> Response<Body> {
    elsewhere(StatusCode::MOVED_PERMANENTLY, location)
}

/// Another address, for now.
pub(crate) fn found(location: String) -> Response<Body> {
    elsewhere(StatusCode::FOUND, location)
}

fn elsewhere(status: StatusCode, location: String) -> Response<Body> {
    let mut response = Response::new(Body::whole(format!("Moved to {location}\n")));
    *response.status_mut() = status;
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, headers::TEXT);
    map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    map.insert(header::LOCATION, headers::value(location));
    response
}

/// Tells metrics what an answer is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KindExtension(pub(crate) Kind);

fn kind_extension(kind: Kind) -> KindExtension {
    KindExtension(kind)
}

/// About as many headers as an answer has.
const HEADERS: usize = 18;
