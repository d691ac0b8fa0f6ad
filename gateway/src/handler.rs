//! One request, from its head to its answer: a place among the running ones, a time limit, and
//! what every answer carries. Peers are answered less than others: see [`Handler::for_peer`].

use crate::access::{Client, Line};
use crate::body::{Body, Broken};
use crate::config::Config;
use crate::content::Content;
use crate::error::{Failure, Reach};
use crate::format::Format;
use crate::host::{Asking, FORWARDED, Known, Otherwise, Site, Turn};
use crate::metrics::{Kind, Metrics};
use crate::names::{self, Names};
use crate::request::{self, Asked, Request as Question};
use crate::response::{self, KindExtension};
use crate::routing::{self, Routing};
use crate::{encode, headers, trustless};
use cairn_node::name::domain::Domain;
use cairn_node::name::path::{NamePath, Root};
use cairn_node::name::resolve::How;
use http::{HeaderValue, Request, Response, Version, header, request::Parts};
use std::fmt;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Answers requests. Cheap to clone.
#[derive(Debug)]
pub(crate) struct Handler<C> {
    shared: Arc<Shared<C>>,
}

#[derive(Debug)]
struct Shared<C> {
    content: C,
    config: Config,
    /// Places for running requests.
    places: Arc<Semaphore>,
    metrics: Metrics,
    answers: response::Shared,
    routing: Routing,
    names: Arc<dyn Names>,
    hosts: Known,
    /// Places for lookups of names that are sent as hosts.
    host_lookups: Semaphore,
    audience: Audience,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// Whoever reaches the gateway.
    All,
    /// A peer, over a stream.
    Peer,
}

impl<C> Clone for Handler<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<C: Content> Handler<C> {
    pub(crate) fn new(
        content: C,
        (routing, names): (Routing, Arc<dyn Names>),
        config: Config,
        metrics: Metrics,
    ) -> Self {
        let places = usize::try_from(config.requests_max.get()).unwrap_or(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(places));
        let answers = response::Shared::new(&config);
        let hosts = Known::new(&config);
        Self {
            shared: Arc::new(Shared {
                content,
                config,
                places,
                metrics,
                answers,
                routing,
                names,
                hosts,
                host_lookups: Semaphore::new(HOST_LOOKUPS_MAX),
                audience: Audience::All,
            }),
        }
    }

    /// The same for a peer: of `content` and `names` what it can check, by its path alone, and nothing of what is asked
    /// of others. Peers answered by handlers that were made of one share its limits.
    pub(crate) fn for_peer<D: Content>(&self, content: D, names: Arc<dyn Names>) -> Handler<D> {
        let shared = &self.shared;
        Handler {
            shared: Arc::new(Shared {
                content,
                config: shared.config.clone(),
                places: Arc::clone(&shared.places),
                metrics: shared.metrics.clone(),
                answers: shared.answers.for_peers(),
                routing: Routing::Off,
                names,
                hosts: Known::new(&shared.config),
                host_lookups: Semaphore::new(0),
                audience: Audience::Peer,
            }),
        }
    }

    /// Answers one request. Its body, if it has one, is only read where something may be kept.
    pub(crate) async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data: Send, Error: fmt::Display> + Send,
    {
        let (mut parts, body) = request.into_parts();
        let mut body = pin!(body);
        let broken = parts.extensions.remove::<Broken>();
        let methods = self.shared.routing.methods(parts.uri.path());
        let mut forwarded = FORWARDED.iter();
        let is_forwarded = forwarded.any(|name| parts.headers.contains_key(*name));
        let mut response = self.within_limits(parts, body.as_mut(), broken).await;
        let map = response.headers_mut();
        headers::allow_other_origins(map);
        map.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        if is_forwarded {
            // A cache that does not know them would give one host's content to another.
            map.append(header::VARY, headers::FORWARDED);
        }
        if map.contains_key(header::ALLOW) {
            map.insert(header::ALLOW, methods);
        }
        if !body.is_end_stream() {
            // What follows on this connection could be read as a request that nobody sent.
            map.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn within_limits<B>(
        &self,
        parts: Parts,
        body: Pin<&mut B>,
        broken: Option<Broken>,
    ) -> Response<Body>
    where
        B: http_body::Body<Data: Send, Error: fmt::Display> + Send,
    {
        let shared = &self.shared;
        let accept = match shared.audience {
            Audience::All => parts.headers.get(header::ACCEPT).cloned(),
            // No pages for those who are no browsers.
            Audience::Peer => None,
        };
        let mut line = Line::begin(&parts, &shared.hosts);
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            shared.metrics.refused();
            let response = Failure::Busy.response("", accept.as_ref());
            if let Some(line) = &mut line {
                line.refused(&response);
            }
            return response;
        };
        let mut running = shared.metrics.start(place, line);
        let is_head = parts.method == http::Method::HEAD;
        let address = parts.uri.clone();
        let limit = shared.config.head_timeout.duration();
        let outcome = match tokio::time::timeout(limit, self.route(parts, body)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::TooSlow(format!(
                "looking for it took more than {}, the limit of this gateway",
                shared.config.head_timeout
            ))),
        };
        let mut response = outcome.unwrap_or_else(|failure| {
            let path = request::readable_path(address.path());
            match &failure {
                // Somebody must look at the disk; the rest is what clients and peers do all day.
                Failure::Disk(why) => tracing::error!(path = %encode::visible(&path), why, "the gateway cannot read a block"),
                failure => tracing::debug!(path = %encode::visible(&path), ?failure, "a request fails"),
            }
            failure.response(&path, accept.as_ref())
        });
        if is_head && !response.body().is_nothing() {
            if let Some(length) = response.body().length() {
                response
                    .headers_mut()
                    .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            *response.body_mut() = Body::empty();
        }
        let kind = response
            .extensions()
            .get::<KindExtension>()
            .map_or_else(|| self.kind_of(&address), |kind| kind.0);
        running.answered(response.status(), kind);
        response.body_mut().attach(running, broken);
        response
    }

    /// What was asked for where nothing came of it.
    fn kind_of(&self, address: &http::Uri) -> Kind {
        match self.shared.routing.is_at(address.path()) {
            true => Kind::Routing,
            false => Kind::Other,
        }
    }

    /// Whether a connection may become a tunnel: only to this gateway, and not through another one.
    fn connect(&self, parts: &Parts) -> Result<Response<Body>, Failure> {
        let refused = |why: &str| Err(Failure::Tunnel(why.to_owned()));
        let Some(Local(own)) = parts.extensions.get::<Local>() else {
            return refused("there is no tunnel through a tunnel");
        };
        let lengths = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
        if lengths.iter().any(|name| parts.headers.contains_key(name)) {
            return Err(Failure::Parameter(
                "a request for a tunnel has no body".to_owned(),
            ));
        }
        let Some(target) = parts.uri.authority() else {
            return refused("it does not say where to");
        };
        let address = target.host().trim_matches(['[', ']']).parse::<IpAddr>();
        let is_here = match address.map(|address| address.to_canonical()) {
            Ok(address) => {
                let is_own = *own == Some(address);
                address.is_loopback() || is_own
            }
            Err(_) => target.host() == "localhost" || self.shared.hosts.covers(target.as_str()),
        };
        match is_here {
            true => Ok(Response::new(Body::empty())),
            false => refused(&format!(
                "{target} is not this gateway, and nothing is dialled"
            )),
        }
    }

    /// What the host makes of a request, with the DNSLinks looked up that decide it.
    async fn place(&self, parts: &Parts) -> Result<Place, Failure> {
        if is_options(parts) {
            return Ok(Place::Path);
        }
        let hosts = &self.shared.hosts;
        let client = parts.extensions.get::<Client>().copied();
        let asking = Asking::of(parts, hosts.trusts(client))?;
        let (sites, otherwise) = match hosts.turn(&asking)? {
            Turn::Path => return Ok(Place::Path),
            Turn::Moved(location) => return Ok(Place::Moved(location)),
            Turn::Site(site) => return Ok(Place::Site(site)),
            Turn::Bound(sites, otherwise) => (sites, otherwise),
        };
        let how = request::how(&parts.headers);
        let mut unsure = None;
        for site in &sites {
            let Some(domain) = site.domain() else {
                continue;
            };
            let name = NamePath {
                root: Root::Domain(domain.clone()),
                segments: Vec::new(),
            };
            self.shared.names.admits(&name)?;
            match self.is_bound(domain, how).await {
                Ok(true) => return Ok(Place::Site(site.clone())),
                Ok(false) => {}
                Err(why) => unsure = Some(why),
            }
        }
        match (otherwise, unsure) {
            (Otherwise::First, _) => match sites.into_iter().next() {
                Some(site) => Ok(Place::Site(site)),
                None => Err(Failure::Nowhere),
            },
            // Whatever else was served would be in the origin of that domain's site.
            (_, Some(_)) if how == How::Here => Err(Failure::NotCached),
            (_, Some(error)) => Err(Failure::Unsure(error)),
            (Otherwise::Path, None) => Ok(Place::Path),
            (Otherwise::Nowhere, None) => Err(Failure::Nowhere),
        }
    }

    /// Whether a domain has a DNSLink, or why that is not known. Of what is remembered, everybody is told; of those that
    /// would have others asked, as any name may be sent as a host, only so many that the node's own lookups have room.
    async fn is_bound(&self, domain: Domain, how: How) -> Result<bool, String> {
        let shared = &self.shared;
        let known = shared.names.is_bound(domain.clone(), How::Here).await;
        if known.is_ok() || how == How::Here {
            return known.map_err(|error| error.to_string());
        }
        let Ok(_place) = shared.host_lookups.try_acquire() else {
            return Err(format!(
                "too many other names are being looked up to ask about {domain}"
            ));
        };
        let bound = shared.names.is_bound(domain, how).await;
        bound.map_err(|error| error.to_string())
    }

    async fn route<B>(&self, parts: Parts, body: Pin<&mut B>) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data: Send, Error: fmt::Display> + Send,
    {
        let shared = &self.shared;
        if shared.audience == Audience::Peer {
            return self.answer_peer(parts).await;
        }
        if parts.method == http::Method::CONNECT {
            return self.connect(&parts);
        }
        let site = match self.place(&parts).await? {
            Place::Moved(location) => return Ok(response::moved(location)),
            Place::Path if shared.routing.is_at(parts.uri.path()) && !is_options(&parts) => {
                return shared.routing.answer(&shared.config, &parts, body).await;
            }
            Place::Path => None,
            Place::Site(site) => Some(site),
        };
        match request::parse(parts, site)? {
            Asked::Content(request) => {
                if shared.config.trustless_only {
                    trustless::check(&request)?;
                }
                self.content(&request).await
            }
            Asked::Canonical(location) => Ok(response::found(location)),
            Asked::Redirect(location) => Ok(response::moved(location)),
            Asked::Landing => Ok(landing()),
            Asked::Options => Ok(options()),
        }
    }

    /// The same for a peer. Its host counts for nothing, so a whole address in the request line is its path.
    async fn answer_peer(&self, parts: Parts) -> Result<Response<Body>, Failure> {
        if parts.version < Version::HTTP_11 {
            // An answer that breaks off could look whole: not every transport tells the end of a stream from its reset.
            return Err(Failure::Version);
        }
        let path = parts.uri.path();
        if routing::is_below(path) {
            return Err(Failure::NotHere("who has what is not told here".to_owned()));
        }
        if path == PROTOCOLS_PATH && matches!(parts.method, http::Method::GET | http::Method::HEAD)
        {
            return Ok(plain(headers::JSON, PROTOCOLS));
        }
        match request::parse(parts, None)? {
            Asked::Content(mut request) => {
                if request.reach == Reach::Anywhere {
                    request.reach = Reach::Here;
                }
                trustless::check(&request)?;
                self.content(&request).await
            }
            Asked::Canonical(location) => Ok(response::found(location)),
            Asked::Redirect(location) => Ok(response::moved(location)),
            Asked::Landing => Err(Failure::Nowhere),
            Asked::Options => Ok(options()),
        }
    }

    async fn content(&self, request: &Question) -> Result<Response<Body>, Failure> {
        let shared = &self.shared;
        let names = &*shared.names;
        if request.wants(Format::IpnsRecord) {
            return names::record(names, request).await;
        }
        let led = names::lead(names, request).await?;
        let (config, answers) = (&shared.config, &shared.answers);
        response::content((&shared.content, names), config, answers, request, led).await
    }
}

/// The address of this end of a connection that may become a tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Local(pub(crate) Option<IpAddr>);

/// Where a request has come to.
enum Place {
    /// At a path gateway.
    Path,
    /// At a site of its own.
    Site(Site),
    /// Somewhere else than it should.
    Moved(String),
}

fn is_options(parts: &Parts) -> bool {
    parts.method == http::Method::OPTIONS
}

/// Names sent as hosts that are looked up at once, for all clients together.
const HOST_LOOKUPS_MAX: usize = 16;

fn options() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response
        .headers_mut()
        .insert(header::ALLOW, headers::METHODS);
    response
}

fn landing() -> Response<Body> {
    plain(headers::TEXT, LANDING)
}

fn plain(media: HeaderValue, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, media);
    map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
    map.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Where peers are told what is served over this protocol, after libp2p's specification of HTTP.
const PROTOCOLS_PATH: &str = "/.well-known/libp2p/protocols";
/// In Kubo's words.
const PROTOCOLS: &str = "{\"/ipfs/gateway\":{\"path\":\"/\"}}\n";

const LANDING: &str = "\
This is a cairn gateway: it serves content by its CID.

  /ipfs/<cid>               a file, or a folder's page
  /ipfs/<cid>/<path>        what lies below it
  /ipns/<name>/<path>       what a name leads to now
  /ipfs/<cid>?format=raw    one block, to be checked by the client
  /ipfs/<cid>?format=car    all blocks below it, likewise
  /ipfs/<cid>?format=tar    files and folders in one archive
";
