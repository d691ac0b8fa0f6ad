//! Logs of LevelDB: records in pieces that never cross 32 KiB, each piece with a checksum.

use super::{Fault, LOG_BYTES_MAX, PIECE_BYTES_MAX, ReadAt, Wanted, counted, masked};
use std::ops::Range;

/// Reads a log from its beginning to its end.
pub(super) struct Journal<'a> {
    file: &'a dyn ReadAt,
    /// Up to where it is read.
    end: u64,
    /// Where the block ends in the file.
    at: u64,
    block: Vec<u8>,
    /// How much of the block is read.
    read: usize,
    /// The pieces so far of the record that is being read.
    record: Vec<u8>,
    /// Told before the next record.
    told: Option<String>,
    /// Whether pieces that follow belong to a record whose beginning was damaged.
    is_lost: bool,
}

/// What of a record a piece is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Whole,
    First,
    Middle,
    Last,
}

impl Piece {
    fn begins(self) -> bool {
        matches!(self, Self::Whole | Self::First)
    }

    fn ends(self) -> bool {
        matches!(self, Self::Whole | Self::Last)
    }
}

impl<'a> Journal<'a> {
    pub(super) fn over(file: &'a dyn ReadAt) -> Self {
        let bytes = file.bytes().unwrap_or(0);
        let too_long =
            || format!("it has more than {LOG_BYTES_MAX} bytes, and only so many are read");
        Self {
            file,
            end: bytes.min(LOG_BYTES_MAX),
            at: 0,
            block: Vec::new(),
            read: 0,
            record: Vec::new(),
            told: (bytes > LOG_BYTES_MAX).then(too_long),
            is_lost: false,
        }
    }

    /// The next record, or what is wrong with the next bytes; after that it goes on with the next block.
    pub(super) fn next(&mut self) -> Option<Result<&[u8], String>> {
        if let Some(told) = self.told.take() {
            return Some(Err(told));
        }
        self.record.clear();
        let mut is_inside = false;
        loop {
            if self.block.len() - self.read < HEADER_BYTES && !self.refill() {
                return None;
            }
            let begin = self.at - (self.block.len() - self.read) as u64;
            let piece = match self.piece() {
                Ok(Some(piece)) => piece,
                Ok(None) => continue,
                Err(why) => {
                    self.is_lost = true;
                    return Some(Err(format!("{why}, at byte {begin}")));
                }
            };
            let (kind, data) = piece;
            let data = self.block.get(data).unwrap_or_default();
            if kind.begins() && is_inside {
                self.told = Some(format!("a record without an end before byte {begin}"));
                self.record.clear();
            } else if !kind.begins() && !is_inside {
                // Its beginning may be what was just told.
                if !std::mem::replace(&mut self.is_lost, true) {
                    return Some(Err(format!(
                        "a record without a beginning, at byte {begin}"
                    )));
                }
                continue;
            }
            self.is_lost = false;
            if self.record.len() + data.len() > PIECE_BYTES_MAX {
                self.is_lost = true;
                return Some(Err(format!("a record that is too long, at byte {begin}")));
            }
            self.record.extend_from_slice(data);
            if kind.ends() {
                return Some(Ok(&self.record));
            }
            is_inside = true;
        }
    }

    /// The next piece of the block and where it lies in it; `None` if no more is in it.
    fn piece(&mut self) -> Result<Option<(Piece, Range<usize>)>, String> {
        let from = self.read + HEADER_BYTES;
        let is_last = self.block.len() < BLOCK_BYTES;
        let rest = self.block.get(self.read..).unwrap_or_default();
        // Unless it turns out to be whole, nothing more of this block is read.
        self.read = self.block.len();
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [c0, c1, c2, c3, l0, l1, kind] = *header;
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        if kind == 0 && length == 0 {
            // Room that was made for more and not used.
            return Ok(None);
        }
        let Some(data) = rest.get(..length) else {
            // Where writing was cut off there is nothing wrong.
            return match is_last {
                true => Ok(None),
                false => Err("a record that is longer than its block".to_owned()),
            };
        };
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), data);
        if masked(checksum) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err("bytes with another checksum".to_owned());
        }
        let kind = match kind {
            1 => Piece::Whole,
            2 => Piece::First,
            3 => Piece::Middle,
            4 => Piece::Last,
            other => return Err(format!("a record of the unknown kind {other}")),
        };
        self.read = from + length;
        Ok(Some((kind, from..from + length)))
    }

    /// Reads the next block; false at the end.
    fn refill(&mut self) -> bool {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.block.resize(left.min(BLOCK_BYTES), 0);
        self.read = 0;
        if self.file.read_at(self.at, &mut self.block).is_err() {
            // Told as the damage that it is.
            self.block.fill(0xff);
        }
        self.at += self.block.len() as u64;
        !self.block.is_empty()
    }
}

/// Takes what a record of a log says: a number, how many entries, and these, of which each has the next number.
pub(super) fn batch(record: &[u8], wanted: &mut Wanted<'_>) -> Result<(), Fault> {
    let cut = || Fault::Damage("a batch that is cut short".to_owned());
    let (number, rest) = record.split_first_chunk().ok_or_else(cut)?;
    let (count, mut rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let (mut number, count) = (u64::from_le_bytes(*number), u32::from_le_bytes(*count));
    for _ in 0..count {
        let (kind, after) = rest.split_first().ok_or_else(cut)?;
        rest = after;
        let key = counted(&mut rest).ok_or_else(cut)?;
        let value = match kind {
            0 => None,
            1 => Some(counted(&mut rest).ok_or_else(cut)?),
            other => {
                return Err(Fault::Damage(format!(
                    "an entry of the unknown kind {other}"
                )));
            }
        };
        wanted.take(key, number, value)?;
        number = number.wrapping_add(1);
    }
    Ok(())
}

/// Checksum, length and kind of a piece.
const HEADER_BYTES: usize = 7;
/// A piece never crosses the end of one of these.
const BLOCK_BYTES: usize = 32 << 10;
