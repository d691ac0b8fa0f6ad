//! Tables of LevelDB: sorted entries in blocks, and an index of these.

use super::{Fault, PIECE_BYTES_MAX, ReadAt, Wanted, masked, take, varint};

/// A table whose index is read.
pub(super) struct Table<'a> {
    file: &'a dyn ReadAt,
    /// Of each block its last key, or one behind that, and where it lies.
    index: Vec<u8>,
}

/// Where a block lies.
#[derive(Debug, Clone, Copy)]
struct Handle {
    offset: u64,
    bytes: u64,
}

impl Handle {
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            offset: varint(bytes)?,
            bytes: varint(bytes)?,
        })
    }
}

impl<'a> Table<'a> {
    pub(super) fn open(file: &'a dyn ReadAt) -> Result<Self, Fault> {
        let damage = |why: &str| Fault::Damage(why.to_owned());
        let unreadable = |error| Fault::Damage(format!("it cannot be read: {error}"));
        let end = file.bytes().map_err(unreadable)?;
        let at = end.checked_sub(FOOTER_BYTES as u64);
        let at = at.ok_or_else(|| damage("it is shorter than any table"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(at, &mut footer).map_err(unreadable)?;
        let (mut handles, magic) = footer.split_at(FOOTER_BYTES - MAGIC.len());
        if magic != MAGIC {
            return Err(damage("its end is not that of a table"));
        }
        // First the block about other blocks, which says nothing that is needed.
        let handle = Handle::read(&mut handles).and_then(|_| Handle::read(&mut handles));
        let handle = handle.ok_or_else(|| damage("its end is damaged"))?;
        let index =
            block(file, handle).map_err(|why| Fault::Damage(format!("its index: {why}")))?;
        Ok(Self { file, index })
    }

    /// Hands over every entry that may be wanted. Blocks that cannot be read are told and left out.
    pub(super) fn each(
        &self,
        wanted: &mut Wanted<'_>,
        name: &str,
        damage: &mut dyn FnMut(String),
    ) -> Result<(), Fault> {
        let mut index = Entries::of(&self.index).map_err(Fault::Damage)?;
        let mut before: Option<Vec<u8>> = None;
        // Blocks lie one behind the other, so none is read more often than there is room for it.
        let mut end = 0;
        let in_index = |why| Fault::Damage(format!("its index: {why}"));
        while let Some((key, mut value)) = index.next().map_err(in_index)? {
            let last = user_key(key).unwrap_or_default();
            if wanted.may_want(before.as_deref(), last) {
                let handle = Handle::read(&mut value)
                    .ok_or_else(|| in_index("it does not say where a block is".to_owned()))?;
                if handle.offset < end {
                    return Err(in_index("blocks lie in each other".to_owned()));
                }
                end = handle.offset.saturating_add(handle.bytes);
                match self.block_into(handle, wanted) {
                    Ok(()) => {}
                    Err(Fault::Damage(why)) => {
                        damage(format!("{name}, byte {}: {why}", handle.offset));
                    }
                    Err(Fault::TooMuch) => return Err(Fault::TooMuch),
                }
            }
            before = Some(last.to_vec());
        }
        Ok(())
    }

    fn block_into(&self, handle: Handle, wanted: &mut Wanted<'_>) -> Result<(), Fault> {
        let bytes = block(self.file, handle).map_err(Fault::Damage)?;
        let mut entries = Entries::of(&bytes).map_err(Fault::Damage)?;
        while let Some((key, value)) = entries.next().map_err(Fault::Damage)? {
            let (key, tail) = key
                .split_last_chunk()
                .ok_or_else(|| Fault::Damage("a key without a number".to_owned()))?;
            let tail = u64::from_le_bytes(*tail);
            let value = match tail & 0xff {
                0 => None,
                1 => Some(value),
                other => {
                    return Err(Fault::Damage(format!(
                        "an entry of the unknown kind {other}"
                    )));
                }
            };
            wanted.take(key, tail >> 8, value)?;
        }
        Ok(())
    }
}

fn user_key(key: &[u8]) -> Option<&[u8]> {
    key.split_last_chunk::<8>().map(|(key, _)| key)
}

/// A block's bytes, checked and unpacked.
fn block(file: &dyn ReadAt, handle: Handle) -> Result<Vec<u8>, String> {
    let end = file.bytes().map_err(|error| error.to_string())?;
    let length = usize::try_from(handle.bytes).unwrap_or(usize::MAX);
    let fits = handle
        .offset
        .checked_add(handle.bytes)
        .and_then(|to| to.checked_add(TRAILER_BYTES as u64));
    if length > PIECE_BYTES_MAX || fits.is_none_or(|to| to > end) {
        return Err("a block that is longer than the file, or than any block".to_owned());
    }
    let mut bytes = vec![0; length + TRAILER_BYTES];
    file.read_at(handle.offset, &mut bytes)
        .map_err(|error| error.to_string())?;
    let trailer = bytes.split_off(length);
    let Ok([packing, c0, c1, c2, c3]) = <[u8; TRAILER_BYTES]>::try_from(trailer) else {
        return Err("it is cut short".to_owned());
    };
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &[packing]);
    if masked(checksum) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err("bytes with another checksum".to_owned());
    }
    match packing {
        0 => Ok(bytes),
        1 => {
            let unpacked = snap::raw::decompress_len(&bytes).map_err(|error| error.to_string())?;
            if unpacked > PIECE_BYTES_MAX || unpacked / UNPACKED_PER_BYTE_MAX > bytes.len() {
                return Err("a block that is longer than any unpacked".to_owned());
            }
            let mut decoder = snap::raw::Decoder::new();
            decoder
                .decompress_vec(&bytes)
                .map_err(|error| error.to_string())
        }
        other => Err(format!("it is packed in an unknown way, {other}")),
    }
}

type KeyAndValue<'k, 'v> = (&'k [u8], &'v [u8]);

/// The entries of a block, each with the whole of its key.
struct Entries<'a> {
    rest: &'a [u8],
    key: Vec<u8>,
}

impl<'a> Entries<'a> {
    fn of(block: &'a [u8]) -> Result<Self, String> {
        let (rest, count) = block.split_last_chunk().ok_or("a block without an end")?;
        let restarts = u64::from(u32::from_le_bytes(*count)) * 4;
        let length = usize::try_from(restarts).ok();
        let entries = length.and_then(|length| rest.len().checked_sub(length));
        let rest = entries.and_then(|length| rest.get(..length));
        Ok(Self {
            rest: rest.ok_or("a block without an end")?,
            key: Vec::new(),
        })
    }

    fn next(&mut self) -> Result<Option<KeyAndValue<'_, 'a>>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let value = self.step().ok_or("an entry that is cut short")?;
        Ok(Some((&self.key, value)))
    }

    fn step(&mut self) -> Option<&'a [u8]> {
        let shared = usize::try_from(varint(&mut self.rest)?).ok()?;
        let (own, value) = (varint(&mut self.rest)?, varint(&mut self.rest)?);
        if shared > self.key.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(take(&mut self.rest, own)?);
        take(&mut self.rest, value)
    }
}

/// What two bytes of Snappy stand for at most is 64.
const UNPACKED_PER_BYTE_MAX: usize = 32;
/// Two handles of at most twenty bytes each, and the mark of a table.
const FOOTER_BYTES: usize = 48;
const MAGIC: [u8; 8] = [0x57, 0xfb, 0x80, 0x8b, 0x24, 0x75, 0x47, 0xdb];
/// How a block is packed, and its checksum.
const TRAILER_BYTES: usize = 5;
