//! Which format of the content a request wants. `?format=` beats `Accept`, always; parameters of
//! an `Accept` entry count when its media type is the format chosen.

use crate::error::Failure;
use crate::request::Query;
use cairn_store::cid;
use cairn_store::dag::walk::Repeats;
use http::{HeaderMap, header};

/// A format that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The block's bytes.
    Raw,
    /// A CAR.
    Car,
    /// A TAR of files and folders.
    Tar,
    /// Plain JSON.
    Json,
    /// Plain CBOR.
    Cbor,
    /// JSON with links.
    DagJson,
    /// CBOR with links.
    DagCbor,
    /// A signed record of a name.
    IpnsRecord,
}

impl Format {
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Raw, "raw", "application/vnd.ipld.raw"),
        (Self::Car, "car", "application/vnd.ipld.car"),
        (Self::Tar, "tar", "application/x-tar"),
        (Self::Json, "json", "application/json"),
        (Self::Cbor, "cbor", "application/cbor"),
        (Self::DagJson, "dag-json", "application/vnd.ipld.dag-json"),
        (Self::DagCbor, "dag-cbor", "application/vnd.ipld.dag-cbor"),
        (
            Self::IpnsRecord,
            "ipns-record",
            "application/vnd.ipfs.ipns-record",
        ),
    ];

    /// As in `?format=`.
    pub(crate) fn name(self) -> &'static str {
        self.row().1
    }

    /// As in `Accept` and `Content-Type`.
    pub(crate) fn media_type(self) -> &'static str {
        self.row().2
    }

    /// The codec whose blocks are this format as they are.
    pub(crate) fn codec(self) -> Option<u64> {
        match self {
            Self::Json => Some(cid::JSON),
            Self::Cbor => Some(cid::CBOR),
            Self::DagJson => Some(cid::DAG_JSON),
            Self::DagCbor => Some(cid::DAG_CBOR),
            Self::Raw | Self::Car | Self::Tar | Self::IpnsRecord => None,
        }
    }

    /// The format that blocks of this codec are.
    pub(crate) fn of_codec(codec: u64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .map(|(format, ..)| format)
            .find(|format| format.codec() == Some(codec))
    }

    fn row(self) -> (Self, &'static str, &'static str) {
        Self::ALL
            .into_iter()
            .find(|(format, ..)| *format == self)
            .unwrap_or((self, "", ""))
    }
}

/// A format asked for in so many words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The format.
    pub(crate) format: Format,
    /// Who asked for it.
    pub(crate) from: From,
    /// How a CAR shall be made.
    pub(crate) car: CarWish,
}

/// Where a format was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// In the query.
    Query,
    /// In the `Accept` header alone.
    Accept,
}

/// Parameters of a CAR that may come with its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CarWish {
    /// Whether a block that is linked twice comes twice.
    pub(crate) repeats: Repeats,
}

impl Default for CarWish {
    fn default() -> Self {
        Self {
            repeats: Repeats::Skip,
        }
    }
}

/// Chooses the format; `None` is the content itself, as a browser wants it.
pub(crate) fn choose(query: &Query, headers: &HeaderMap) -> Result<Option<Wish>, Failure> {
    let asked = query.first("format").and_then(by_name);
    let accepted = accepted(headers, asked)?;
    let (format, from) = match (asked, &accepted) {
        (Some(format), _) => (format, From::Query),
        (None, Some((format, _))) => (*format, From::Accept),
        (None, None) => return Ok(None),
    };
    let parameters = accepted
        .map(|(_, parameters)| parameters)
        .unwrap_or_default();
    let car = if format == Format::Car {
        car(query, &parameters)?
    } else {
        CarWish::default()
    };
    Ok(Some(Wish { format, from, car }))
}

type Parameters = Vec<(String, String)>;

/// The first `Accept` entry that names a format of ours; if `only` is given, the first of that.
fn accepted(
    headers: &HeaderMap,
    only: Option<Format>,
) -> Result<Option<(Format, Parameters)>, Failure> {
    let lines = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|line| line.to_str().ok());
    for entry in lines
        .flat_map(|line| line.split(','))
        .take(ACCEPT_ENTRIES_MAX)
    {
        let mut parts = entry.split(';');
        let media_type = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let known = Format::ALL
            .into_iter()
            .find(|(.., known)| *known == media_type);
        match (known, only) {
            (Some((format, ..)), wanted) if wanted.is_none_or(|wanted| wanted == format) => {
                let parameters = parts
                    .filter_map(|part| part.split_once('='))
                    .map(|(name, value)| {
                        let value = value.trim().trim_matches('"');
                        (name.trim().to_ascii_lowercase(), value.to_owned())
                    })
                    .collect();
                return Ok(Some((format, parameters)));
            }
            (None, None) if media_type.starts_with("application/vnd.ipld.") => {
                return Err(Failure::Parameter(format!(
                    "unsupported format {media_type:?} in the Accept header"
                )));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn by_name(name: &str) -> Option<Format> {
    Format::ALL
        .into_iter()
        .find(|(_, known, _)| *known == name)
        .map(|(format, ..)| format)
}

fn car(query: &Query, parameters: &Parameters) -> Result<CarWish, Failure> {
    let value = |name: &str| {
        query.first(&format!("car-{name}")).or_else(|| {
            parameters
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        })
    };
    let wrong = |name: &str, value: &str, may: &str| {
        Err(Failure::Parameter(format!(
            "unsupported CAR parameter {name}={value:?}: {may}"
        )))
    };
    match value("version") {
        None | Some("1") => {}
        Some(other) => return wrong("version", other, "only version 1 is sent"),
    }
    match value("order") {
        None | Some("dfs" | "unk") => {}
        Some(other) => return wrong("order", other, "it may be dfs or unk"),
    }
    let repeats = match value("dups") {
        None | Some("n") => Repeats::Skip,
        Some("y") => Repeats::Keep,
        Some(other) => return wrong("dups", other, "it may be y or n"),
    };
    Ok(CarWish { repeats })
}

/// Most entries of an `Accept` header that are looked at.
const ACCEPT_ENTRIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn chosen(query: &str, accept: &str) -> Result<Option<Format>, Failure> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        }
        choose(&Query::parse(Some(query)), &headers).map(|wish| wish.map(|wish| wish.format))
    }

    #[test]
    fn the_query_beats_accept() {
        assert_eq!(
            chosen("format=raw", "application/vnd.ipld.car"),
            Ok(Some(Format::Raw))
        );
        assert_eq!(
            chosen("format=car", "application/vnd.ipld.raw"),
            Ok(Some(Format::Car))
        );
        assert_eq!(
            chosen("format=json", "application/vnd.ipld.raw"),
            Ok(Some(Format::Json))
        );
    }

    #[test]
    fn the_first_known_media_type_counts() {
        let accept =
            "text/html, */*;q=0.1, Application/vnd.ipld.CAR; version=1, application/vnd.ipld.raw";
        assert_eq!(chosen("", accept), Ok(Some(Format::Car)));
        assert_eq!(chosen("", "text/html,application/xml;q=0.9,*/*"), Ok(None));
        assert_eq!(chosen("format=nonsense", ""), Ok(None));
        assert!(chosen("", "application/vnd.ipld.unheard-of").is_err());
    }

    #[test]
    fn parameters_of_accept_count_for_the_format_of_the_query() {
        let headers =
            |accept| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
        let repeats = |query: &str, accept| {
            choose(&Query::parse(Some(query)), &headers(accept))
                .map(|wish| wish.unwrap().car.repeats)
        };
        let accept = "application/vnd.ipld.raw, application/vnd.ipld.car; dups=y; order=unk";
        assert_eq!(repeats("format=car", accept), Ok(Repeats::Keep));
        assert_eq!(repeats("format=car&car-dups=n", accept), Ok(Repeats::Skip));
        for wrong in ["car-version=2", "car-order=bfs", "car-dups=maybe"] {
            assert!(
                repeats(&format!("format=car&{wrong}"), accept).is_err(),
                "{wrong}"
            );
        }
    }
}
