//! The store's own files, as a disk may hand them back. What must hold stands in
//! [`cairn_store::fuzzing`]; here is what it may take.

use crate::ceiling::within;
use crate::seeds::Verdict;
use cairn_store::fuzzing;

/// A segment.
pub fn segment(data: &[u8]) -> Verdict {
    Verdict::of(within(
        data.len(),
        AHEAD_BYTES + COPIES * data.len(),
        || fuzzing::segment(data),
    ))
}

/// The journal.
pub fn journal(data: &[u8]) -> Verdict {
    Verdict::of(within(
        data.len(),
        FLAT + JOURNAL_BYTES * data.len(),
        || fuzzing::journal(data),
    ))
}

/// A bucket of the index.
pub fn bucket(data: &[u8]) -> Verdict {
    Verdict::of(within(data.len(), FLAT + BUCKET_BYTES * data.len(), || {
        fuzzing::bucket(data)
    }))
}

/// What a Kubo repository says in its database.
pub fn kubo(data: &[u8]) -> Verdict {
    Verdict::of(within(data.len(), FLAT + KUBO_BYTES * data.len(), || {
        fuzzing::kubo(data)
    }))
}

/// What may be held whatever the input is.
const FLAT: usize = 64 << 10;
/// What a scan reads ahead, and then some.
const AHEAD_BYTES: usize = (1 << 20) + FLAT;
/// How often the disk in memory holds the bytes, and whoever reads them.
const COPIES: usize = 8;
/// What may be held for a byte of a journal: a length takes two bytes, and more in each of the
/// tables that the journal adds up to, twice.
const JOURNAL_BYTES: usize = 400;
/// What may be held for a byte of a bucket, the model's own maps among it.
const BUCKET_BYTES: usize = 60;
/// What may be held for a byte of a database: three bytes repeat a key of 512 but for its end, and what is packed
/// unpacks to 32 times as much.
const KUBO_BYTES: usize = 8000;
