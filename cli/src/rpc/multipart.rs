//! Multipart bodies, both ways, in bounded memory.
//!
//! Read here and not by a library, because files of any size must flow through to the importer on
//! its own thread, and because every header must have a bound. Names are as Kubo's clients write
//! them: percent-encoded paths in `filename`, what an entry is in `Content-Type`, mode and time in
//! the query that follows `name="file?…"`.

use super::arguments::Arguments;
use super::entries::{Content, Entries, Entry};
use super::error::RpcError;
use bytes::Bytes;
use cairn_store::unixfs::Mtime;
use cairn_store::unixfs::import::Metadata;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use memchr::memmem;
use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode,
};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Why a body is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MultipartError {
    /// The body could not be read.
    #[error("cannot read the request: {0}")]
    Read(#[from] io::Error),
    /// The body ended before its last boundary.
    #[error("the request was cut short")]
    CutShort,
    /// A part's headers are longer than allowed.
    #[error("a part of the request has headers longer than {HEADERS_BYTES_MAX} bytes")]
    HeadersTooLong,
    /// A symbolic link points to a name that none has.
    #[error("the symbolic link {0:?} has a target longer than {LINK_BYTES_MAX} bytes")]
    LinkTooLong(String),
    /// Not a multipart body.
    #[error("the request is not valid multipart: {0}")]
    Malformed(&'static str),
}

/// The boundary of a multipart request; `None` if it is none.
pub fn boundary_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let (kind, parameters) = value.split_once(';')?;
    let is_multipart = kind.trim().to_ascii_lowercase().starts_with("multipart/");
    let boundary = parameter(parameters, "boundary")?;
    (is_multipart && !boundary.is_empty() && boundary.len() <= BOUNDARY_BYTES_MAX)
        .then_some(boundary)
}

/// A parameter of a header value: `; name="value"; other=value`.
fn parameter(parameters: &str, wanted: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (name, after) = rest.split_once('=')?;
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            loop {
                match characters.next()? {
                    (_, '\\') => value.push(characters.next()?.1),
                    (end, '"') => break (value, quoted.get(end + 1..)?),
                    (_, c) => value.push(c),
                }
            }
        } else {
            let end = after.find(';').unwrap_or(after.len());
            let (value, after) = after.split_at(end);
            (value.trim().to_owned(), after)
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = after;
    }
}

/// The parts of a body.
#[derive(Debug)]
struct Parts<R> {
    input: R,
    /// What ends a part: a line's end, two dashes, the boundary.
    delimiter: Vec<u8>,
    buffer: Vec<u8>,
    /// Where what was not handed out yet begins.
    start: usize,
    /// How many bytes from `start` are known to belong to the current part.
    plain: usize,
    inside: bool,
}

impl<R: Read> Parts<R> {
    fn new(input: R, boundary: &str) -> Self {
        Self {
            input,
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first boundary may stand at the very beginning: as if after a line's end.
            buffer: b"\r\n".to_vec(),
            start: 0,
            plain: 0,
            // What precedes the first boundary is read and dropped like an unread part.
            inside: true,
        }
    }

    fn waiting(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn consume(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.buffer.len());
        self.plain = self.plain.saturating_sub(bytes);
    }

    /// Reads more; false at the end of the input.
    fn fill(&mut self) -> Result<bool, MultipartError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + FILL_BYTES, 0);
        let read = loop {
            let space = self.buffer.get_mut(filled..).unwrap_or_default();
            match self.input.read(space) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer
            .truncate(filled + read.as_ref().copied().unwrap_or(0));
        Ok(read? > 0)
    }

    /// Makes some bytes of the current part known, or says that it ended (its boundary is then
    /// consumed).
    fn advance(&mut self) -> Result<bool, MultipartError> {
        while self.plain == 0 {
            let waiting = self.waiting();
            match memmem::find(waiting, &self.delimiter) {
                Some(0) => {
                    self.consume(self.delimiter.len());
                    self.inside = false;
                    return Ok(false);
                }
                Some(at) => self.plain = at,
                // The end may hold the beginning of a boundary.
                None => self.plain = waiting.len().saturating_sub(self.delimiter.len() - 1),
            }
            if self.plain == 0 && !self.fill()? {
                return Err(MultipartError::CutShort);
            }
        }
        Ok(true)
    }

    /// The headers of the next part; `None` after the last one.
    fn next(&mut self) -> Result<Option<String>, MultipartError> {
        while self.inside && self.advance()? {
            self.consume(self.plain);
        }
        let line = self.until(b"\r\n")?;
        if line.starts_with(b"--") {
            return Ok(None);
        }
        if !line.iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            return Err(MultipartError::Malformed("text behind a boundary"));
        }
        let mut headers = String::new();
        loop {
            let line = self.until(b"\r\n")?;
            if line.is_empty() {
                break;
            }
            headers.push_str(&String::from_utf8_lossy(&line));
            headers.push('\n');
            if headers.len() > HEADERS_BYTES_MAX {
                return Err(MultipartError::HeadersTooLong);
            }
        }
        self.inside = true;
        self.plain = 0;
        Ok(Some(headers))
    }

    /// Takes everything before `end`, and `end`. The last boundary's line may lack one.
    fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, MultipartError> {
        loop {
            let waiting = self.waiting();
            if let Some(at) = memmem::find(waiting, end) {
                let taken = waiting.get(..at).unwrap_or_default().to_vec();
                self.consume(at + end.len());
                return Ok(taken);
            }
            if waiting.len() > HEADERS_BYTES_MAX {
                return Err(MultipartError::HeadersTooLong);
            }
            if waiting.starts_with(b"--") {
                return Ok(b"--".to_vec());
            }
            if !self.fill()? {
                return Err(MultipartError::CutShort);
            }
        }
    }
}

/// The bytes of the current part.
struct PartReader<'a, R>(&'a mut Parts<R>);

impl<R: Read> Read for PartReader<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let parts = &mut *self.0;
        if !parts.inside || out.is_empty() {
            return Ok(0);
        }
        match parts.advance() {
            Ok(true) => {}
            Ok(false) => return Ok(0),
            Err(MultipartError::Read(error)) => return Err(error),
            Err(error) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
        }
        let length = parts.plain.min(out.len());
        let from = parts.waiting().get(..length).unwrap_or_default();
        if let Some(out) = out.get_mut(..length) {
            out.copy_from_slice(from);
        }
        parts.consume(length);
        Ok(length)
    }
}

/// Entries from a multipart body.
#[derive(Debug)]
pub struct MultipartEntries<R> {
    parts: Parts<R>,
    seen: u64,
}

impl<R: Read> MultipartEntries<R> {
    /// Reads `body`, whose parts `boundary` separates.
    pub fn new(body: R, boundary: &str) -> Self {
        Self {
            parts: Parts::new(body, boundary),
            seen: 0,
        }
    }
}

impl<R: Read> Entries for MultipartEntries<R> {
    fn next(&mut self) -> Result<Option<Entry<'_>>, RpcError> {
        let Some(headers) = self.parts.next()? else {
            return Ok(None);
        };
        self.seen += 1;
        let header = |wanted: &str| {
            headers.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.trim()
                    .eq_ignore_ascii_case(wanted)
                    .then(|| value.trim().to_owned())
            })
        };
        let disposition = header("content-disposition").unwrap_or_default();
        let parameters = disposition.split_once(';').map_or("", |(_, rest)| rest);
        let field = parameter(parameters, "name").unwrap_or_default();
        let path = entry_path(&parameter(parameters, "filename").unwrap_or_default())?;
        let kind = header("content-type").unwrap_or_default();
        // Newer clients of Kubo encode it.
        let encoded = header("abspath-encoded").map(|text| {
            let spaced = text.replace('+', " ");
            let bytes: Vec<u8> = percent_decode_str(&spaced).collect();
            PathBuf::from(OsString::from_vec(bytes))
        });
        let place = encoded.or_else(|| header("abspath").map(PathBuf::from));
        let mut content = PartReader(&mut self.parts);
        let content = match kind.split(';').next().unwrap_or_default().trim() {
            "application/x-directory" => Content::Folder,
            "application/symlink" => {
                let mut target = String::new();
                (&mut content)
                    .take(LINK_BYTES_MAX + 1)
                    .read_to_string(&mut target)?;
                if target.len() as u64 > LINK_BYTES_MAX {
                    return Err(MultipartError::LinkTooLong(path).into());
                }
                Content::Link(target)
            }
            _ => Content::File(Box::new(content)),
        };
        Ok(Some(Entry {
            path,
            metadata: metadata_of(&field)?,
            place,
            content,
        }))
    }
}

/// Mode and time in a field's name: `file?mode=0644&mtime=1700000000&mtime-nsecs=5`.
fn metadata_of(field: &str) -> Result<Metadata, RpcError> {
    let Some((_, query)) = field.split_once('?') else {
        return Ok(Metadata::default());
    };
    let arguments = Arguments::parse(query)?;
    let mode = match arguments.text(&["mode"]) {
        Some(text) => Some(
            u32::from_str_radix(text, 8)
                .map_err(|_| RpcError::wrong(format!("invalid mode {text:?}")))?,
        ),
        None => None,
    };
    let seconds: Option<i64> = arguments.parsed(&["mtime"], "seconds since 1970")?;
    let nanoseconds: Option<u32> = arguments.parsed(&["mtime-nsecs"], "nanoseconds")?;
    Ok(Metadata {
        mode,
        mtime: seconds.map(|seconds| Mtime {
            seconds,
            nanoseconds: nanoseconds.unwrap_or(0),
        }),
    })
}

/// A path as a client wrote it, cleaned: no empty names, no `.`; `..` is refused.
fn entry_path(filename: &str) -> Result<String, RpcError> {
    let spaced = filename.replace('+', " ");
    let decoded = percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| RpcError::wrong("a file's name is not UTF-8"))?;
    let mut names = Vec::new();
    for name in decoded.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                return Err(RpcError::wrong(format!(
                    "the file's name {decoded:?} leads out of its folder"
                )));
            }
            name => names.push(name),
        }
    }
    Ok(names.join("/"))
}

/// Writes entries as a multipart body, piece by piece into `send`.
pub fn write(
    entries: &mut dyn Entries,
    boundary: &str,
    mut send: impl FnMut(Bytes) -> Result<(), RpcError>,
) -> Result<(), RpcError> {
    while let Some(entry) = entries.next()? {
        let mut field = "file".to_owned();
        let mut separator = '?';
        let mut add = |name: &str, value: String| {
            field.push(separator);
            field.push_str(&format!("{name}={value}"));
            separator = '&';
        };
        if let Some(mode) = entry.metadata.mode {
            add("mode", format!("{mode:04o}"));
        }
        if let Some(mtime) = entry.metadata.mtime {
            add("mtime", mtime.seconds.to_string());
            add("mtime-nsecs", mtime.nanoseconds.to_string());
        }
        let kind = match &entry.content {
            Content::Folder => "application/x-directory",
            Content::Link(_) => "application/symlink",
            Content::File(_) => "application/octet-stream",
        };
        let place = entry.place.as_ref().map(|path| {
            let path = percent_encode(path.as_os_str().as_bytes(), &ENCODED);
            format!("Abspath-Encoded: {path}\r\n")
        });
        let place = place.unwrap_or_default();
        let name = utf8_percent_encode(&entry.path, &ENCODED);
        send(Bytes::from(format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; \
             filename=\"{name}\"\r\n{place}Content-Type: {kind}\r\n\r\n"
        )))?;
        match entry.content {
            Content::Folder => {}
            Content::Link(target) => send(Bytes::from(target))?,
            Content::File(mut content) => loop {
                let mut piece = vec![0; FILL_BYTES];
                let read = match content.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => {
                        let why = format!("cannot read {}: {error}", entry.path);
                        return Err(RpcError::failed(why));
                    }
                    Ok(read) => read,
                };
                if read == 0 {
                    break;
                }
                piece.truncate(read);
                send(Bytes::from(piece))?;
            },
        }
        send(Bytes::from_static(b"\r\n"))?;
    }
    send(Bytes::from(format!("--{boundary}--\r\n")))
}

/// Everything but letters, digits and what is harmless in a quoted name.
const ENCODED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
/// Longest headers of one part.
const HEADERS_BYTES_MAX: usize = 16 << 10;
/// Longest boundary; the standard has 70.
const BOUNDARY_BYTES_MAX: usize = 200;
/// Longest target of a symbolic link.
const LINK_BYTES_MAX: u64 = 64 << 10;
/// How much is read at once.
const FILL_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::entries::{LocalEntries, LocalUpload, Source, Walk};
    use proptest::prelude::*;

    /// Hands out what it has in pieces of a given size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(out.len()).min(self.0.len());
            let (now, later) = self.0.split_at(length);
            out[..length].copy_from_slice(now);
            self.0 = later;
            Ok(length)
        }
    }

    fn read(body: &[u8], piece: usize) -> Result<Vec<(String, Vec<u8>)>, RpcError> {
        let mut entries = MultipartEntries::new(Pieces(body, piece), "XX");
        let mut all = Vec::new();
        while let Some(entry) = entries.next()? {
            let bytes = match entry.content {
                Content::Folder => b"folder".to_vec(),
                Content::Link(target) => format!("link {target}").into_bytes(),
                Content::File(mut content) => {
                    let mut bytes = Vec::new();
                    content.read_to_end(&mut bytes)?;
                    bytes
                }
            };
            all.push((entry.path, bytes));
        }
        Ok(all)
    }

    const BODY: &[u8] = b"preamble\r\n--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a%2Fx%20y.txt\"\r\n\
        Content-Type: application/octet-stream\r\n\r\nhe\r\n--Xllo\r\n--XX  \r\n\
        content-disposition: form-data; name=\"dir-1\"; filename=\"b\"\r\ncontent-type: application/x-directory\r\n\r\n\r\n--XX\r\n\
        Content-Disposition: form-data; name=\"l\"; filename=\"b/l\"\r\nContent-Type: application/symlink\r\n\r\n../a\r\n--XX--\r\n";

    #[test]
    fn reads_files_folders_and_links_in_pieces_of_any_size() {
        let expected = vec![
            ("a/x y.txt".to_owned(), b"he\r\n--Xllo".to_vec()),
            ("b".to_owned(), b"folder".to_vec()),
            ("b/l".to_owned(), b"link ../a".to_vec()),
        ];
        for piece in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(read(BODY, piece).unwrap(), expected, "{piece}");
        }
    }

    #[test]
    fn a_body_cut_anywhere_is_an_error() {
        let last = BODY.len() - b"\r\n".len();
        for length in 0..last {
            assert!(read(&BODY[..length], 10).is_err(), "{length}");
        }
    }

    #[test]
    fn headers_without_an_end_are_refused() {
        let mut body = b"--XX\r\n".to_vec();
        body.resize(10 * HEADERS_BYTES_MAX, b'a');
        let error = read(&body, 1000).unwrap_err();
        assert!(error.message().contains("headers longer"), "{error}");
    }

    #[test]
    fn a_link_is_never_cut() {
        let link = |length: usize| {
            let mut body = b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"l\"\r\nContent-Type: application/symlink\r\n\r\n".to_vec();
            body.resize(body.len() + length, b'a');
            body.extend_from_slice(b"\r\n--XX--\r\n");
            read(&body, 1000)
        };
        let most = usize::try_from(LINK_BYTES_MAX).unwrap();
        assert_eq!(link(most).unwrap()[0].1.len(), "link ".len() + most);
        let error = link(most + 1).unwrap_err();
        assert!(error.message().contains("longer than"), "{error}");
    }

    #[test]
    fn a_name_that_leads_out_is_refused() {
        for name in ["..", "a/../../b", "%2e%2e/x", "/../x"] {
            assert!(entry_path(name).is_err(), "{name}");
        }
        assert_eq!(entry_path("/a//./b").unwrap(), "a/b");
        assert_eq!(entry_path("a+b%2Bc").unwrap(), "a b+c");
    }

    #[test]
    fn mode_and_time_come_with_the_field_name() {
        let metadata = metadata_of("file?mode=0644&mtime=1700000000&mtime-nsecs=123000").unwrap();
        assert_eq!(metadata.mode, Some(0o644));
        let mtime = metadata.mtime.unwrap();
        assert_eq!((mtime.seconds, mtime.nanoseconds), (1_700_000_000, 123_000));
        assert_eq!(metadata_of("file-1").unwrap(), Metadata::default());
    }

    #[test]
    fn finds_the_boundary_as_clients_write_it() {
        let boundary = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            boundary_of(&headers)
        };
        assert_eq!(
            boundary("multipart/form-data; boundary=abc").unwrap(),
            "abc"
        );
        assert_eq!(
            boundary("Multipart/form-data; charset=utf-8; Boundary=\"a b\"").unwrap(),
            "a b"
        );
        assert_eq!(boundary("text/plain; boundary=abc"), None);
        assert_eq!(boundary("multipart/form-data"), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("na\"me %+ü");
        std::fs::write(&file, b"content\r\n--XX is not a boundary").unwrap();
        let mut entries = LocalEntries::new(LocalUpload {
            sources: vec![Source::Path(file)],
            walk: Walk::default(),
            ..LocalUpload::default()
        });
        let mut body = Vec::new();
        write(&mut entries, "YY", |bytes| {
            body.extend_from_slice(&bytes);
            Ok(())
        })
        .unwrap();
        let mut read = MultipartEntries::new(&body[..], "YY");
        let entry = read.next().unwrap().unwrap();
        assert_eq!(entry.path, "na\"me %+ü");
        let Content::File(mut content) = entry.content else {
            panic!("not a file");
        };
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"content\r\n--XX is not a boundary");
    }

    proptest! {
        #[test]
        fn any_bytes_pass_through_a_part(content in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'X'), any::<u8>()], 0..300
        ), piece in 1usize..50) {
            prop_assume!(memmem::find(&content, b"\r\n--XX").is_none());
            let mut body = b"--XX\r\n\r\n".to_vec();
            body.extend_from_slice(&content);
            body.extend_from_slice(b"\r\n--XX--");
            // The boundary could also begin inside the content's last bytes.
            let text = [&b"\r\n"[..], &content, b"\r\n--XX"].concat();
            prop_assume!(memmem::find(&text, b"\r\n--XX") == Some(text.len() - 6));
            let all = read(&body, piece).unwrap();
            prop_assert_eq!(&all[0].1, &content);
        }

        #[test]
        fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&body, 13);
        }
    }
}
