//! What the journal has of a pin that waits to be made, as JSON.

use bytes::Bytes;
use cairn_store::cid;
use cairn_store::notes::About;
use cairn_store::pin::{Expiry, Metadata, NoteChange, PinMode, PinWish};
use serde::{Deserialize, Serialize};

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) wish: PinWish,
    pub(super) priority: i32,
    /// Its place among those of the same priority.
    pub(super) number: u64,
    /// Why it was given up.
    pub(super) failed: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u8,
    cid: String,
    recursive: bool,
    priority: i32,
    number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

impl Job {
    pub(super) fn write(&self) -> Bytes {
        let wish = &self.wish;
        let written = Written {
            version: VERSION,
            cid: wish.cid.to_string(),
            recursive: wish.mode == PinMode::Recursive,
            priority: self.priority,
            number: self.number,
            name: wish.name.clone(),
            metadata: wish.metadata.clone(),
            expires: match wish.expiry {
                Expiry::At(at) => Some(at),
                Expiry::Never | Expiry::AsItWas => None,
            },
            max_bytes: wish.max_bytes,
            failed: self.failed.as_deref().map(cut),
        };
        // Texts and numbers always are.
        serde_json::to_vec(&written).unwrap_or_default().into()
    }

    pub(super) fn read(note: &[u8]) -> Option<Self> {
        let written: Written = serde_json::from_slice(note).ok()?;
        (written.version == VERSION).then_some(())?;
        let mode = match written.recursive {
            true => PinMode::Recursive,
            false => PinMode::Direct,
        };
        let wish = PinWish {
            name: written.name,
            metadata: written.metadata,
            expiry: written.expires.map_or(Expiry::Never, Expiry::At),
            max_bytes: written.max_bytes,
            ..PinWish::new(cid::parse(&written.cid).ok()?, mode)
        };
        Some(Self {
            wish,
            priority: written.priority,
            number: written.number,
            failed: written.failed,
        })
    }

    /// What becomes of its note when it is done.
    pub(super) fn is_over(&self) -> NoteChange {
        NoteChange {
            about: About::PinJob,
            key: self.wish.key(),
            value: None,
        }
    }

    /// Whether what was fetched for one is what the other needs.
    pub(super) fn needs_the_same(&self, other: &Self) -> bool {
        let needs = |job: &Self| (job.wish.mode, job.wish.max_bytes);
        needs(self) == needs(other)
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(REASON_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

const VERSION: u8 = 1;
/// Longest reason that is kept: it may be a stranger's words.
const REASON_BYTES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_reads_back() {
        let cid =
            cid::parse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy").unwrap();
        let plain = Job {
            wish: PinWish::new(cid, PinMode::Direct),
            priority: -3,
            number: 7,
            failed: None,
        };
        let full = Job {
            wish: PinWish {
                metadata: Metadata::from([("key".to_owned(), "value".to_owned())]),
                expiry: Expiry::At(1_800_000_000),
                max_bytes: Some(1 << 40),
                ..PinWish::new(cid, PinMode::Recursive).named(Some("name".to_owned()))
            },
            failed: Some("denied".to_owned()),
            ..plain.clone()
        };
        for job in [plain.clone(), full] {
            assert_eq!(Job::read(&job.write()), Some(job));
        }
        let long = Job {
            failed: Some("é".repeat(REASON_BYTES_MAX)),
            ..plain
        };
        let read = Job::read(&long.write()).unwrap();
        assert_eq!(read.failed.unwrap().len(), REASON_BYTES_MAX);
        for wrong in ["", "{}", "{\"version\":2}", "[]"] {
            assert_eq!(Job::read(wrong.as_bytes()), None);
        }
    }
}
