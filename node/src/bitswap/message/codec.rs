//! Messages on the wire: every version, both ways, without copying a block.
//!
//! [`Message::decode`] takes the bytes of one message and hands out blocks as slices of them.
//! Nothing is allocated by a length that a stranger wrote: lengths are compared with what is there
//! first, and lists end at their limits. What a newer peer may add (fields, hashes, codecs) is
//! skipped; what cannot be protobuf fails the message. [`Message::encode`] gives the pieces to
//! write, blocks being pieces of their own.

use super::{
    Absence, Change, Entry, Lines, MESSAGE_BLOCKS_MAX, MESSAGE_BYTES_MAX, MESSAGE_PRESENCES_MAX,
    MESSAGE_WANTS_MAX, Message, MessageError, Payload, Presence, PresenceKind, Scope, Version,
    WantKind,
};
use crate::protobuf::{
    Fields, Value, bytes_field_len, int32, number_field_len, put_bytes, put_length, put_number,
    put_varint,
};
use bytes::{BufMut, Bytes, BytesMut};
use cairn_store::Cid;
use cairn_store::block::Prefix;
use cairn_store::cid::{self, CID_BYTES_MAX, HashKind, Version as CidVersion};

impl Message {
    /// Reads one message, without its length prefix.
    pub(in crate::bitswap) fn decode(bytes: &Bytes) -> Result<Self, MessageError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLarge(bytes.len() as u64));
        }
        let mut message = Self::default();
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(wantlist)) => message.decode_wantlist(wantlist)?,
                (2, Value::Bytes(data)) => message.take_block(OLD_PREFIX, bytes, data),
                (3, Value::Bytes(block)) => message.decode_block(bytes, block)?,
                (4, Value::Bytes(presence)) => message.decode_presence(presence)?,
                (5, Value::Number(pending)) => message.pending_bytes = int32(pending).max(0),
                _ => {}
            }
        }
        Ok(message)
    }

    /// How many lines there are: each becomes many times the bytes that it came in, so whoever decodes
    /// makes room for them first.
    pub(in crate::bitswap) fn lines(bytes: &[u8]) -> Lines {
        let (mut wants, mut presences) = (0, 0);
        let mut fields = Fields(bytes);
        while let Ok(Some((number, value))) = fields.next() {
            match (number, value) {
                (1, Value::Bytes(wantlist)) => {
                    let mut entries = Fields(wantlist);
                    while let Ok(Some((number, value))) = entries.next() {
                        wants += usize::from(matches!((number, value), (1, Value::Bytes(_))));
                    }
                }
                (4, Value::Bytes(_)) => presences += 1,
                _ => {}
            }
        }
        Lines { wants, presences }
    }

    fn decode_wantlist(&mut self, bytes: &[u8]) -> Result<(), MessageError> {
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(_)) if self.wants.len() >= MESSAGE_WANTS_MAX => self.skipped += 1,
                (1, Value::Bytes(entry)) => self.decode_entry(entry)?,
                (2, Value::Number(full)) => {
                    self.scope = if full == 0 {
                        Scope::Change
                    } else {
                        Scope::Whole
                    };
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn decode_entry(&mut self, bytes: &[u8]) -> Result<(), MessageError> {
        let mut fields = Fields(bytes);
        let mut name: &[u8] = &[];
        let (mut priority, mut cancel) = (0, false);
        let (mut kind, mut absence) = (WantKind::Block, Absence::Silent);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(cid)) => name = cid,
                (2, Value::Number(value)) => priority = int32(value),
                (3, Value::Number(value)) => cancel = value != 0,
                (4, Value::Number(1)) => kind = WantKind::Have,
                (4, Value::Number(_)) => kind = WantKind::Block,
                (5, Value::Number(0)) => absence = Absence::Silent,
                (5, Value::Number(_)) => absence = Absence::Tell,
                _ => {}
            }
        }
        let change = if cancel {
            Change::Cancel
        } else {
            Change::Want {
                priority,
                kind,
                absence,
            }
        };
        match read_cid(name) {
            Some(cid) => self.wants.push(Entry { cid, change }),
            None => self.skipped += 1,
        }
        Ok(())
    }

    fn decode_block(&mut self, whole: &Bytes, bytes: &[u8]) -> Result<(), MessageError> {
        let mut fields = Fields(bytes);
        let (mut prefix, mut data): (&[u8], &[u8]) = (&[], &[]);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(value)) => prefix = value,
                (2, Value::Bytes(value)) => data = value,
                _ => {}
            }
        }
        match read_prefix(prefix) {
            Some(prefix) => self.take_block(prefix, whole, data),
            None => self.skipped += 1,
        }
        Ok(())
    }

    fn decode_presence(&mut self, bytes: &[u8]) -> Result<(), MessageError> {
        let mut fields = Fields(bytes);
        let mut name: &[u8] = &[];
        let mut kind = PresenceKind::Have;
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (1, Value::Bytes(cid)) => name = cid,
                (2, Value::Number(0)) => kind = PresenceKind::Have,
                (2, Value::Number(_)) => kind = PresenceKind::DontHave,
                _ => {}
            }
        }
        match read_cid(name) {
            Some(cid) if self.presences.len() < MESSAGE_PRESENCES_MAX => {
                self.presences.push(Presence { cid, kind });
            }
            _ => self.skipped += 1,
        }
        Ok(())
    }

    fn take_block(&mut self, prefix: Prefix, whole: &Bytes, data: &[u8]) {
        if self.blocks.len() >= MESSAGE_BLOCKS_MAX {
            self.skipped += 1;
            return;
        }
        // A slice keeps the whole message in memory: a small part of a big one is copied.
        let data = if data.len() < whole.len() / SLICE_SHARE_MIN {
            Bytes::copy_from_slice(data)
        } else if data.is_empty() {
            Bytes::new()
        } else {
            whole.slice_ref(data)
        };
        self.blocks.push(Payload { prefix, data });
    }

    /// The pieces to write, in order, length prefix included. An older version gets what it knows:
    /// plain wants for want-haves, no presences, bare blocks.
    pub(in crate::bitswap) fn encode(&self, version: Version) -> Vec<Bytes> {
        let mut pieces = Pieces::default();
        self.encode_wantlist(version, &mut pieces.tail);
        for block in &self.blocks {
            pieces.block(version, block);
        }
        if version.has_presences() {
            for presence in &self.presences {
                let cid = presence.cid.to_bytes();
                let kind = u64::from(presence.kind == PresenceKind::DontHave);
                let length = bytes_field_len(cid.len()) + number_field_len(kind);
                put_length(&mut pieces.tail, 4, length);
                put_bytes(&mut pieces.tail, 1, &cid);
                put_number(&mut pieces.tail, 2, kind);
            }
            put_number(
                &mut pieces.tail,
                5,
                u64::try_from(self.pending_bytes).unwrap_or(0),
            );
        }
        pieces.finish()
    }

    fn encode_wantlist(&self, version: Version, out: &mut BytesMut) {
        if self.wants.is_empty() && self.scope == Scope::Change {
            return;
        }
        let mut list = BytesMut::with_capacity(self.wants.len() * ENTRY_BYTES_TYPICAL);
        for entry in &self.wants {
            let cid = entry.cid.to_bytes();
            let (mut priority, mut cancel, mut have, mut tell) = (0, 0, 0, 0);
            match entry.change {
                Change::Cancel => cancel = 1,
                Change::Want {
                    priority: wish,
                    kind,
                    absence,
                } => {
                    priority = u64::from_ne_bytes(i64::from(wish).to_ne_bytes());
                    if version.has_presences() {
                        have = u64::from(kind == WantKind::Have);
                        tell = u64::from(absence == Absence::Tell);
                    }
                }
            }
            let numbers = [(2, priority), (3, cancel), (4, have), (5, tell)];
            let length = bytes_field_len(cid.len())
                + numbers
                    .iter()
                    .map(|(_, value)| number_field_len(*value))
                    .sum::<usize>();
            put_length(&mut list, 1, length);
            put_bytes(&mut list, 1, &cid);
            for (number, value) in numbers {
                put_number(&mut list, number, value);
            }
        }
        put_number(&mut list, 2, u64::from(self.scope == Scope::Whole));
        put_bytes(out, 1, &list);
    }
}

/// Pieces of an encoded message: what is small runs together, what is large stands alone.
#[derive(Default)]
struct Pieces {
    done: Vec<Bytes>,
    tail: BytesMut,
}

impl Pieces {
    fn block(&mut self, version: Version, block: &Payload) {
        match version {
            Version::V1_2 | Version::V1_1 => {
                let prefix = write_prefix(block.prefix);
                let length = bytes_field_len(prefix.len()) + bytes_field_len(block.data.len());
                put_length(&mut self.tail, 3, length);
                put_bytes(&mut self.tail, 1, &prefix);
                if block.data.is_empty() {
                    return;
                }
            }
            Version::V1_0 | Version::V0 => {}
        }
        // The data is field 2 in both forms: of the block, or of the message itself.
        put_length(&mut self.tail, 2, block.data.len());
        if block.data.len() < PIECE_BYTES_MIN {
            self.tail.put_slice(&block.data);
        } else {
            self.done.push(self.tail.split().freeze());
            self.done.push(block.data.clone());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.done.push(self.tail.freeze());
        let total: usize = self.done.iter().map(Bytes::len).sum();
        let mut first = BytesMut::new();
        put_varint(&mut first, total as u64);
        let mut pieces = Vec::with_capacity(self.done.len());
        for piece in self.done {
            if pieces.is_empty() && !first.is_empty() {
                // The length runs together with the first piece, which is never a block.
                first.put_slice(&piece);
                pieces.push(first.split().freeze());
            } else if !piece.is_empty() {
                pieces.push(piece);
            }
        }
        pieces
    }
}

/// A CID that we can act on: short enough, of a known hash, nothing behind it.
fn read_cid(bytes: &[u8]) -> Option<Cid> {
    if bytes.len() > CID_BYTES_MAX {
        return None;
    }
    let mut rest = bytes;
    let cid = cid::read(&mut rest).ok()?;
    (rest.is_empty() && cid::check(&cid).is_ok()).then_some(cid)
}

fn read_prefix(mut bytes: &[u8]) -> Option<Prefix> {
    let mut next = || {
        let (value, rest) = unsigned_varint::decode::u64(bytes).ok()?;
        bytes = rest;
        Some(value)
    };
    let (version, codec, hash, length) = (next()?, next()?, next()?, next()?);
    let hash = HashKind::from_code(hash)?;
    let version = match version {
        0 => CidVersion::V0,
        1 => CidVersion::V1,
        _ => return None,
    };
    let whole = hash.digest_bytes()?;
    // As in CIDs: the tenth byte of a varint loses bits.
    (length == whole as u64 && codec >> 63 == 0).then_some(Prefix {
        version,
        codec,
        hash,
    })
}

fn write_prefix(prefix: Prefix) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(8);
    put_varint(&mut out, u64::from(prefix.version != CidVersion::V0));
    put_varint(&mut out, prefix.codec);
    put_varint(&mut out, prefix.hash.code());
    put_varint(&mut out, prefix.hash.digest_bytes().unwrap_or(0) as u64);
    out.to_vec()
}

/// What the blocks of versions that send them bare are.
const OLD_PREFIX: Prefix = Prefix {
    version: CidVersion::V0,
    codec: cid::DAG_PB,
    hash: HashKind::Sha2_256,
};

/// A block smaller than this share of its message is copied out of it.
const SLICE_SHARE_MIN: usize = 16;
/// Blocks from this size on are written from where they lie.
const PIECE_BYTES_MIN: usize = 16 << 10;
const ENTRY_BYTES_TYPICAL: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitswap::message::prefix_of;
    use cairn_store::Block;
    use proptest::prelude::*;

    fn joined(message: &Message, version: Version) -> Bytes {
        let bytes: Vec<u8> = message.encode(version).concat();
        let (length, rest) = unsigned_varint::decode::u64(&bytes).unwrap();
        assert_eq!(length, rest.len() as u64);
        Bytes::copy_from_slice(rest)
    }

    fn cids() -> impl Strategy<Value = Cid> {
        (any::<bool>(), 0..1u64 << 63, any::<[u8; 32]>(), 0usize..4).prop_map(
            |(v0, codec, digest, hash)| {
                let hash = HashKind::ALL[hash];
                let digest = match hash.digest_bytes() {
                    Some(64) => [digest, digest].concat(),
                    _ => digest.to_vec(),
                };
                let hash = cid::Multihash::wrap(hash.code(), &digest).unwrap();
                match Cid::new_v0(hash) {
                    Ok(cid) if v0 => cid,
                    _ => Cid::new_v1(codec, hash),
                }
            },
        )
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let wants =
            (any::<i32>(), any::<bool>(), any::<bool>()).prop_map(|(priority, have, tell)| {
                Change::Want {
                    priority,
                    kind: if have {
                        WantKind::Have
                    } else {
                        WantKind::Block
                    },
                    absence: if tell { Absence::Tell } else { Absence::Silent },
                }
            });
        (cids(), prop_oneof![Just(Change::Cancel), wants])
            .prop_map(|(cid, change)| Entry { cid, change })
    }

    fn payloads() -> impl Strategy<Value = Payload> {
        let data = prop_oneof![0usize..200, 16_000usize..40_000];
        (cids(), data, any::<u8>()).prop_map(|(cid, length, fill)| Payload {
            prefix: prefix_of(&cid).unwrap(),
            data: Bytes::from(vec![fill; length]),
        })
    }

    fn presences() -> impl Strategy<Value = Presence> {
        (cids(), any::<bool>()).prop_map(|(cid, have)| Presence {
            cid,
            kind: if have {
                PresenceKind::Have
            } else {
                PresenceKind::DontHave
            },
        })
    }

    fn messages() -> impl Strategy<Value = Message> {
        (
            any::<bool>(),
            proptest::collection::vec(entries(), 0..20),
            proptest::collection::vec(payloads(), 0..8),
            proptest::collection::vec(presences(), 0..20),
            0..i32::MAX,
        )
            .prop_map(|(full, wants, blocks, presences, pending_bytes)| Message {
                scope: if full { Scope::Whole } else { Scope::Change },
                wants,
                blocks,
                presences,
                pending_bytes,
                skipped: 0,
            })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back(message in messages()) {
            prop_assert_eq!(Message::decode(&joined(&message, Version::V1_2)).unwrap(), message);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Message::decode(&Bytes::from(bytes));
        }

        #[test]
        fn a_damaged_message_never_panics(
            message in messages(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()
        ) {
            let mut bytes = joined(&message, Version::V1_2).to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = to;
                bytes.truncate(cut.index(bytes.len()) + 1);
            }
            let _ = Message::decode(&Bytes::from(bytes));
        }
    }

    fn want(cid: Cid) -> Entry {
        Entry {
            cid,
            change: Change::Want {
                priority: 1,
                kind: WantKind::Have,
                absence: Absence::Tell,
            },
        }
    }

    fn block(data: &'static [u8]) -> Block {
        let prefix = Prefix {
            version: CidVersion::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, Bytes::from_static(data)).unwrap()
    }

    #[test]
    fn bytes_of_another_implementation_read_as_meant() {
        // {wantlist {entries {block: CIDv1 raw sha2-256 of "x", priority 1, wantType Have,
        // sendDontHave}, full}} with an unknown field 15 in front, written down by hand.
        let cid = block(b"x").cid().to_bytes();
        let mut bytes = vec![0x78, 0x05, 0x0a, 48, 0x0a, 44, 0x0a, 36];
        bytes.extend(&cid);
        bytes.extend([0x10, 1, 0x20, 1, 0x28, 1, 0x10, 1]);
        let message = Message::decode(&Bytes::from(bytes)).unwrap();
        assert_eq!(message.scope, Scope::Whole);
        assert_eq!(message.wants, [want(*block(b"x").cid())]);
    }

    #[test]
    fn older_versions_get_plain_wants_and_bare_blocks() {
        let cid = *block(b"y").cid();
        let message = Message {
            wants: vec![want(cid)],
            blocks: vec![Payload {
                prefix: prefix_of(&cid).unwrap(),
                data: Bytes::from_static(b"y"),
            }],
            presences: vec![Presence {
                cid,
                kind: PresenceKind::Have,
            }],
            pending_bytes: 7,
            ..Message::default()
        };
        for version in [Version::V1_1, Version::V1_0, Version::V0] {
            let read = Message::decode(&joined(&message, version)).unwrap();
            let plain = Change::Want {
                priority: 1,
                kind: WantKind::Block,
                absence: Absence::Silent,
            };
            assert_eq!(read.wants, [Entry { cid, change: plain }]);
            assert_eq!(read.presences, []);
            assert_eq!(read.blocks[0].data, "y");
            let bare = version != Version::V1_1;
            assert_eq!(read.blocks[0].prefix == OLD_PREFIX, bare);
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_allocated() {
        for length in [&[0x7f][..], &[0xff, 0xff, 0xff, 0xff, 0x7f], &[0xff; 9]] {
            for field in [0x0a, 0x12, 0x1a, 0x22, 0x7a] {
                let bytes = [&[field][..], length, &[1, 2, 3]].concat();
                assert!(Message::decode(&Bytes::from(bytes)).is_err());
            }
        }
        let over = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
        assert!(matches!(
            Message::decode(&over),
            Err(MessageError::TooLarge(_))
        ));
    }

    #[test]
    fn a_cid_that_is_too_long_is_skipped_and_the_rest_is_read() {
        let mut wantlist = BytesMut::new();
        for length in [129usize, 169, 100_000] {
            let mut identity = vec![1, 0x55, 0];
            let mut number = BytesMut::new();
            put_varint(&mut number, length as u64);
            identity.extend(&number);
            identity.extend(vec![7; length]);
            let mut entry = BytesMut::new();
            put_bytes(&mut entry, 1, &identity);
            put_bytes(&mut wantlist, 1, &entry);
        }
        let mut entry = BytesMut::new();
        put_bytes(&mut entry, 1, &block(b"z").cid().to_bytes());
        put_bytes(&mut wantlist, 1, &entry);
        let mut bytes = BytesMut::new();
        put_bytes(&mut bytes, 1, &wantlist);
        let message = Message::decode(&bytes.freeze()).unwrap();
        assert_eq!((message.wants.len(), message.skipped), (1, 3));
    }

    #[test]
    fn a_cid_that_would_be_read_as_another_is_skipped() {
        let mut last_bits_lost = vec![1];
        last_bits_lost.extend([0xff; 9]);
        last_bits_lost.push(0x7f);
        last_bits_lost.extend(block(b"z").cid().hash().to_bytes());
        let mut entry = BytesMut::new();
        put_bytes(&mut entry, 1, &last_bits_lost);
        let mut wantlist = BytesMut::new();
        put_bytes(&mut wantlist, 1, &entry);
        let mut bytes = BytesMut::new();
        put_bytes(&mut bytes, 1, &wantlist);
        let message = Message::decode(&bytes.freeze()).unwrap();
        assert_eq!((message.wants.len(), message.skipped), (0, 1));
    }

    #[test]
    fn lines_are_counted_as_far_as_they_are_read() {
        let cid = *block(b"w").cid();
        let presence = Presence {
            cid,
            kind: PresenceKind::Have,
        };
        let count = |wants, presences| {
            let message = Message {
                wants: vec![want(cid); wants],
                presences: vec![presence; presences],
                blocks: vec![Payload {
                    prefix: OLD_PREFIX,
                    data: Bytes::from_static(b"a block is no line"),
                }],
                ..Message::default()
            };
            Message::lines(&joined(&message, Version::V1_2)).read()
        };
        assert_eq!((count(0, 0), count(3, 0), count(3, 4)), (0, 3, 7));
        let most = MESSAGE_WANTS_MAX + MESSAGE_PRESENCES_MAX;
        assert_eq!(
            count(MESSAGE_WANTS_MAX + 1, MESSAGE_PRESENCES_MAX + 1),
            most
        );
        assert_eq!(Message::lines(&[0x0a, 0x7f]).read(), 0);
    }

    #[test]
    fn lists_end_at_their_limits() {
        let cid = *block(b"w").cid();
        let mut message = Message {
            wants: vec![want(cid); MESSAGE_WANTS_MAX + 9],
            ..Message::default()
        };
        let read = Message::decode(&joined(&message, Version::V1_2)).unwrap();
        assert_eq!((read.wants.len(), read.skipped), (MESSAGE_WANTS_MAX, 9));
        message.wants.clear();
        let empty = Payload {
            prefix: OLD_PREFIX,
            data: Bytes::new(),
        };
        message.blocks = vec![empty; MESSAGE_BLOCKS_MAX + 5];
        let read = Message::decode(&joined(&message, Version::V1_2)).unwrap();
        assert_eq!((read.blocks.len(), read.skipped), (MESSAGE_BLOCKS_MAX, 5));
    }

    #[test]
    fn a_large_block_is_neither_copied_in_nor_out() {
        let data = Bytes::from(vec![7; 1 << 20]);
        let message = Message {
            blocks: vec![Payload {
                prefix: OLD_PREFIX,
                data: data.clone(),
            }],
            ..Message::default()
        };
        let pieces = message.encode(Version::V1_2);
        assert!(pieces.iter().any(|piece| piece.as_ptr() == data.as_ptr()));
        let whole = joined(&message, Version::V1_2);
        let read = Message::decode(&whole).unwrap();
        let inside = whole.as_ptr_range();
        assert!(inside.contains(&read.blocks[0].data.as_ptr()));
    }
}
