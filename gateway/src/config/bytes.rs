//! A limit on bytes, or none: `"64GiB"`, `4096`, `"unlimited"`.

use cairn_store::config::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Most bytes of something, if there is a limit. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BytesMax(Option<NonZeroU64>);

/// Why a text is no limit on bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no limit on bytes; write a number from 1 up like 4096 or \"64GiB\", or \"unlimited\" for none"
)]
pub struct NoBytes(String);

impl BytesMax {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);

    /// So many bytes; not 0, which nothing would fit in.
    pub fn new(bytes: u64) -> Result<Self, NoBytes> {
        let bytes = NonZeroU64::new(bytes).ok_or_else(|| NoBytes("0".to_owned()))?;
        Ok(Self(Some(bytes)))
    }

    /// The bytes, if there is a limit.
    pub fn bytes(self) -> Option<u64> {
        self.0.map(NonZeroU64::get)
    }
}

impl FromStr for BytesMax {
    type Err = NoBytes;

    fn from_str(text: &str) -> Result<Self, NoBytes> {
        if text.trim() == UNLIMITED {
            return Ok(Self::UNLIMITED);
        }
        let wrong = || NoBytes(text.chars().take(TEXT_SHOWN).collect());
        let size: ByteSize = text.parse().map_err(|_| wrong())?;
        Self::new(size.0).map_err(|_| wrong())
    }
}

impl fmt::Display for BytesMax {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes() {
            None => out.write_str(UNLIMITED),
            Some(bytes) => ByteSize(bytes).fmt(out),
        }
    }
}

impl Serialize for BytesMax {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BytesMax {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl de::Visitor<'_> for Written {
            type Value = BytesMax;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a number of bytes like 4096 or \"64GiB\", or \"unlimited\"")
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<BytesMax, E> {
                BytesMax::new(bytes).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<BytesMax, E> {
                let wrong = |_| NoBytes(bytes.to_string());
                let bytes = u64::try_from(bytes).map_err(wrong);
                bytes.and_then(BytesMax::new).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BytesMax, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Written)
    }
}

/// The word for no limit.
const UNLIMITED: &str = "unlimited";
/// How much of a wrong text an error repeats.
const TEXT_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_back_as_they_were_meant() {
        for (text, bytes) in [
            ("unlimited", None),
            ("1", Some(1)),
            ("64KiB", Some(64 << 10)),
            ("2 GB", Some(2_000_000_000)),
        ] {
            let most: BytesMax = text.parse().unwrap();
            assert_eq!(most.bytes(), bytes, "{text}");
            assert_eq!(most.to_string().parse(), Ok(most), "{text}");
        }
    }
}
