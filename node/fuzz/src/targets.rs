//! What must hold whatever a peer sends: no panic, no more memory than named here, and what was read
//! is written as it was read.

use crate::ceiling::within;
use crate::seeds::Verdict;
use bytes::Bytes;
use cairn_node::name::dnslink::{IGNORED_MAX, Links};
use cairn_node::name::domain::Domain;
use cairn_node::name::path::NamePath;
use cairn_node::{PeerId, dht, fuzzing, ipns};

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

/// A DHT message, without its length. What is read is written and read back the same.
pub fn dht_message(data: &[u8]) -> Verdict {
    let most = DHT_LISTS_BYTES + GROWTH * data.len();
    let Ok(message) = within(data.len(), most, || dht::message::Message::decode(data)) else {
        return Verdict::Refused;
    };
    let skipped = message.skipped;
    let again = dht::message::Message::decode(&message.encode());
    let kept = dht::message::Message {
        skipped: 0,
        ..message
    };
    assert_eq!(again, Ok(kept));
    Verdict::of(skipped == 0)
}

/// An IPNS record of a name. The input begins with the length of the name, a byte, and that.
pub fn ipns_record(data: &[u8]) -> Verdict {
    let Some((length, rest)) = data.split_first() else {
        return Verdict::Refused;
    };
    let (name, record) = rest.split_at(usize::from(*length).min(rest.len()));
    let Ok(name) = PeerId::from_bytes(name) else {
        return Verdict::Refused;
    };
    let most = FLAT + CBOR_BYTES * data.len();
    let read = within(data.len(), most, || ipns::Record::decode(&name, record));
    if let Ok(read) = &read {
        assert_eq!(read.bytes(), record, "kept as it came");
        assert!(read.age(read).is_eq());
    }
    Verdict::of(read.is_ok())
}

/// The TXT records of a domain, each with its length before it, a byte. Every link is read back the same. Each is
/// moreover read as a domain and as a label, whose names are read back the same, too.
pub fn dnslink(data: &[u8]) -> Verdict {
    let mut records = Vec::new();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first() {
        let (record, after) = after.split_at(usize::from(*length).min(after.len()));
        records.push(record);
        rest = after;
    }
    let most = FLAT + TEXT_BYTES * data.len();
    let read = within(data.len(), most, || Links::read(records.iter().copied()));
    assert!(read.ignored.len() <= IGNORED_MAX);
    for link in &read.links {
        let again: NamePath = link.to_string().parse().expect("what was read is a path");
        assert_eq!(&again, link);
    }
    for text in records
        .iter()
        .filter_map(|record| str::from_utf8(record).ok())
    {
        let named = within(data.len(), FLAT, || {
            [text.parse::<Domain>(), Domain::from_label(text)]
        });
        for name in named.into_iter().flatten() {
            assert_eq!(name.as_str().parse::<Domain>().as_ref(), Ok(&name));
            if let Some(label) = name.to_label() {
                assert_eq!(Domain::from_label(&label), Ok(name));
            }
        }
    }
    Verdict::of(!read.links.is_empty() && read.ignored.is_empty())
}

/// What a byte of TXT records can become: a record of its own, or half a name of a path.
const TEXT_BYTES: usize = 128;
/// What the lists of a DHT message take at most: 288 peers with 16 addresses each, and how they grow.
const DHT_LISTS_BYTES: usize = 1 << 20;
/// What a byte of dag-cbor can become as a value.
const CBOR_BYTES: usize = 256;
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
