//! Everything that can go wrong with a request, and the one table from there to a status.
//!
//! Errors of the other crates are turned into a [`Failure`] where they arise, with the path that
//! was being served; this file then says it to the client: what was looked for, what happened,
//! and what to try.

use crate::body::Body;
use crate::budget::Limit;
use crate::page::{HEAD_END, HEAD_STYLE, HEAD_TITLE, STYLE};
use crate::{encode, headers, routing};
use cairn_node::name::path::PathError;
use cairn_store::SourceError;
use cairn_store::dag::path::ResolveError;
use cairn_store::source::{Denial, Grounds};
use cairn_store::unixfs::read::ReadError;
use http::{HeaderValue, Response, StatusCode, header};

/// Why a request is not answered with content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The path is no content path.
    Path(String),
    /// A parameter or header has a value that cannot be.
    Parameter(String),
    /// This gateway gives only what can be checked, and that is not it.
    Unchecked(String),
    /// Nothing is asked of a router under this path.
    Route(String),
    /// What a router is asked about does not exist as it is written.
    Key(String),
    /// The media types that the client takes are not those that there are; what to ask with.
    Accept(&'static str),
    /// What is to be kept comes with no media type, or another than it should.
    MediaType,
    /// What is to be kept is more than may be.
    TooLarge {
        /// How much may be kept.
        bytes_max: usize,
    },
    /// What is to be kept did not come to its end in time.
    SlowUpload,
    /// A newer one is kept.
    Older(String),
    /// Nobody keeps what is to be kept.
    NotKept(String),
    /// It could be asked of a router, but not of this one.
    Unsupported(String),
    /// Nothing is served under this path at all.
    Nowhere,
    /// A tunnel that is not opened.
    Tunnel(String),
    /// The method is not one of ours.
    Method,
    /// Not the version of HTTP that is spoken over streams of peers.
    Version,
    /// The root is there, but a name below it is not.
    NoLink(String),
    /// The operator does not want it here.
    Denied(Denial),
    /// A block is not here, and nobody else can be asked.
    NotFound(String),
    /// `only-if-cached`, and it is not.
    NotCached,
    /// A peer asks for it, for whom nothing is looked for elsewhere.
    NotHere(String),
    /// The content cannot be had in the format asked for.
    Format(String),
    /// The Range lies outside the content.
    Unsatisfiable {
        /// Bytes of the content.
        size: u64,
    },
    /// The content is not what its CID or its place says, or does not make sense.
    Broken(String),
    /// The content asks for more work than any request may cause.
    TooMuch(String),
    /// It asks for more than the operator lets one request cost.
    Over(Limit),
    /// The path leads inside a document.
    Inside(String),
    /// A site's own rules for paths that do not exist cannot be followed.
    Redirects(String),
    /// Whether the host is a domain with a site of its own is not known.
    Unsure(String),
    /// Where a name leads is not known.
    Name(String),
    /// Too many requests are running.
    Busy,
    /// The disk failed.
    Disk(String),
    /// The block's bytes here are damaged, and nobody else can be asked.
    Damaged(String),
    /// Nobody was found who has it.
    Nobody(String),
    /// Somebody was found who may have it, and it did not come in time.
    TooSlow(String),
    /// The program is stopping.
    Stopping,
}

/// Where was looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Wherever this node can look.
    Anywhere,
    /// Only in its own store, by the client's wish.
    CacheOnly,
    /// Only in its own store, because a peer asks.
    Here,
}

impl Failure {
    /// The status a failure is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Path(_) | Self::Parameter(_) | Self::Unchecked(_) | Self::Route(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Nowhere | Self::NoLink(_) | Self::NotFound(_) | Self::NotHere(_) => {
                StatusCode::NOT_FOUND
            }
            Self::Denied(denial) => match denial.grounds {
                Grounds::Policy => StatusCode::GONE,
                Grounds::Legal => StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS,
            },
            Self::Over(_) => StatusCode::GONE,
            Self::Tunnel(_) => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NotCached => StatusCode::PRECONDITION_FAILED,
            Self::Format(_) | Self::Accept(_) => StatusCode::NOT_ACCEPTABLE,
            Self::Unsatisfiable { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Broken(_) | Self::TooMuch(_) | Self::Key(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Inside(_) | Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowUpload => StatusCode::REQUEST_TIMEOUT,
            Self::Older(_) => StatusCode::CONFLICT,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Nobody(_) => StatusCode::BAD_GATEWAY,
            Self::Redirects(_) | Self::Name(_) | Self::Disk(_) | Self::Damaged(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::TooSlow(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::NotKept(_) | Self::Unsure(_) | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What happened, and what to try; `path` is the path asked for.
    fn story(&self, path: &str) -> (String, &'static str) {
        let failed = |why: &str| format!("failed to resolve {path}: {why}");
        match self {
            Self::Path(why) => (
                why.clone(),
                "A content path is /ipfs/<cid>, then names of entries.",
            ),
            Self::Parameter(why) => (why.clone(), ""),
            Self::Unchecked(why) => (
                why.clone(),
                "Add ?format=raw for the block, ?format=car for the blocks of a path, or ?format=ipns-record for the \
                 record of a name.",
            ),
            Self::Route(why) => (
                why.clone(),
                "Ask for /routing/v1/providers/<cid>, /routing/v1/peers/<peer ID>, \
                 /routing/v1/dht/closest/peers/<CID or peer ID> or /routing/v1/ipns/<name>.",
            ),
            Self::Key(why) => (why.clone(), ""),
            Self::Accept(ask) => (
                "the request takes none of the media types that this is told in".to_owned(),
                *ask,
            ),
            Self::MediaType => (
                "what is to be kept here is a record of a name, and the request does not say that it is one".to_owned(),
                "Send it with `Content-Type: application/vnd.ipfs.ipns-record`.",
            ),
            Self::TooLarge { bytes_max } => (
                format!("what is to be kept is larger than {bytes_max} bytes, the limit for a record"),
                "",
            ),
            Self::SlowUpload => (
                "the record did not come to its end in time".to_owned(),
                "",
            ),
            Self::Older(why) => (why.clone(), "Get the newest record, and number the next one above it."),
            Self::NotKept(why) => (format!("the record was not kept: {why}"), "Try again in a while."),
            Self::Unsupported(why) => (why.clone(), ""),
            // Were it on, it would have answered.
            Self::Nowhere if routing::is_below(path) => (
                format!(
                    "nothing is served at {path}: delegated routing is switched off at this gateway"
                ),
                "`gateway.routing` in its configuration switches it on.",
            ),
            Self::Nowhere => (
                format!("nothing is served at {path}"),
                "Content is served at /ipfs/<cid> and /ipfs/<cid>/<path>.",
            ),
            Self::Tunnel(why) => (
                format!("no tunnel is opened: {why}"),
                "This gateway is a proxy for itself alone: for its own address, the hosts in \
                 `gateway.hosts` and those below them.",
            ),
            Self::Method => (
                "this gateway only reads".to_owned(),
                "Use GET, HEAD or OPTIONS. Content is added with `cairn add`.",
            ),
            Self::NoLink(why) => (
                failed(why),
                "The folder above it exists: cut the last name off the address to see what is there.",
            ),
            Self::Denied(denial) => (
                encode::visible(&denial.to_string()),
                "The operator of this gateway keeps it back and can tell why. It may be had elsewhere.",
            ),
            Self::NotFound(why) => (
                failed(why),
                "It is not in this node's store, and the node knows nobody else to ask. Check the \
                 CID, add the content to this node (`cairn add`, `cairn dag import`), or run the \
                 node online.",
            ),
            Self::NotCached => (
                failed("it is not in this node's store, and the request says only-if-cached"),
                "Ask without `Cache-Control: only-if-cached` to have it looked for elsewhere.",
            ),
            Self::NotHere(why) => (
                why.clone(),
                "Peers are given what this node has already, and nothing is looked for on their behalf: ask others.",
            ),
            Self::Version => (
                "over libp2p this gateway speaks HTTP/1.1 alone".to_owned(),
                "",
            ),
            Self::Format(why) => (
                why.clone(),
                "The bytes as they are stored: add ?format=raw.",
            ),
            Self::Unsatisfiable { size } => (
                format!("the range asked for lies outside the content, which has {size} bytes"),
                "",
            ),
            Self::Broken(why) => (
                failed(why),
                "The blocks themselves can be had with ?format=raw.",
            ),
            Self::TooMuch(why) => (
                failed(why),
                "Ask for a part of it, or fetch it with `cairn get`, which has wider limits.",
            ),
            Self::Over(limit) => (
                failed(&limit.to_string()),
                "Ask for a part of it (a range, a path further down), fetch it with `cairn get`, which has wider limits, or \
                 from another gateway. The operator of this one can raise the limit.",
            ),
            Self::Inside(why) => (
                failed(why),
                "Ask for the document itself, or for its bytes with ?format=raw.",
            ),
            Self::Redirects(why) => (
                failed(why),
                "This is a fault of the site; whoever publishes it can put its file _redirects right.",
            ),
            Self::Unsure(why) => (
                format!("whether this host has a site of its own cannot be found out now: {why}"),
                "Try again in a while. An operator whose gateway is called by this name lists it in `gateway.hosts`, or \
                 sets `gateway.dnslink` to false.",
            ),
            Self::Name(why) => (
                failed(why),
                "Ask again later, or ask for /ipfs/<cid> if you know where the name leads.",
            ),
            Self::Busy => (
                "too many requests are running".to_owned(),
                "Try again in a while.",
            ),
            Self::Disk(why) => (
                failed(why),
                "This is a fault of the node; its operator can run `cairn repo verify`.",
            ),
            Self::Damaged(why) => (
                failed(why),
                "This is a fault of the node; its operator can add the content again, or run \
                 `cairn repo verify --heal` while the node is online.",
            ),
            Self::Nobody(why) => (
                failed(why),
                "Nobody who was asked has it, and nobody tells of having it. Check the CID; whoever has the content can \
                 let its node run, provide it (`cairn routing provide`), or connect to this one.",
            ),
            Self::TooSlow(why) => (
                failed(why),
                "Whoever has it may be offline or out of reach. Try again in a while.",
            ),
            Self::Stopping => ("the node is stopping".to_owned(), "Try again in a while."),
        }
    }

    /// How long to wait before trying again, where that makes sense.
    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::Busy | Self::NotKept(_) | Self::Unsure(_) | Self::Stopping => {
                Some(HeaderValue::from_static("10"))
            }
            Self::Nobody(_) | Self::TooSlow(_) => Some(HeaderValue::from_static("60")),
            Self::Path(_)
            | Self::Denied(_)
            | Self::Parameter(_)
            | Self::Unchecked(_)
            | Self::Route(_)
            | Self::Key(_)
            | Self::Accept(_)
            | Self::MediaType
            | Self::TooLarge { .. }
            | Self::SlowUpload
            | Self::Older(_)
            | Self::Unsupported(_)
            | Self::Nowhere
            | Self::Tunnel(_)
            | Self::Method
            | Self::Version
            | Self::NoLink(_)
            | Self::NotFound(_)
            | Self::NotCached
            | Self::NotHere(_)
            | Self::Format(_)
            | Self::Unsatisfiable { .. }
            | Self::Broken(_)
            | Self::TooMuch(_)
            | Self::Over(_)
            | Self::Inside(_)
            | Self::Redirects(_)
            | Self::Name(_)
            | Self::Disk(_)
            | Self::Damaged(_) => None,
        }
    }

    /// The whole answer: text, or a page for those who ask for HTML.
    pub(crate) fn response(&self, path: &str, accept: Option<&HeaderValue>) -> Response<Body> {
        let status = self.status();
        let (what, try_this) = self.story(&encode::visible(&shortened(path)));
        let what = shortened(&what);
        let wants_html = accept
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
        let (kind, text) = if wants_html {
            (headers::HTML, page(status, &what, try_this))
        } else if try_this.is_empty() {
            (headers::TEXT, format!("{what}\n"))
        } else {
            (headers::TEXT, format!("{what}\n{try_this}\n"))
        };
        let mut response = Response::new(Body::whole(text));
        *response.status_mut() = status;
        let map = response.headers_mut();
        map.insert(header::CONTENT_TYPE, kind);
        map.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        map.insert(header::X_CONTENT_TYPE_OPTIONS, headers::NOSNIFF);
        if wants_html {
            map.insert(header::CONTENT_SECURITY_POLICY, headers::OWN_PAGE_POLICY);
        }
        if let Some(seconds) = self.retry_after() {
            map.insert(header::RETRY_AFTER, seconds);
        }
        if *self == Self::Method {
            map.insert(header::ALLOW, headers::METHODS);
        }
        if let Self::Unsatisfiable { size } = self
            && let Ok(value) = HeaderValue::try_from(format!("bytes */{size}"))
        {
            map.insert(header::CONTENT_RANGE, value);
        }
        response
    }

    /// A block that this source is sure not to have.
    pub(crate) fn absent(reach: Reach, cid: &cairn_store::Cid) -> Self {
        match reach {
            Reach::Anywhere => Self::NotFound(format!("block {cid} was not found")),
            Reach::CacheOnly => Self::NotCached,
            Reach::Here => Self::NotHere(format!("block {cid} is not here")),
        }
    }

    /// A path that led nowhere.
    pub(crate) fn resolve(reach: Reach, error: ResolveError) -> Self {
        match error {
            ResolveError::NoLink { .. } => Self::NoLink(error.to_string()),
            ResolveError::NotFound(cid) => Self::absent(reach, &cid),
            ResolveError::Source(error) => Self::source(error),
            ResolveError::TooLong => Self::Path(error.to_string()),
            // Malformed, and whatever else a foreign DAG may be one day.
            other => Self::Broken(other.to_string()),
        }
    }

    /// A node that could not be read.
    pub(crate) fn read(reach: Reach, error: ReadError) -> Self {
        match error {
            ReadError::NotFound(cid) => Self::absent(reach, &cid),
            ReadError::Source(error) => Self::source(error),
            ReadError::NotUnixfs { .. } => Self::Format(error.to_string()),
            ReadError::OverBudget {
                bound: Some(bound), ..
            } => Self::Over(Limit::Request(bound)),
            ReadError::OverBudget { .. } => Self::TooMuch(error.to_string()),
            // Malformed, and whatever else a foreign DAG may be one day.
            other => Self::Broken(other.to_string()),
        }
    }

    /// A block that could not be had.
    pub(crate) fn source(error: SourceError) -> Self {
        match error {
            SourceError::TooSlow { is_anywhere, .. } => match is_anywhere {
                true => Self::TooSlow(error.to_string()),
                false => Self::Nobody(error.to_string()),
            },
            SourceError::Cid(_) => Self::Path(error.to_string()),
            SourceError::Stopping { .. } => Self::Stopping,
            SourceError::Damaged { .. } => Self::Damaged(error.to_string()),
            // Where files of the operator's lie is no visitor's business.
            SourceError::Elsewhere { cid, .. } => Self::Damaged(format!(
                "block {cid} lies in a file of the operator's, and is not there any more"
            )),
            SourceError::Denied(denial) => Self::Denied(denial),
            SourceError::OverBudget { bound, .. } => Self::Over(Limit::Request(bound)),
            SourceError::TooLarge { .. } => Self::Broken(error.to_string()),
            // The disk, and whatever else may fail on our side.
            other => Self::Disk(other.to_string()),
        }
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<PathError> for Failure {
    fn from(error: PathError) -> Self {
        Self::Path(error.to_string())
    }
}

/// Foreign text is repeated, but not at any length.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}\u{2026}", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn page(status: StatusCode, what: &str, try_this: &str) -> String {
    let title = format!(
        "{} {}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error")
    );
    format!(
        "{HEAD_TITLE}{title}{HEAD_STYLE}{STYLE}{HEAD_END}<h1>{title}</h1>\n<p class=\"name\"><code>{}</code></p>\n\
         <p class=\"about\">{}</p>\n</body>\n</html>\n",
        encode::html(what),
        encode::html(try_this),
    )
}

/// How much of a path, and of all that an error says.
const SHOWN_CHARS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_page_repeats_nothing_unescaped() {
        let accept = HeaderValue::from_static("text/html,*/*");
        let failure = Failure::NoLink("no link named \"<script>\"".to_owned());
        let response = failure.response("/ipfs/x/<script>\u{202e}", Some(&accept));
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html");
        let Some(page) = response.body().as_whole() else {
            panic!("an error is sent whole")
        };
        let page = std::str::from_utf8(page).unwrap();
        assert!(
            !page.contains("<script>") && !page.contains('\u{202e}'),
            "{page}"
        );
    }

    #[test]
    fn a_failure_that_may_pass_says_when_to_come_back() {
        for failure in [
            Failure::Busy,
            Failure::Stopping,
            Failure::TooSlow(String::new()),
        ] {
            let response = failure.response("/", None);
            assert!(
                response.headers().contains_key(header::RETRY_AFTER),
                "{failure:?}"
            );
        }
    }
}
