//! What must hold whatever a peer sends: no panic, no more memory than named here, and what was read
//! is written as it was read.

use crate::ceiling::within;
use crate::seeds::Verdict;
use bytes::Bytes;
use cairn_node::fuzzing;

/// A Bitswap message, without its length. What is read is written and read back the same.
pub fn bitswap_message(data: &[u8]) -> Verdict {
    let bytes = Bytes::copy_from_slice(data);
    let lines = within(data.len(), 0, || fuzzing::lines(&bytes));
    let most = FLAT
        + 2 * data.len()
        + GROWTH * (lines * LINE_BYTES + data.len() / BLOCK_BYTES_MIN * BLOCK_BYTES);
    let Some(message) = within(data.len(), most, || fuzzing::decode(&bytes)) else {
        return Verdict::Refused;
    };
    assert!(
        message.lines() <= lines,
        "more lines than room was made for"
    );
    assert!(message.blocks() <= data.len() / BLOCK_BYTES_MIN);
    message.reads_back();
    Verdict::of(message.is_whole())
}

/// A stream of messages that comes in pieces. The input begins with how many sizes of pieces there
/// are, and these.
pub fn framing(data: &[u8]) -> Verdict {
    let Some((count, rest)) = data.split_first() else {
        return Verdict::Refused;
    };
    let (pieces, rest) = rest.split_at(usize::from(*count).min(rest.len()));
    let most = READER_BYTES + FRAME_BYTES * rest.len();
    Verdict::of(within(data.len(), most, || fuzzing::framing(pieces, rest)))
}

/// What may be held whatever the input is.
const FLAT: usize = 64 << 10;
/// How much of a list is held at most while it grows: itself, and twice as much.
const GROWTH: usize = 3;
/// A want or a presence in memory: room for the longest CID, and what is asked of it.
const LINE_BYTES: usize = 192;
/// A block in memory, beside its bytes, and the least that announces one on the wire.
const BLOCK_BYTES: usize = 64;
const BLOCK_BYTES_MIN: usize = 2;
/// A reader and what it waits with: a runtime, queues, the front of a message.
const READER_BYTES: usize = 1 << 20;
/// What may be held for a byte of a stream: what was read of it, twice, once by the plain reader.
const FRAME_BYTES: usize = 2 * GROWTH * (LINE_BYTES / 6 + BLOCK_BYTES / BLOCK_BYTES_MIN);
