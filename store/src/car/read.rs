//! A CAR as it comes in: every section bounded before it is read, verified by whoever takes it.
use crate::cid::Cid;
use bytes::Bytes;
use std::io::Read;

/// Why a CAR is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarError {
    /// The input failed.
    #[error("cannot read the CAR: {0}")]
    Read(#[from] std::io::Error),
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
    _input: R,
}
impl<R: Read> CarReader<R> {
    /// Reads the header.
    pub fn new(_input: R) -> Result<Self, CarError> {
        todo!()
    }
    /// The header's roots.
    pub fn roots(&self) -> &[Cid] {
        todo!()
    }
}
impl<R: Read> Iterator for CarReader<R> {
    type Item = Result<(Cid, Bytes), CarError>;
    fn next(&mut self) -> Option<Self::Item> {
        todo!()
    }
}
