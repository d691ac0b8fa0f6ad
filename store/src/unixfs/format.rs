//! The bytes of UnixFS inside dag-pb: one protobuf message, its fields in the order every
//! implementation writes them.

use super::Mtime;
use crate::dag::wire::{self, Field, Fields};
use bytes::Bytes;

/// What a UnixFS node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Bytes of a file, as old trees have them.
    Raw,
    /// A folder in one block.
    Directory,
    /// A file or a part of one.
    File,
    /// Of no use today.
    Metadata,
    /// A symbolic link.
    Symlink,
    /// A folder, or a part of one, as a HAMT.
    HamtShard,
}

impl Type {
    const ALL: [Self; 6] = [
        Self::Raw,
        Self::Directory,
        Self::File,
        Self::Metadata,
        Self::Symlink,
        Self::HamtShard,
    ];

    const fn code(self) -> u64 {
        match self {
            Self::Raw => 0,
            Self::Directory => 1,
            Self::File => 2,
            Self::Metadata => 3,
            Self::Symlink => 4,
            Self::HamtShard => 5,
        }
    }
}

/// The UnixFS part of a dag-pb node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What the node is.
    pub kind: Type,
    /// A file's bytes before its children, a symlink's target, a shard's bitfield.
    pub data: Option<Bytes>,
    /// Bytes of the whole file below this node.
    pub file_size: Option<u64>,
    /// Bytes of the file below each link.
    pub block_sizes: Vec<u64>,
    /// How a shard hashes names.
    pub hash_type: Option<u64>,
    /// How many buckets a shard has.
    pub fanout: Option<u64>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Time of change.
    pub mtime: Option<Mtime>,
}

impl Message {
    /// A node of which nothing but its kind is known.
    pub fn new(kind: Type) -> Self {
        Self {
            kind,
            data: None,
            file_size: None,
            block_sizes: Vec::new(),
            hash_type: None,
            fanout: None,
            mode: None,
            mtime: None,
        }
    }

    /// The bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        let data = self.data.as_ref().map_or(0, Bytes::len);
        let mut out = Vec::with_capacity(OVERHEAD + data + self.block_sizes.len() * 5);
        self.put(&mut out);
        out
    }

    /// Appends the message.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        wire::put_number(out, 1, self.kind.code());
        if let Some(data) = &self.data {
            wire::put_bytes(out, 2, data);
        }
        if let Some(size) = self.file_size {
            wire::put_number(out, 3, size);
        }
        for size in &self.block_sizes {
            wire::put_number(out, 4, *size);
        }
        if let Some(hash) = self.hash_type {
            wire::put_number(out, 5, hash);
        }
        if let Some(fanout) = self.fanout {
            wire::put_number(out, 6, fanout);
        }
        if let Some(mode) = self.mode {
            wire::put_number(out, 7, u64::from(mode));
        }
        if let Some(mtime) = self.mtime {
            wire::put_bytes(out, 8, &encode_time(mtime));
        }
    }

    /// Reads a message. Fields we do not know are passed over.
    pub fn decode(data: &Bytes) -> Result<Self, String> {
        let mut message = Self::new(Type::Raw);
        let mut kind = None;
        let mut fields = Fields::new(data);
        while let Some(field) = fields.next().map_err(|why| format!("UnixFS data: {why}"))? {
            match field {
                (1, Field::Varint(code)) => {
                    let known = Type::ALL.into_iter().find(|kind| kind.code() == code);
                    kind = Some(known.ok_or_else(|| format!("unknown UnixFS type {code}"))?);
                }
                (2, Field::Bytes(bytes)) => message.data = Some(data.slice_ref(bytes)),
                (3, Field::Varint(size)) => message.file_size = Some(size),
                (4, Field::Varint(size)) => message.block_sizes.push(size),
                (4, Field::Bytes(packed)) => unpack(packed, &mut message.block_sizes)?,
                (5, Field::Varint(hash)) => message.hash_type = Some(hash),
                (6, Field::Varint(fanout)) => message.fanout = Some(fanout),
                (7, Field::Varint(mode)) => {
                    let mode = u32::try_from(mode);
                    message.mode = Some(mode.map_err(|_| "a mode of more than 32 bits")?);
                }
                (8, Field::Bytes(time)) => message.mtime = Some(decode_time(time)?),
                (1..=8, _) => return Err("a UnixFS field of another type".to_owned()),
                _ => {}
            }
        }
        message.kind = kind.ok_or("UnixFS data without a type")?;
        Ok(message)
    }
}

fn unpack(mut packed: &[u8], sizes: &mut Vec<u64>) -> Result<(), String> {
    while !packed.is_empty() {
        let (size, length) = wire::varint(packed).ok_or("block sizes cut short")?;
        sizes.push(size);
        packed = packed.get(length..).unwrap_or_default();
    }
    Ok(())
}

fn encode_time(time: Mtime) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    wire::put_number(&mut out, 1, time.seconds.cast_unsigned());
    if time.nanoseconds > 0 {
        out.push(2 << 3 | 5);
        out.extend(time.nanoseconds.to_le_bytes());
    }
    out
}

fn decode_time(data: &[u8]) -> Result<Mtime, String> {
    let mut time = Mtime {
        seconds: 0,
        nanoseconds: 0,
    };
    let mut fields = Fields::new(data);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Varint(seconds)) => time.seconds = seconds.cast_signed(),
            (2, Field::Fixed32(nanoseconds)) if nanoseconds < 1_000_000_000 => {
                time.nanoseconds = nanoseconds;
            }
            (1 | 2, _) => return Err("a time that cannot be".to_owned()),
            _ => {}
        }
    }
    Ok(time)
}

/// Room for everything but the data and the block sizes.
const OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_message()(
            kind in prop::sample::select(Type::ALL.to_vec()),
            data in prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
            file_size: Option<u64>,
            block_sizes in prop::collection::vec(any::<u64>(), 0..10),
            hash_type: Option<u64>,
            fanout: Option<u64>,
            mode: Option<u32>,
            mtime in prop::option::of((any::<i64>(), 0..1_000_000_000_u32)),
        ) -> Message {
            Message {
                kind,
                data: data.map(Bytes::from),
                file_size,
                block_sizes,
                hash_type,
                fanout,
                mode,
                mtime: mtime.map(|(seconds, nanoseconds)| Mtime { seconds, nanoseconds }),
            }
        }
    }

    proptest! {
        #[test]
        fn messages_read_back_as_written(message in any_message()) {
            let bytes = Bytes::from(message.encode());
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Message::decode(&Bytes::from(data));
        }
    }

    fn hex(text: &str) -> Bytes {
        Bytes::from(data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap())
    }

    #[test]
    fn packed_block_sizes_and_unknown_fields_are_read() {
        let message = Message::decode(&hex("0802 2202 0105 2007 7800".replace(' ', "").as_str()));
        assert_eq!(message.unwrap().block_sizes, [1, 5, 7]);
    }

    #[test]
    fn refuses_what_unixfs_does_not_have() {
        for (bytes, why) in [
            ("", "no type"),
            ("0806", "an unknown type"),
            ("0a01ff", "a type that is no number"),
            ("0802420510ffffffff", "nanoseconds as a varint"),
            ("080242 0515ffffffff", "too many nanoseconds"),
            ("0802220180", "block sizes cut short"),
        ] {
            let bytes = hex(&bytes.replace(' ', ""));
            assert!(Message::decode(&bytes).is_err(), "{why}");
        }
    }
}
