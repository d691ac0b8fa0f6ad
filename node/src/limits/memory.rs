//! How much memory this process may have before it takes no more peers: `limits.memory`.

use cairn_store::config::ByteSize;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bytes of memory, or as many as there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Memory(Option<u64>);

impl Memory {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);

    /// So many bytes.
    pub fn new(bytes: u64) -> Result<Self, MemoryError> {
        match bytes {
            few if few < MEMORY_MIN => Err(MemoryError(few.to_string())),
            bytes => Ok(Self(Some(bytes))),
        }
    }

    /// The bytes, if there is a limit.
    pub const fn bytes(self) -> Option<u64> {
        self.0
    }
}

/// Why a text is no limit of memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no limit of memory; write bytes like 2GB, at least 16MiB, or \"unlimited\" for none"
)]
pub struct MemoryError(String);

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => out.write_str(super::UNLIMITED),
            Some(bytes) => ByteSize(bytes).fmt(out),
        }
    }
}

impl FromStr for Memory {
    type Err = MemoryError;

    fn from_str(text: &str) -> Result<Self, MemoryError> {
        if text.trim() == super::UNLIMITED {
            return Ok(Self::UNLIMITED);
        }
        let size: ByteSize = text.parse().map_err(|_| MemoryError(text.to_owned()))?;
        Self::new(size.0).map_err(|_| MemoryError(text.to_owned()))
    }
}

impl From<Memory> for String {
    fn from(memory: Memory) -> Self {
        memory.to_string()
    }
}

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::number_or_text(deserializer, Self::new)
    }
}

/// Bytes below which a limit is a slip of the pen: the program alone has more, so it would never have a
/// peer.
const MEMORY_MIN: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_back_as_written_and_slips_are_refused() {
        for (text, means) in [
            ("unlimited", None),
            ("16MiB", Some(16 << 20)),
            ("2GB", Some(2_000_000_000)),
        ] {
            let memory: Memory = text.parse().unwrap();
            assert_eq!(memory.bytes(), means, "{text}");
            assert_eq!(memory.to_string().parse(), Ok(memory));
        }
        for text in ["", "much", "-1", "0", "2", "16777215", "50%"] {
            let error = text.parse::<Memory>().unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
