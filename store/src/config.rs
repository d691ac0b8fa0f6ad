//! What an operator may choose about storage, with defaults, units and prices.

use serde::de::{self, Deserializer, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The `[storage]` section of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What an acknowledgement promises. `full` (default): the data survives a power cut. `relaxed`:
    /// it survives the death of the program; a power cut may take the last seconds.
    pub durability: Durability,
    /// Length at which a segment of the log is sealed and the next one begun. Smaller segments give
    /// space back sooner and cost more open files. A file has [`SEGMENT_SIZE_MIN`] at least.
    #[serde(deserialize_with = "segment_size")]
    pub segment_size: ByteSize,
    /// Free space on the disk below which no block is written any more. `auto` (default): 1 GiB or 2 %
    /// of the disk, whichever is more.
    pub reserve: Reserve,
    /// Most space for blocks that peers sent and nobody asked to keep. Beyond it they are evicted,
    /// roughly those first that were not read for longest. Pinned, added and imported blocks do not count.
    pub cache_max: ByteSize,
    /// Which share of its time one disk may be read to re-hash what is stored, in percent; 0 never
    /// re-hashes by itself.
    pub scrub_share: Percent,
    /// What `repo stat` tells as the largest wanted size of the repository.
    pub max: ByteSize,
    /// Memory for the index's own cache, in addition to what the operating system caches; 1 MiB at least.
    pub index_cache: ByteSize,
    /// Memory for blocks up to 128 KiB that are read again and again, taken as they are read; 0 keeps none there.
    pub hot_blocks: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            segment_size: ByteSize(1 << 30),
            reserve: Reserve::Auto,
            cache_max: ByteSize(10_000_000_000),
            scrub_share: Percent(2),
            max: ByteSize(10_000_000_000),
            index_cache: ByteSize(32 << 20),
            hot_blocks: ByteSize(128 << 20),
        }
    }
}

impl Config {
    /// Length at which a segment of the cache is sealed: what is evicted goes file by file, so that
    /// several fit into the limit.
    pub(crate) fn cache_segment_size(&self) -> u64 {
        let share = self.cache_max.0 / CACHE_SEGMENTS;
        share.clamp(
            CACHE_SEGMENT_MIN.min(self.segment_size.0),
            self.segment_size.0,
        )
    }
}

fn segment_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    if size < SEGMENT_SIZE_MIN {
        return Err(de::Error::custom(format!(
            "a segment has {SEGMENT_SIZE_MIN} at least, not {size}"
        )));
    }
    Ok(size)
}

/// How much of the disk stays free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ByteText", into = "String")]
pub enum Reserve {
    /// As much as the size of the disk calls for.
    Auto,
    /// So much.
    Bytes(ByteSize),
}

impl FromStr for Reserve {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        match text.trim() {
            AUTO => Ok(Self::Auto),
            bytes => bytes.parse().map(Self::Bytes),
        }
    }
}

impl TryFrom<ByteText> for Reserve {
    type Error = ByteSizeError;

    fn try_from(text: ByteText) -> Result<Self, ByteSizeError> {
        match text {
            ByteText::Number(bytes) => Ok(Self::Bytes(ByteSize(bytes))),
            ByteText::Text(text) => text.parse(),
        }
    }
}

impl From<Reserve> for String {
    fn from(reserve: Reserve) -> Self {
        match reserve {
            Reserve::Auto => AUTO.to_owned(),
            Reserve::Bytes(bytes) => bytes.into(),
        }
    }
}

/// A share in whole percent, 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(pub u8);

impl TryFrom<u8> for Percent {
    type Error = PercentError;

    fn try_from(share: u8) -> Result<Self, PercentError> {
        if share <= 100 {
            Ok(Self(share))
        } else {
            Err(PercentError(share))
        }
    }
}

impl From<Percent> for u8 {
    fn from(share: Percent) -> Self {
        share.0
    }
}

/// Why a number is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no share; write a whole number from 0 to 100")]
pub struct PercentError(u8);

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Acknowledged data survives a power cut.
    Full,
    /// Acknowledged data survives the death of the program.
    Relaxed,
}

/// A number of bytes; in text `4096`, `64KiB`, `10GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "ByteText", into = "String")]
pub struct ByteSize(pub u64);

/// Why a text is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of bytes; write it like 4096, 64KiB or 10GB")]
pub struct ByteSizeError(String);

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let wrong = || ByteSizeError(text.to_owned());
        let trimmed = text.trim();
        let split = trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(split);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim();
        let (_, factor) = UNITS
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(wrong)?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .filter(|(name, _)| name.len() > 1)
            .filter(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor))
            .max_by_key(|(_, factor)| *factor)
            .unwrap_or(("", 1));
        write!(out, "{}{unit}", self.0 / factor)
    }
}

/// How a size may stand in a file: a number or a text.
enum ByteText {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for ByteText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteTextVisitor)
    }
}

/// Says what a size looks like when it is none.
struct ByteTextVisitor;

impl Visitor<'_> for ByteTextVisitor {
    type Value = ByteText;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a number of bytes, like 4096, \"64KiB\" or \"10GB\"")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteText, E> {
        Ok(ByteText::Number(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteText, E> {
        let wrong = |_| E::invalid_value(Unexpected::Signed(bytes), &self);
        u64::try_from(bytes).map(ByteText::Number).map_err(wrong)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteText, E> {
        Ok(ByteText::Text(text.to_owned()))
    }
}

impl TryFrom<ByteText> for ByteSize {
    type Error = ByteSizeError;

    fn try_from(text: ByteText) -> Result<Self, ByteSizeError> {
        match text {
            ByteText::Number(bytes) => Ok(Self(bytes)),
            ByteText::Text(text) => text.parse(),
        }
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

/// Least length of a segment that a file may ask for: with less nearly every block gets a file of its own.
pub const SEGMENT_SIZE_MIN: ByteSize = ByteSize(4 << 10);
/// In the place of a size: whatever fits the disk.
const AUTO: &str = "auto";
/// Segments that the cache's limit is worth, as long as they are not tiny.
const CACHE_SEGMENTS: u64 = 16;
const CACHE_SEGMENT_MIN: u64 = 1 << 20;

const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("B", 1),
    ("K", 1000),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("M", 1_000_000),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("G", 1_000_000_000),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_written() {
        for text in ["0", "1", "999", "64KiB", "10GB", "1GiB", "3TB", "2MiB"] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("10 gb".parse::<ByteSize>().unwrap().0, 10_000_000_000);
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "GB", "-1", "1.5GB", "10 potatoes", "99999999PiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_segment_of_next_to_nothing_is_refused() {
        use serde::de::value::{Error, MapDeserializer};
        let read = |size: u64| {
            let fields = MapDeserializer::<_, Error>::new([("segment_size", size)].into_iter());
            Config::deserialize(fields).map(|config| config.segment_size)
        };
        for size in [0, 1, SEGMENT_SIZE_MIN.0 - 1] {
            let error = read(size).unwrap_err().to_string();
            assert!(error.contains("4KiB at least"), "{error}");
        }
        assert_eq!(read(SEGMENT_SIZE_MIN.0), Ok(SEGMENT_SIZE_MIN));
    }

    #[test]
    fn what_is_no_size_in_a_file_is_told_with_what_one_looks_like() {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, F64Deserializer, I64Deserializer, StrDeserializer};
        let number: I64Deserializer<Error> = 5_i64.into_deserializer();
        assert_eq!(ByteSize::deserialize(number), Ok(ByteSize(5)));
        let text: StrDeserializer<'_, Error> = "5KiB".into_deserializer();
        assert_eq!(ByteSize::deserialize(text), Ok(ByteSize(5 << 10)));
        let negative: I64Deserializer<Error> = (-1_i64).into_deserializer();
        let negative = Reserve::deserialize(negative).unwrap_err();
        let fraction: F64Deserializer<Error> = 1.5_f64.into_deserializer();
        let fraction = ByteSize::deserialize(fraction).unwrap_err();
        for error in [negative, fraction] {
            assert!(error.to_string().contains("like 4096"), "{error}");
        }
    }
}
