//! Text on its way into headers, links and pages. Names inside DAGs are foreign: nothing of them
//! reaches a client but through here.

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode, utf8_percent_encode};
use std::fmt::Write;

/// A path as Go's `url.URL{Path}` writes it.
pub(crate) fn path(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

/// One segment of a path as Go's `url.PathEscape` writes it.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// An address that is encoded already: only what no address may contain is.
pub(crate) fn uri(text: &str) -> String {
    utf8_percent_encode(text, NOT_IN_URI).to_string()
}

/// A value in a query; everything but letters, digits and `-._~` is encoded.
pub(crate) fn query(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A header's value: UTF-8 as it is, control characters percent-encoded.
pub(crate) fn header(text: &str) -> HeaderValue {
    if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
        return value;
    }
    let clean: String = percent_encode(text.as_bytes(), CONTROLS_ONLY).to_string();
    HeaderValue::from_str(&clean).unwrap_or(HeaderValue::from_static(""))
}

/// Text inside an element or a quoted attribute.
pub(crate) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// A foreign name made visible: control, bidirectional and invisible characters are written out,
/// so that a name looks like nothing else.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() || is_deceptive(char) {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(char));
        } else {
            out.push(char);
        }
    }
    out
}

fn is_deceptive(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
    )
}

/// FNV-1a, 64 bits: names versions of things we made; no defence against anybody.
pub(crate) const fn fingerprint(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut rest = bytes;
    while let [first, more @ ..] = rest {
        hash = (hash ^ *first as u64).wrapping_mul(0x0000_0100_0000_01b3);
        rest = more;
    }
    hash
}

/// Where [`fingerprint`] starts.
pub(crate) const FINGERPRINT: u64 = 0xcbf2_9ce4_8422_2325;

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const SEGMENT: &AsciiSet = &UNRESERVED
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b':')
    .remove(b'=')
    .remove(b'@');
const PATH: &AsciiSet = &SEGMENT.remove(b',').remove(b'/').remove(b';');
const NOT_IN_URI: &AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// `percent_encode` always encodes bytes above 127; used only where a control byte forces it.
const CONTROLS_ONLY: &AsciiSet = percent_encoding::CONTROLS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_as_go_does() {
        assert_eq!(
            path("/a b/ą$&+,:;=@?#%'()*!"),
            "/a%20b/%C4%85$&+,:;=@%3F%23%25%27%28%29%2A%21"
        );
        assert_eq!(segment("a/b;c,d"), "a%2Fb%3Bc%2Cd");
        assert_eq!(
            query(&segment("file-źł.txt")),
            "file-%25C5%25BA%25C5%2582.txt"
        );
    }

    #[test]
    fn no_text_panics_as_a_header() {
        assert_eq!(header("/ipfs/ą/ę").as_bytes(), "/ipfs/ą/ę".as_bytes());
        assert_eq!(header("a\r\nSet-Cookie: b"), "a%0D%0ASet-Cookie: b");
    }

    #[test]
    fn names_cannot_pose_as_markup_or_as_other_names() {
        assert_eq!(
            html("<a href=\"x\">&'"),
            "&lt;a href=&#34;x&#34;&gt;&amp;&#39;"
        );
        assert_eq!(
            visible("photo\u{202e}gnp.exe\n"),
            "photo\\u{202e}gnp.exe\\u{a}"
        );
        assert_eq!(visible("źł 👩‍👧"), "źł 👩‍👧");
    }
}
