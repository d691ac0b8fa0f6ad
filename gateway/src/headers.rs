//! Headers of answers: validators, caching, names, and what browsers of other origins may see.

use crate::request::Request;
use cairn_store::unixfs::Mtime;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::fmt::Write;
use std::time::{Duration, SystemTime};

/// Pages. Browsers find the encoding in the page itself.
pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html");
/// One document.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Plain text.
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Browsers shall believe the `Content-Type`.
pub(crate) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// Pages of our own need their own style and nothing else.
pub(crate) const OWN_PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'",
);
/// What may be asked.
pub(crate) const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// The same where something may be kept.
pub(crate) const METHODS_AND_PUT: HeaderValue = HeaderValue::from_static("GET, HEAD, PUT, OPTIONS");
/// Content under its CID never changes.
pub(crate) const IMMUTABLE: HeaderValue =
    HeaderValue::from_static("public, max-age=29030400, immutable");
/// A page about content changes when we draw it otherwise.
pub(crate) const GENERATED: HeaderValue =
    HeaderValue::from_static("public, max-age=604800, stale-while-revalidate=2678400");
/// What a name leads to may be kept for so long.
pub(crate) fn for_a_while(time: Duration) -> HeaderValue {
    value(format!("public, max-age={}", time.as_secs()))
}

/// What of a request decides where it goes, beside its host.
pub(crate) const FORWARDED: HeaderValue =
    HeaderValue::from_static("X-Forwarded-Host, X-Forwarded-Proto");
/// Parts may be asked for.
pub(crate) const BYTES: HeaderValue = HeaderValue::from_static("bytes");
/// Parts may not be asked for.
pub(crate) const NONE: HeaderValue = HeaderValue::from_static("none");
/// The path asked for.
pub(crate) const X_IPFS_PATH: HeaderName = HeaderName::from_static("x-ipfs-path");
/// The CIDs on the way.
pub(crate) const X_IPFS_ROOTS: HeaderName = HeaderName::from_static("x-ipfs-roots");

/// Lets pages of every origin read the answer: everything served here is public.
pub(crate) fn allow_other_origins(map: &mut HeaderMap) {
    map.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    map.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    map.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Content-Type, Range, User-Agent, X-Requested-With"),
    );
    map.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "Content-Length, Content-Range, X-Chunked-Output, X-Ipfs-Path, X-Ipfs-Roots, \
             X-Stream-Output",
        ),
    );
}

/// How an `If-None-Match` applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// There is none, or it names other versions.
    No,
    /// It names this version: nothing needs to be read to answer.
    Named,
    /// It is `*`: the content must be there.
    Any,
}

/// Compares weakly, as conditional reads do.
pub(crate) fn if_none_match(request: &Request, etag: &str) -> Match {
    match request.header(header::IF_NONE_MATCH) {
        Some(list) => matches(list, etag),
        None => Match::No,
    }
}

/// How a list of entity tags applies to one of them.
pub(crate) fn matches(list: &str, etag: &str) -> Match {
    if list.trim() == "*" {
        return Match::Any;
    }
    let opaque = etag.strip_prefix("W/").unwrap_or(etag);
    if tags(list).any(|tag| tag == opaque) {
        Match::Named
    } else {
        Match::No
    }
}

/// The quoted parts of a list of entity tags.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let start = rest.find('"')?;
        let inside = rest.get(start + 1..)?;
        let length = inside.find('"')?;
        let tag = rest.get(start..start + length + 2)?;
        rest = inside.get(length + 1..)?;
        Some(tag)
    })
}

/// Whether a client that knows the state of `modified` has the newest.
pub(crate) fn not_modified_since(request: &Request, modified: Option<SystemTime>) -> bool {
    if request.headers.contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    let known = request
        .header(header::IF_MODIFIED_SINCE)
        .and_then(|text| httpdate::parse_http_date(text).ok());
    matches!((known, modified), (Some(known), Some(modified)) if modified <= known)
}

/// Whether a `Range` may be answered with a part: the client's other parts must be of this version.
pub(crate) fn if_range(request: &Request, etag: &str, modified: Option<SystemTime>) -> bool {
    let Some(known) = request.header(header::IF_RANGE) else {
        return !request.headers.contains_key(header::IF_RANGE);
    };
    if known.trim_start().starts_with('"') {
        return known.trim() == etag;
    }
    let known = httpdate::parse_http_date(known).ok();
    known.is_some() && known == modified
}

/// A kept time of change in whole seconds, if it is one that HTTP can say.
pub(crate) fn modified(mtime: Option<Mtime>) -> Option<SystemTime> {
    let seconds = u64::try_from(mtime?.seconds).ok()?;
    (seconds < YEAR_10000).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `Last-Modified`, only where a time is kept: content under a CID has no other.
pub(crate) fn last_modified(map: &mut HeaderMap, modified: Option<SystemTime>) {
    if let Some(time) = modified
        && let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(time))
    {
        map.insert(header::LAST_MODIFIED, value);
    }
}

/// `Expires`, if it is a time that HTTP can say.
pub(crate) fn expires(map: &mut HeaderMap, at: SystemTime) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    if since.is_ok_and(|since| since.as_secs() < YEAR_10000)
        && let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(at))
    {
        map.insert(header::EXPIRES, value);
    }
}

/// What a browser does with a named answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Shows it.
    Inline,
    /// Saves it.
    Attachment,
}

impl Disposition {
    /// What the request wants, or else `otherwise`.
    pub(crate) fn wanted(request: &Request, otherwise: Self) -> Self {
        if request.query.first("download") == Some("true") {
            Self::Attachment
        } else {
            otherwise
        }
    }

    /// The header, with the name in ASCII for old clients and in UTF-8 for the others.
    pub(crate) fn header(self, name: &str) -> HeaderValue {
        let kind = match self {
            Self::Inline => "inline",
            Self::Attachment => "attachment",
        };
        let mut out = format!("{kind}; filename=\"");
        for char in name.chars() {
            match char {
                '"' | '\\' => {
                    out.push('\\');
                    out.push(char);
                }
                ' '..='~' => out.push(char),
                _ => out.push('_'),
            }
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "\"; filename*=UTF-8''{}", crate::encode::query(name));
        HeaderValue::try_from(out).unwrap_or(HeaderValue::from_static("attachment"))
    }
}

/// A header value of text that we made ourselves.
pub(crate) fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The first second that HTTP dates cannot say.
const YEAR_10000: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_found_in_every_list() {
        let all: Vec<_> = tags("\"a\", W/\"b,c\" ,\"\"").collect();
        assert_eq!(all, ["\"a\"", "\"b,c\"", "\"\""]);
        assert_eq!(tags("nonsense, \"open").count(), 0);
    }

    #[test]
    fn names_are_told_in_ascii_and_in_utf_8() {
        assert_eq!(
            Disposition::Inline.header("testтест.tar"),
            "inline; filename=\"test____.tar\"; filename*=UTF-8''test%D1%82%D0%B5%D1%81%D1%82.tar"
        );
        let evil = Disposition::Attachment.header("a\"; x=\"\r\nSet-Cookie: b");
        assert_eq!(
            evil,
            "attachment; filename=\"a\\\"; x=\\\"__Set-Cookie: b\"; \
             filename*=UTF-8''a%22%3B%20x%3D%22%0D%0ASet-Cookie%3A%20b"
        );
    }

    #[test]
    fn times_outside_of_http_are_left_out() {
        for seconds in [-1, i64::MIN, i64::MAX, 253_402_300_800] {
            assert_eq!(
                modified(Some(Mtime {
                    seconds,
                    nanoseconds: 0
                })),
                None
            );
        }
        let mut map = HeaderMap::new();
        last_modified(
            &mut map,
            modified(Some(Mtime {
                seconds: 253_402_300_799,
                nanoseconds: 5,
            })),
        );
        assert_eq!(map[header::LAST_MODIFIED], "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
