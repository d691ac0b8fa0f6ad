//! A frame's head: twelve bytes, as the Yamux specification has them.

use crate::swarm::records::invalid;
use std::io;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As many bytes of a stream as `length` says follow.
    Data,
    /// The sender of a stream may send `length` bytes more.
    Window,
    /// `length` is to be sent back.
    Ping,
    /// No more streams; `length` says why.
    GoAway,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) flags: u16,
    pub(super) stream: u32,
    pub(super) length: u32,
}

impl Head {
    pub(super) fn encode(self) -> [u8; HEAD_BYTES] {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::Window => 1,
            Kind::Ping => 2,
            Kind::GoAway => 3,
        };
        let [f0, f1] = self.flags.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        [0, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3]
    }

    pub(super) fn decode(bytes: [u8; HEAD_BYTES]) -> io::Result<Self> {
        let [version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = bytes;
        if version != 0 {
            return Err(invalid(format!("a Yamux frame of version {version}")));
        }
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Window,
            2 => Kind::Ping,
            3 => Kind::GoAway,
            other => return Err(invalid(format!("a Yamux frame of kind {other}"))),
        };
        Ok(Self {
            kind,
            flags: u16::from_be_bytes([f0, f1]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: u32::from_be_bytes([l0, l1, l2, l3]),
        })
    }

    pub(super) fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

pub(super) const HEAD_BYTES: usize = 12;

/// Opens a stream, or asks for a ping to be answered.
pub(super) const SYN: u16 = 1;
/// Accepts a stream, or answers a ping.
pub(super) const ACK: u16 = 2;
/// The sender sends nothing more on this stream.
pub(super) const FIN: u16 = 4;
/// The stream is over at once.
pub(super) const RST: u16 = 8;

/// Why a connection ends.
pub(super) const NORMAL: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same(bytes in any::<[u8; HEAD_BYTES]>()) {
            match Head::decode(bytes) {
                Ok(head) => prop_assert_eq!(head.encode(), bytes),
                Err(_) => prop_assert!(bytes[0] != 0 || bytes[1] > 3),
            }
        }
    }
}
