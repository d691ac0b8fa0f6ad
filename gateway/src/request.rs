//! From an HTTP head to a [`Request`]: the only parser of what clients send.
//!
//! The order of the checks is that of the gateways in the field; several of their rules depend on
//! it.

use crate::encode;
use crate::error::{Failure, Reach};
use crate::format::{self, Format, From, Wish};
use crate::host::{Origin, Site};
use cairn_node::name::path::{NamePath, Root};
use cairn_node::name::resolve::How;
use cairn_node::{PeerId, ipns};
use cairn_store::dag::path::ContentPath;
use http::{HeaderMap, Method, header, request::Parts};
use percent_encoding::percent_decode_str;

/// What a client wants.
#[derive(Debug)]
pub(crate) enum Asked {
    /// The page at `/`.
    Landing,
    /// What may be asked.
    Options,
    /// Another address, permanently.
    Redirect(String),
    /// The same name as it is usually written.
    Canonical(String),
    /// Content.
    Content(Box<Request>),
}

/// A request for content.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// With or without a body.
    pub(crate) verb: Verb,
    /// The path of the content, percent-decoded once.
    pub(crate) path: String,
    /// How many of its first bytes the host stands for: the root, on a host of its own.
    pub(crate) implied: usize,
    /// What kind of host it is served at.
    pub(crate) origin: Origin,
    /// The same, understood.
    pub(crate) asked: NamePath,
    /// The query.
    pub(crate) query: Query,
    /// The query as sent.
    pub(crate) raw_query: Option<String>,
    /// The format asked for.
    pub(crate) wish: Option<Wish>,
    /// Where to look.
    pub(crate) reach: Reach,
    /// All headers.
    pub(crate) headers: HeaderMap,
}

/// With or without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// The content.
    Get,
    /// Its headers.
    Head,
}

/// A query, form-decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Never fails: what is no pair is a name without a value.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let pairs = text
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .take(QUERY_PAIRS_MAX)
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decode(name), decode(value)))
            .collect();
        Self { pairs }
    }

    /// The names in a query as it was sent.
    pub(crate) fn names(text: &str) -> impl Iterator<Item = String> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| {
            let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
            percent_decode_str(&name).decode_utf8_lossy().into_owned()
        })
    }

    /// The first value of this name.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Request {
    /// Whether this format is asked for.
    pub(crate) fn wants(&self, format: Format) -> bool {
        self.wish.as_ref().is_some_and(|wish| wish.format == format)
    }

    /// A header as text.
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether the path ends as a folder's does.
    pub(crate) fn has_trailing_slash(&self) -> bool {
        self.path.ends_with('/')
    }

    /// The address of the same content with a slash at its end, from the path as it was asked.
    pub(crate) fn with_trailing_slash(&self) -> String {
        location(&format!("{}/", self.address()), self.raw_query.as_deref())
    }

    /// The path as it was asked for at this host.
    pub(crate) fn address(&self) -> &str {
        self.path.get(self.implied..).unwrap_or_default()
    }

    /// The address that gives the same answer without an `Accept` header, if this was needed.
    pub(crate) fn canonical(&self) -> Option<String> {
        let wish = self
            .wish
            .as_ref()
            .filter(|wish| wish.from == From::Accept)?;
        let mut query = self.raw_query.clone().filter(|query| !query.is_empty());
        let mut add = |name: &str, value: &str| {
            let query = query.get_or_insert_default();
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            query.push_str(value);
        };
        add("format", wish.format.name());
        if wish.car != format::CarWish::default() && self.query.first("car-dups").is_none() {
            add("car-dups", "y");
        }
        Some(location(self.address(), query.as_deref()))
    }
}

/// Reads the head of a request; at a `site` all paths lie below its root.
pub(crate) fn parse(parts: Parts, site: Option<Site>) -> Result<Asked, Failure> {
    let verb = match parts.method {
        Method::GET => Verb::Get,
        Method::HEAD => Verb::Head,
        Method::OPTIONS => return Ok(Asked::Options),
        _ => return Err(Failure::Method),
    };
    let path = decode_path(parts.uri.path())?;
    let query = Query::parse(parts.uri.query());
    let (path, implied, origin) = match site {
        Some(site) => (format!("{}{path}", site.root), site.root.len(), site.origin),
        None => match elsewhere(&path, &parts, &query)? {
            Some(asked) => return Ok(asked),
            None => (path, 0, Origin::Path),
        },
    };
    let asked: NamePath = path.parse()?;
    if origin == Origin::Path
        && let Root::Key(key) = asked.root
        && let Some(canonical) = canonical(&key, &path)
    {
        return Ok(Asked::Canonical(location(&canonical, parts.uri.query())));
    }
    let wish = format::choose(&query, &parts.headers)?;
    let reach = if only_if_cached(&parts.headers) {
        Reach::CacheOnly
    } else {
        Reach::Anywhere
    };
    Ok(Asked::Content(Box::new(Request {
        verb,
        asked,
        query,
        raw_query: parts.uri.query().map(str::to_owned),
        wish,
        reach,
        headers: parts.headers,
        path,
        implied,
        origin,
    })))
}

/// What a path gateway answers without looking at content.
fn elsewhere(path: &str, parts: &Parts, query: &Query) -> Result<Option<Asked>, Failure> {
    if path == "/" {
        return Ok(Some(Asked::Landing));
    }
    if let Some(uri) = query.first("uri")
        && matches!(path.trim_end_matches('/'), "/ipfs" | "/ipns")
    {
        return Ok(Some(Asked::Redirect(of_uri(uri)?)));
    }
    let Some((_, rest)) = namespace(path) else {
        return Err(Failure::Nowhere);
    };
    refuse_service_worker(&parts.headers, rest)?;
    let fixed = superfluous_namespace(path, rest);
    Ok(fixed.map(|fixed| Asked::Redirect(location(&fixed, parts.uri.query()))))
}

/// The path of an address, as far as it can be read, for error texts.
pub(crate) fn readable_path(raw: &str) -> String {
    percent_decode_str(raw).decode_utf8_lossy().into_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ipfs,
    Ipns,
}

fn namespace(path: &str) -> Option<(Namespace, &str)> {
    let ipfs = path
        .strip_prefix("/ipfs/")
        .map(|rest| (Namespace::Ipfs, rest));
    ipfs.or_else(|| {
        path.strip_prefix("/ipns/")
            .map(|rest| (Namespace::Ipns, rest))
    })
}

/// The path of an `ipfs://` or `ipns://` address, which a browser hands over whole.
fn of_uri(uri: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let shown: String = uri.chars().take(120).collect();
        Failure::Parameter(format!("uri {shown:?}: {why}"))
    };
    let (scheme, rest) = uri
        .split_once("://")
        .ok_or_else(|| wrong("it is no address"))?;
    let space = match scheme.to_ascii_lowercase().as_str() {
        "ipfs" => "/ipfs/",
        "ipns" => "/ipns/",
        _ => return Err(wrong("only ipfs:// and ipns:// are opened here")),
    };
    let rest = rest.trim_start_matches('/');
    if rest.is_empty() {
        return Err(wrong("it names nothing"));
    }
    // What follows `#` never comes to a server.
    let rest = rest.split('#').next().unwrap_or_default();
    Ok(format!("{space}{}", encode::uri(rest)))
}

/// Decodes once. `+` stays; a `%` without two hex digits, bytes that are no UTF-8, and NUL are
/// refused.
pub(crate) fn decode_path(raw: &str) -> Result<String, Failure> {
    let wrong = |why: &str| {
        let shown: String = raw.chars().take(120).collect();
        Failure::Path(format!("invalid path {shown:?}: {why}"))
    };
    if raw.len() > PATH_BYTES_MAX {
        return Err(wrong("it is longer than any path may be"));
    }
    let mut rest = raw;
    while let Some((_, after)) = rest.split_once('%') {
        let digits = after.bytes().take(2).filter(u8::is_ascii_hexdigit).count();
        if digits < 2 {
            return Err(wrong("a % is not followed by two hexadecimal digits"));
        }
        rest = after;
    }
    let path = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| wrong("it is not UTF-8"))?;
    if path.contains('\0') {
        return Err(wrong("it contains NUL"));
    }
    Ok(path.into_owned())
}

/// A worker registered on a root's page would see the requests for every other root.
fn refuse_service_worker(headers: &HeaderMap, rest: &str) -> Result<(), Failure> {
    let registers = headers
        .get("service-worker")
        .is_some_and(|value| value == "script");
    // As the path is read: empty names are none.
    if registers && !rest.trim_start_matches('/').contains('/') {
        return Err(Failure::Parameter(
            "a service worker cannot be registered for a whole /ipfs/<cid>: it would control \
             content of others"
                .to_owned(),
        ));
    }
    Ok(())
}

/// `/ipfs/ipfs/<cid>` and `/ipfs/ipns/<name>` are what gluing addresses together makes.
fn superfluous_namespace(path: &str, rest: &str) -> Option<String> {
    let fixed = format!("/{rest}");
    let (space, below) = namespace(&fixed)?;
    let makes_sense = match space {
        Namespace::Ipfs => fixed.parse::<ContentPath>().is_ok(),
        Namespace::Ipns => !below.is_empty(),
    };
    (makes_sense && fixed != path).then_some(fixed)
}

/// The path of a key's name that is not written as a CID in base36.
fn canonical(key: &PeerId, path: &str) -> Option<String> {
    let (_, rest) = namespace(path)?;
    // As the path was read: empty names are none.
    let rest = rest.trim_start_matches('/');
    let written = rest.split('/').next().unwrap_or_default();
    let text = ipns::text(key);
    let below = rest.strip_prefix(written)?;
    (written != text).then(|| format!("/ipns/{text}{below}"))
}

/// How names are looked up for it.
pub(crate) fn how(headers: &HeaderMap) -> How {
    match only_if_cached(headers) {
        true => How::Here,
        false => How::Usual,
    }
}

fn only_if_cached(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("only-if-cached"))
}

/// An address at the same host.
fn location(path: &str, query: Option<&str>) -> String {
    // Two slashes at its start would make it one of another host.
    let below = path.trim_start_matches('/');
    let mut out = encode::path(&format!("/{below}"));
    if let Some(query) = query {
        out.push('?');
        out.push_str(query);
    }
    out
}

/// Longest path, encoded.
const PATH_BYTES_MAX: usize = 32 << 10;
/// Most pairs of a query that are looked at.
const QUERY_PAIRS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_plus_stays() {
        assert_eq!(
            decode_path("/ipfs/x/Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt"),
            Ok("/ipfs/x/Portugal%2C+España=Peninsula Ibérica.txt".to_owned())
        );
    }

    #[test]
    fn wrong_escapes_and_wrong_bytes_are_refused() {
        for raw in [
            "/%",
            "/%4",
            "/%zz",
            "/%ff",
            "/%c0%ae",
            "/a%00b",
            "/%ed%a0%80",
        ] {
            assert!(matches!(decode_path(raw), Err(Failure::Path(_))), "{raw}");
        }
        assert!(decode_path(&"/x".repeat(PATH_BYTES_MAX)).is_err());
    }

    #[test]
    fn a_query_is_decoded_as_a_form() {
        let query = Query::parse(Some(
            "entity-bytes=0%3A%2A&filename=a+b%20c&x&filename=d&&=e",
        ));
        assert_eq!(query.first("entity-bytes"), Some("0:*"));
        assert_eq!(query.first("filename"), Some("a b c"));
        assert_eq!(query.first("x"), Some(""));
        assert_eq!(query.first("y"), None);
    }

    #[test]
    fn a_location_has_upper_case_escapes() {
        assert_eq!(
            location("/ipfs/CID/ą/ę/", Some("a=b")),
            "/ipfs/CID/%C4%85/%C4%99/?a=b"
        );
    }
}
