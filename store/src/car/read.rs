//! A CAR as it comes in: every section bounded before it is read, verified by whoever takes it.
//!
//! [`CarReader`] gives what the sections claim; [`for_each_batch`] gives blocks that are what they
//! claim, hashed many at a time.

use crate::block::{BLOCK_BYTES_MAX, Block, BlockError};
use crate::cid::{self, CID_BYTES_MAX, Cid};
use crate::dag::cbor;
use crate::dag::value::Value;
use crate::hash;
use bytes::Bytes;
use std::io::{self, BufReader, Read, Take};

/// Why a CAR is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarError {
    /// The input failed.
    #[error("cannot read the CAR: {0}")]
    Read(#[from] io::Error),
    /// Cut short.
    #[error("the CAR ends in the middle of a section, at byte {at}")]
    CutShort {
        /// Where the section began.
        at: u64,
    },
    /// Not a CAR, or a damaged one.
    #[error("not a valid CAR, at byte {at}: {why}")]
    Malformed {
        /// Where.
        at: u64,
        /// What is wrong.
        why: String,
    },
}

/// Sections of a CARv1, or of the CARv1 inside a CARv2.
#[derive(Debug)]
pub struct CarReader<R> {
    /// Ends where the CARv1 ends, if that is known.
    input: Take<BufReader<R>>,
    /// Bytes read.
    at: u64,
    roots: Vec<Cid>,
    /// Where a CARv1 inside a CARv2 must end.
    end: Option<u64>,
    is_done: bool,
}

impl<R: Read> CarReader<R> {
    /// Reads the header.
    pub fn new(input: R) -> Result<Self, CarError> {
        let input = BufReader::with_capacity(BUFFER_BYTES, input).take(u64::MAX);
        let mut car = Self {
            input,
            at: 0,
            roots: Vec::new(),
            end: None,
            is_done: false,
        };
        let (mut header, mut at) = car.header()?;
        if header.version == 2 {
            car.enter_v2()?;
            (header, at) = car.header()?;
        }
        if header.version != 1 {
            return Err(CarError::Malformed {
                at,
                why: format!("version {} is unknown", header.version),
            });
        }
        car.roots = header.roots;
        Ok(car)
    }

    /// The header's roots.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// How many bytes were read so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    fn header(&mut self) -> Result<(Header, u64), CarError> {
        let at = self.at;
        let cut = || CarError::CutShort { at };
        let length = self.length()?.ok_or_else(cut)?;
        if length == 0 || length > HEADER_BYTES_MAX {
            let why = format!("a header of {length} bytes");
            return Err(CarError::Malformed { at, why });
        }
        let bytes = self.exactly(length, at)?;
        let header = Header::read(&bytes).map_err(|why| CarError::Malformed { at, why })?;
        Ok((header, at))
    }

    /// Reads a CARv2's own header and goes to the CARv1 in it.
    fn enter_v2(&mut self) -> Result<(), CarError> {
        let at = self.at;
        let bytes = self.exactly(V2_HEADER_BYTES, at)?;
        let number = |place: usize| {
            let bytes = bytes.get(place..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let (offset, size) = (number(16), number(24));
        let skip = offset.checked_sub(self.at);
        let (Some(skip), Some(end)) = (skip, offset.checked_add(size)) else {
            let why = format!("its data cannot lie at {offset} with {size} bytes");
            return Err(CarError::Malformed { at, why });
        };
        let skipped = io::copy(&mut self.input.by_ref().take(skip), &mut io::sink())?;
        self.at += skipped;
        if skipped < skip {
            return Err(CarError::CutShort { at });
        }
        self.input.set_limit(size);
        self.end = Some(end);
        Ok(())
    }

    fn section(&mut self) -> Result<Option<(Cid, Bytes)>, CarError> {
        let at = self.at;
        let Some(length) = self.length()? else {
            // The CARv1 in a CARv2 says how long it is.
            return match self.end {
                Some(end) if self.at < end => Err(CarError::CutShort { at }),
                _ => Ok(None),
            };
        };
        let malformed = |why| CarError::Malformed { at, why };
        if length > SECTION_BYTES_MAX {
            return Err(malformed(format!("a section of {length} bytes")));
        }
        let bytes = self.exactly(length, at)?;
        let mut rest = &bytes[..];
        let cid = cid::read(&mut rest)
            .map_err(|error| malformed(format!("a section without a CID: {error}")))?;
        let data = bytes.slice(bytes.len() - rest.len()..);
        Ok(Some((cid, data)))
    }

    /// A length, in its shortest form; `None` at the end of the input.
    fn length(&mut self) -> Result<Option<u64>, CarError> {
        let at = self.at;
        let mut value = 0_u64;
        for place in 0..LENGTH_BYTES_MAX {
            let Some(byte) = self.byte()? else {
                return match place {
                    0 => Ok(None),
                    _ => Err(CarError::CutShort { at }),
                };
            };
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                if byte == 0 && place > 0 {
                    let why = "a length in a longer form than it needs".to_owned();
                    return Err(CarError::Malformed { at, why });
                }
                return Ok(Some(value));
            }
        }
        let why = "a length beyond everything".to_owned();
        Err(CarError::Malformed { at, why })
    }

    fn byte(&mut self) -> Result<Option<u8>, CarError> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => {
                    self.at += 1;
                    return Ok(Some(byte[0]));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next `length` bytes, which must have been compared with a limit.
    fn exactly(&mut self, length: u64, begin: u64) -> Result<Bytes, CarError> {
        let length_in_memory = usize::try_from(length).unwrap_or(0);
        let mut bytes = Vec::with_capacity(length_in_memory.min(UNSEEN_BYTES_MAX));
        let begun = length.min(UNSEEN_BYTES_MAX as u64);
        self.input.by_ref().take(begun).read_to_end(&mut bytes)?;
        if bytes.len() == UNSEEN_BYTES_MAX {
            // Whoever sent so much may be believed for the rest.
            bytes.reserve_exact(length_in_memory - bytes.len());
            self.input
                .by_ref()
                .take(length - begun)
                .read_to_end(&mut bytes)?;
        }
        self.at += bytes.len() as u64;
        if (bytes.len() as u64) < length {
            return Err(CarError::CutShort { at: begin });
        }
        Ok(Bytes::from(bytes))
    }
}

impl<R: Read> Iterator for CarReader<R> {
    type Item = Result<(Cid, Bytes), CarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let section = self.section();
        self.is_done = !matches!(section, Ok(Some(_)));
        section.transpose()
    }
}

struct Header {
    version: i128,
    roots: Vec<Cid>,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let value = cbor::decode_as(bytes, cbor::Form::Lenient)
            .map_err(|why| format!("its header is not dag-cbor: {why}"))?;
        let Some(Value::Integer(version)) = value.child("version") else {
            return Err("its header has no version".to_owned());
        };
        let roots = match value.child("roots") {
            None | Some(Value::Null) if *version == 2 => Vec::new(),
            Some(Value::List(roots)) => roots
                .iter()
                .map(|root| match root {
                    Value::Link(cid) => Ok(**cid),
                    _ => Err("a root that is no CID".to_owned()),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err("its header has no roots".to_owned()),
        };
        Ok(Self {
            version: *version,
            roots,
        })
    }
}

/// Why taking in a CAR stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError<E> {
    /// The CAR is refused.
    #[error(transparent)]
    Car(#[from] CarError),
    /// A block is not what its section says.
    #[error("block {cid} in the CAR: {source}")]
    Block {
        /// What its section says.
        cid: Cid,
        /// What is wrong.
        source: Box<BlockError>,
    },
    /// Whoever takes the blocks failed.
    #[error("{0}")]
    Taker(E),
}

/// Verifies the blocks of a CAR in batches of bounded size, in order. Ends at the first that is
/// not what its section says; those of earlier batches have been taken by then.
pub fn for_each_batch<R: Read, E>(
    car: &mut CarReader<R>,
    mut take: impl FnMut(Vec<Block>) -> Result<(), E>,
) -> Result<(), TakeError<E>> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    loop {
        let section = car.next().transpose()?;
        let at_end = section.is_none();
        if let Some((cid, data)) = section {
            bytes += data.len() + CID_BYTES_MAX;
            batch.push((cid, data));
        }
        let full = bytes >= BATCH_BYTES_MAX || batch.len() >= BATCH_BLOCKS_MAX;
        if (full || at_end) && !batch.is_empty() {
            bytes = 0;
            take(verify(std::mem::take(&mut batch))?).map_err(TakeError::Taker)?;
        }
        if at_end {
            return Ok(());
        }
    }
}

fn verify<E>(batch: Vec<(Cid, Bytes)>) -> Result<Vec<Block>, TakeError<E>> {
    let cids: Vec<Cid> = batch.iter().map(|(cid, _)| *cid).collect();
    Block::verify_many(batch)
        .into_iter()
        .zip(cids)
        .map(|(block, cid)| {
            block.map_err(|source| TakeError::Block {
                cid,
                source: source.into(),
            })
        })
        .collect()
}

/// Longest header.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Longest section: a block and its CID.
const SECTION_BYTES_MAX: u64 = (BLOCK_BYTES_MAX + CID_BYTES_MAX) as u64;
/// Most bytes of a length that any limit allows.
const LENGTH_BYTES_MAX: u32 = 9;
/// A CARv2's own header, after its first section.
const V2_HEADER_BYTES: u64 = 40;
/// What is read at once.
const BUFFER_BYTES: usize = 128 << 10;
/// What is made room for before any of it is there.
const UNSEEN_BYTES_MAX: usize = 32 << 10;
/// Bytes verified together.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Blocks verified together.
const BATCH_BLOCKS_MAX: usize = 64 * hash::BATCH;

#[cfg(test)]
mod tests;
