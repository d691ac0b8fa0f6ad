//! What a file is: by its name, else by its first bytes.
//!
//! HTML goes out without a charset, because pages name their own; JSON too, because it has only
//! one.

use http::HeaderValue;

/// How many of the first bytes are looked at.
pub(crate) const SNIFFED_BYTES: u64 = 512;

/// Bytes of which nothing is known.
pub(crate) const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The type that a name's extension tells.
pub(crate) fn by_name(name: &str) -> Option<HeaderValue> {
    let (_, extension) = name.rsplit_once('.')?;
    if extension.len() > EXTENSION_BYTES_MAX {
        return None;
    }
    let extension = extension.to_ascii_lowercase();
    if let Some((_, kind)) = COMMON.iter().find(|(known, _)| *known == extension) {
        return Some(HeaderValue::from_static(kind));
    }
    let kind = mime_guess::from_ext(&extension).first_raw()?;
    if kind.starts_with("text/") {
        return HeaderValue::try_from(format!("{kind}; charset=utf-8")).ok();
    }
    Some(HeaderValue::from_static(kind))
}

/// The type that the first bytes tell. `bytes` holds the first [`SNIFFED_BYTES`], or all.
pub(crate) fn by_content(bytes: &[u8]) -> HeaderValue {
    HeaderValue::from_static(sniff(bytes))
}

fn sniff(bytes: &[u8]) -> &'static str {
    let most = usize::try_from(SNIFFED_BYTES).unwrap_or(usize::MAX);
    let bytes = bytes.get(..most).unwrap_or(bytes);
    if let Some((_, kind)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return kind;
    }
    if let Some(kind) = container(bytes) {
        return kind;
    }
    if !is_text(bytes) {
        return "application/octet-stream";
    }
    let trimmed = bytes.trim_ascii_start();
    if is_html(trimmed) {
        "text/html"
    } else if starts_with_ignoring_case(trimmed, b"<svg") {
        "image/svg+xml"
    } else if trimmed.starts_with(b"<?xml") {
        if contains(trimmed, b"<svg") {
            "image/svg+xml"
        } else {
            "text/xml; charset=utf-8"
        }
    } else if is_json(trimmed) {
        "application/json"
    } else {
        "text/plain; charset=utf-8"
    }
}

/// Formats whose name stands inside.
fn container(bytes: &[u8]) -> Option<&'static str> {
    let at = |start: usize, length: usize| bytes.get(start..start + length);
    if at(0, 4) == Some(b"RIFF") {
        return match at(8, 4)? {
            b"WEBP" => Some("image/webp"),
            b"WAVE" => Some("audio/wav"),
            b"AVI " => Some("video/x-msvideo"),
            _ => None,
        };
    }
    if at(4, 4) == Some(b"ftyp") {
        return Some(match at(8, 4)? {
            b"avif" | b"avis" => "image/avif",
            b"heic" | b"heix" | b"mif1" => "image/heic",
            b"M4A " => "audio/mp4",
            b"qt  " => "video/quicktime",
            _ => "video/mp4",
        });
    }
    (at(257, 5) == Some(b"ustar")).then_some("application/x-tar")
}

/// Text is UTF-8 without the control characters that no text has. The end may be cut.
fn is_text(bytes: &[u8]) -> bool {
    let whole = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && bytes.len() as u64 == SNIFFED_BYTES,
    };
    let odd = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f);
    whole && !bytes.iter().any(odd)
}

fn is_html(bytes: &[u8]) -> bool {
    HTML_TAGS.iter().any(|tag| {
        starts_with_ignoring_case(bytes, tag)
            && (tag.ends_with(b"--")
                || matches!(
                    bytes.get(tag.len()),
                    Some(b'>' | b' ' | b'\t' | b'\n' | b'\r' | b'/')
                ))
    })
}

/// JSON that is an object or a list, as far as its beginning tells.
fn is_json(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else {
        return false;
    };
    let rest = rest.trim_ascii_start();
    match (first, rest.first()) {
        (b'{', Some(b'}')) | (b'[', Some(b']' | b'{' | b'[')) => true,
        (b'{', Some(b'"')) => after_string(rest)
            .is_none_or(|after| matches!(after.trim_ascii_start().first(), None | Some(b':'))),
        (b'[', Some(b'"')) => after_string(rest).is_none_or(in_list),
        (b'[', Some(b'-' | b'0'..=b'9')) => {
            let end = rest
                .iter()
                .position(|byte| !matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
            end.is_none_or(|end| rest.get(end..).is_none_or(in_list))
        }
        (b'[', Some(b't' | b'f' | b'n')) => ["true", "false", "null"]
            .iter()
            .find_map(|word| rest.strip_prefix(word.as_bytes()))
            .is_some_and(in_list),
        _ => false,
    }
}

/// What may stand after an element of a list: more, or the list's end and nothing else.
fn in_list(after: &[u8]) -> bool {
    match after.trim_ascii_start().split_first() {
        None | Some((b',', _)) => true,
        Some((b']', rest)) => rest.trim_ascii_start().is_empty(),
        Some(_) => false,
    }
}

/// What stands after a string, `None` if it does not end here.
fn after_string(bytes: &[u8]) -> Option<&[u8]> {
    let mut escaped = false;
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return bytes.get(at + 1..),
            _ => {}
        }
    }
    None
}

fn starts_with_ignoring_case(bytes: &[u8], start: &[u8]) -> bool {
    bytes
        .get(..start.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(start))
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Longest extension that is looked up.
const EXTENSION_BYTES_MAX: usize = 16;

/// What most websites are made of, and what the large table says in another way.
const COMMON: [(&str, &str); 22] = [
    ("html", "text/html"),
    ("htm", "text/html"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("xml", "text/xml; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("ico", "image/x-icon"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("mp4", "video/mp4"),
    ("gz", "application/gzip"),
];

const MAGIC: [(&[u8], &str); 27] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM\0", "image/bmp"),
    (b"\0\0\x01\0", "image/x-icon"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"OggS\0", "application/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"MThd\0\0\0\x06", "audio/midi"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/x-rar-compressed"),
    (b"\0asm", "application/wasm"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
];

const HTML_TAGS: [&[u8]; 17] = [
    b"<!doctype html",
    b"<html",
    b"<head",
    b"<body",
    b"<script",
    b"<iframe",
    b"<h1",
    b"<div",
    b"<font",
    b"<table",
    b"<a",
    b"<style",
    b"<title",
    b"<b",
    b"<br",
    b"<p",
    b"<!--",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_tell_types() {
        for (name, kind) in [
            ("a.html", "text/html"),
            ("a.tar.GZ", "application/gzip"),
            ("a.b/style.css", "text/css; charset=utf-8"),
            ("a.csv", "text/csv; charset=utf-8"),
            ("a.mp3", "audio/mpeg"),
        ] {
            assert_eq!(by_name(name).unwrap(), kind, "{name}");
        }
        assert_eq!(by_name("README"), None);
        assert_eq!(by_name("a.nobody-knows-this"), None);
    }

    #[test]
    fn first_bytes_tell_types() {
        let cases: [(&[u8], &str); 24] = [
            (b"", "text/plain; charset=utf-8"),
            (b"hello\n", "text/plain; charset=utf-8"),
            ("zażółć".as_bytes(), "text/plain; charset=utf-8"),
            (b"  <!DOCTYPE HTML>\n<p>", "text/html"),
            (b"<html><body>", "text/html"),
            (b"<!-- hello -->", "text/html"),
            (b"<abbr>", "text/plain; charset=utf-8"),
            (b"<svg xmlns=\"x\">", "image/svg+xml"),
            (b"<?xml version=\"1.0\"?><svg>", "image/svg+xml"),
            (b"<?xml version=\"1.0\"?><feed>", "text/xml; charset=utf-8"),
            (b"{\"a\": 1}", "application/json"),
            (b"{}\n", "application/json"),
            (b" [1, 2]", "application/json"),
            (b"[1]\n", "application/json"),
            (b"[\"a\\\"b\", 3]", "application/json"),
            (b"[null]", "application/json"),
            (b"[1] A footnote", "text/plain; charset=utf-8"),
            (b"[note] read me", "text/plain; charset=utf-8"),
            (b"{ block }", "text/plain; charset=utf-8"),
            (b"\x89PNG\r\n\x1a\n....", "image/png"),
            (b"RIFF....WEBP", "image/webp"),
            (b"....ftypisom", "video/mp4"),
            (b"a\0b", "application/octet-stream"),
            (b"caf\xe9", "application/octet-stream"),
        ];
        for (bytes, kind) in cases {
            assert_eq!(sniff(bytes), kind, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_letter_cut_by_the_limit_is_still_text() {
        let text = format!("a{}", "ł".repeat(256));
        assert_eq!(
            sniff(
                text.get(..512)
                    .map_or(&text.as_bytes()[..512], str::as_bytes)
            ),
            "text/plain; charset=utf-8"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), text in "[\\[{]\\PC{0,40}") {
            sniff(&bytes);
            sniff(text.as_bytes());
        }
    }
}
