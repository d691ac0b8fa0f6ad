//! A pin in the answer of `pin ls`, written straight into pieces of it, since there may be millions.

use super::super::super::error::RpcError;
use super::super::super::reply::Sink;
use crate::output::escape_json;
use cairn_store::pin::Metadata;
use serde::{Deserialize, Serialize};

/// A pin in the answer of `pin ls`. Without `stream` the answer is one value, `{"Keys":{CID:{…}}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinLine {
    /// The CID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cid: String,
    /// The pin's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `recursive`, `direct`, `indirect`, or `indirect through <root>`.
    pub r#type: String,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// From when on it may be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What else is said of it.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// `pinned` or `expired`, or what the job does that is to make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why it does not get on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In how many seconds it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_seconds: Option<u64>,
    /// Blocks that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u64>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many bytes there are in all, as its first block says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Those of a higher one have their turns first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Whether somebody waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreground: Option<bool>,
}

/// Line by line, or one value; in either case in pieces.
pub(super) struct Teller {
    out: Sink,
    pub(super) stream: bool,
    piece: Vec<u8>,
    is_first: bool,
}

impl Teller {
    pub(super) fn new(out: Sink, stream: bool) -> Self {
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        if !stream {
            piece.extend_from_slice(b"{\"Keys\":{");
        }
        Self {
            out,
            stream,
            piece,
            is_first: true,
        }
    }

    pub(super) async fn tell(&mut self, line: &PinLine) -> Result<(), RpcError> {
        write_line(&mut self.piece, line, self.stream, self.is_first)?;
        self.is_first = false;
        if self.piece.len() >= PIECE_BYTES {
            let next = Vec::with_capacity(self.piece.capacity());
            let piece = std::mem::replace(&mut self.piece, next);
            self.out.bytes(piece.into()).await?;
        }
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<(), RpcError> {
        if !self.stream {
            self.piece.extend_from_slice(b"}}\n");
        }
        if self.piece.is_empty() {
            return Ok(());
        }
        self.out.bytes(self.piece.into()).await
    }
}

/// Writes a pin as a line, or as a key with its value.
fn write_line(
    into: &mut Vec<u8>,
    line: &PinLine,
    stream: bool,
    is_first: bool,
) -> Result<(), RpcError> {
    if stream {
        if is_plain(line) {
            serde_json::to_writer(&mut *into, line)?;
        } else {
            into.extend_from_slice(escape_json(serde_json::to_string(line)?).as_bytes());
        }
        into.push(b'\n');
        return Ok(());
    }
    if !is_first {
        into.push(b',');
    }
    serde_json::to_writer(&mut *into, &line.cid)?;
    into.push(b':');
    // Kubo tells here the name of those that have none, too.
    let value = PinType {
        r#type: &line.r#type,
        name: &line.name,
        more: PinLine {
            cid: String::new(),
            name: String::new(),
            r#type: String::new(),
            ..line.clone()
        },
    };
    into.extend_from_slice(escape_json(value.text()?).as_bytes());
    Ok(())
}

/// Whether nothing in it is somebody's words.
fn is_plain(line: &PinLine) -> bool {
    line.name.is_empty() && line.metadata.is_empty() && line.reason.is_none()
}

/// How a CID is pinned, below its key.
struct PinType<'a> {
    r#type: &'a str,
    name: &'a str,
    more: PinLine,
}

impl PinType<'_> {
    fn text(&self) -> Result<String, RpcError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct First<'a> {
            r#type: &'a str,
            name: &'a str,
        }
        let first = First {
            r#type: self.r#type,
            name: self.name,
        };
        let mut text = serde_json::to_string(&first)?;
        // Behind them whatever else is known; the type it begins with has been told.
        let more = serde_json::to_string(&self.more)?;
        let told = "{\"Type\":\"\"";
        if let Some(rest) = more.strip_prefix(told).filter(|rest| *rest != "}") {
            text.pop();
            text.push_str(rest);
        }
        Ok(text)
    }
}

/// So much of an answer is handed over at a time.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::utc;

    fn text(lines: &[PinLine], stream: bool) -> String {
        let mut text = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            write_line(&mut text, line, stream, at == 0).unwrap();
        }
        String::from_utf8(text).unwrap()
    }

    fn line(cid: &str, kind: &str) -> PinLine {
        PinLine {
            cid: cid.to_owned(),
            r#type: kind.to_owned(),
            ..PinLine::default()
        }
    }

    #[test]
    fn answers_have_kubos_shape() {
        let named = PinLine {
            name: "a\u{202e}b".to_owned(),
            ..line("bafy", "recursive")
        };
        let lines = [named, line("bafk", "direct")];
        assert_eq!(
            text(&lines, true),
            "{\"Cid\":\"bafy\",\"Name\":\"a\\u202eb\",\"Type\":\"recursive\"}\n{\"Cid\":\"bafk\",\"Type\":\"direct\"}\n"
        );
        assert_eq!(
            text(&lines, false),
            r#""bafy":{"Type":"recursive","Name":"a\u202eb"},"bafk":{"Type":"direct","Name":""}"#
        );
    }

    #[test]
    fn what_else_is_known_stands_behind_that() {
        let full = PinLine {
            created: Some(utc(1_700_000_000)),
            metadata: Metadata::from([("key".to_owned(), "value".to_owned())]),
            status: Some("pinned".to_owned()),
            ..line("bafy", "recursive")
        };
        assert_eq!(
            text(&[full], false),
            r#""bafy":{"Type":"recursive","Name":"","Created":"2023-11-14T22:13:20Z","Metadata":{"key":"value"},"Status":"pinned"}"#
        );
    }
}
