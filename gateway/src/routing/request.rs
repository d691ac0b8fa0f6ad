//! From an address below `/routing/v1` to a question: the only parser of what these clients send.

use super::BASE;
use crate::error::Failure;
use crate::request::Query;
use cairn_node::PeerId;
use cairn_node::routing::{Filters, parse_peer};
use cairn_store::Cid;
use cairn_store::cid;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};

/// What a client wants to know.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Peers.
    Records {
        asked: Asked,
        filters: Filters,
        form: Form,
    },
    /// What a name points at.
    Name(PeerId),
    /// That the record of a name is kept, which comes in the body.
    Keep(PeerId),
}

/// Which peers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Those that have it.
    Providers(Cid),
    /// This one.
    Peer(PeerId),
    /// Those nearest to a key.
    Nearest(Vec<u8>),
}

/// How they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// All in one object.
    Json,
    /// One a line, as they are found.
    Lines,
}

impl Form {
    pub(super) fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => JSON,
            Self::Lines => LINES,
        })
    }
}

/// Reads the head of a request.
pub(super) fn parse(parts: &Parts) -> Result<Question, Failure> {
    let path = parts.uri.path().strip_prefix(BASE).unwrap_or_default();
    let names: Vec<&str> = path.split('/').skip(1).take(NAMES_MAX).collect();
    let asked = match names[..] {
        ["providers", key] => Ok(key),
        ["peers", key] => Ok(key),
        ["dht", "closest", "peers", key] => Ok(key),
        ["ipns", key] => Err(key),
        _ => {
            return Err(Failure::Route(format!(
                "there is no {} here",
                parts.uri.path()
            )));
        }
    };
    match (&parts.method, asked) {
        (&Method::GET | &Method::HEAD, _) => {}
        (&Method::PUT, Err(name)) => return Ok(Question::Keep(peer(name)?)),
        (&Method::PUT, Ok(_)) => {
            return Err(Failure::Unsupported(
                "this node publishes nothing for others but the records of names".to_owned(),
            ));
        }
        _ => return Err(Failure::Method),
    }
    let key = match asked {
        Ok(key) => key,
        Err(name) => {
            accepts_name_record(&parts.headers)?;
            return Ok(Question::Name(peer(name)?));
        }
    };
    let form = form(&parts.headers)?;
    let query = Query::parse(parts.uri.query());
    let filters = Filters::parse(query.first("filter-addrs"), query.first("filter-protocols"));
    let filters = filters.map_err(|error| Failure::Key(error.to_string()))?;
    let (asked, filters) = match names.first() {
        Some(&"providers") => (Asked::Providers(read_cid(key)?), filters),
        Some(&"peers") => (Asked::Peer(peer(key)?), filters),
        _ => (Asked::Nearest(nearest(key)?), Filters::default()),
    };
    Ok(Question::Records {
        asked,
        filters,
        form,
    })
}

/// Of any hash: it is not the content that is asked for.
fn read_cid(text: &str) -> Result<Cid, Failure> {
    cid::parse_link(text).map_err(|error| Failure::Key(error.to_string()))
}

fn peer(text: &str) -> Result<PeerId, Failure> {
    parse_peer(text).ok_or_else(|| {
        Failure::Key(format!(
            "{text:?} is no peer ID: neither one in base58, nor a CID of the codec libp2p-key"
        ))
    })
}

/// A place among the peers: where a peer is, or where the records of a block are.
fn nearest(text: &str) -> Result<Vec<u8>, Failure> {
    match parse_peer(text) {
        Some(peer) => Ok(peer.to_bytes()),
        None => Ok(read_cid(text)?.hash().to_bytes()),
    }
}

/// A stream for whoever asks for one, a list for all others.
fn form(headers: &HeaderMap) -> Result<Form, Failure> {
    let accepted = accepted(headers);
    if accepted.is_empty() {
        return Ok(Form::Json);
    }
    let weight = |kinds: &[&str]| {
        let fitting = accepted
            .iter()
            .filter(|(kind, _)| kinds.contains(&kind.as_str()));
        fitting.map(|(_, weight)| *weight).max().unwrap_or(0)
    };
    let (lines, list) = (weight(&[LINES]), weight(&[JSON]));
    match (lines, list) {
        (0, 0) if weight(&["application/*", "*/*"]) > 0 => Ok(Form::Json),
        (0, 0) => Err(Failure::Accept(
            "Ask with `Accept: application/json` or `Accept: application/x-ndjson`.",
        )),
        _ if lines >= list => Ok(Form::Lines),
        _ => Ok(Form::Json),
    }
}

fn accepts_name_record(headers: &HeaderMap) -> Result<(), Failure> {
    let kinds = [NAME_RECORD_TEXT, "application/*", "*/*"];
    let accepted = accepted(headers);
    let mut fitting = accepted.iter();
    match fitting.any(|(kind, weight)| kinds.contains(&kind.as_str()) && *weight > 0) {
        true => Ok(()),
        false => Err(Failure::Accept(
            "Ask with `Accept: application/vnd.ipfs.ipns-record`.",
        )),
    }
}

/// Whether a body says that it is the record of a name.
pub(super) fn is_name_record(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(NAME_RECORD_TEXT))
}

/// Whether an address is that of a name's record.
pub(super) fn is_of_name(path: &str) -> bool {
    let below = path.strip_prefix(BASE);
    below.is_some_and(|rest| rest.starts_with("/ipns/"))
}

/// Media types in lower case, each with its weight in thousandths.
fn accepted(headers: &HeaderMap) -> Vec<(String, u16)> {
    let lists = headers.get_all(header::ACCEPT).iter();
    lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','))
        .take(ACCEPTED_MAX)
        .map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            (kind, weight.map_or(WEIGHT_MAX, thousandths))
        })
        .filter(|(kind, _)| !kind.is_empty())
        .collect()
}

/// `0.5` is 500; what is no weight is the whole one.
fn thousandths(text: &str) -> u16 {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = part.chars().take(3).collect();
    match (whole, format!("{digits:0<3}").parse::<u16>()) {
        ("0", Ok(part)) => part,
        _ => WEIGHT_MAX,
    }
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const NAME_RECORD_TEXT: &str = "application/vnd.ipfs.ipns-record";
/// A signed record of a name.
pub(super) const NAME_RECORD: HeaderValue = HeaderValue::from_static(NAME_RECORD_TEXT);
const WEIGHT_MAX: u16 = 1000;
/// Most names of an address that are looked at: one more than any has.
const NAMES_MAX: usize = 5;
/// Most media types that are looked at.
const ACCEPTED_MAX: usize = 32;
