//! What stands in a record, whoever signed it: for people who want to know why it is refused.

use super::{Outer, RECORD_BYTES_MAX, RecordError, Signed};
use std::time::Duration;

/// What a record says, signed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What the name points at.
    pub value: Vec<u8>,
    /// 0: it ends at some time.
    pub validity_type: u64,
    /// When it ends, as it stands there.
    pub validity: Vec<u8>,
    /// Its number.
    pub sequence: u64,
    /// For how long it need not be looked for again.
    pub ttl: Duration,
    /// The key that it brings along, as libp2p encodes it.
    pub public_key: Option<Vec<u8>>,
    /// Whether there is a signature for readers of version 1.
    pub has_v1: bool,
    /// Whether there is one for readers of version 2.
    pub has_v2: bool,
}

impl Look {
    /// Reads a record without checking anything: the signed part, or else what readers of version 1 look at.
    pub fn at(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLarge(bytes.len()));
        }
        let outer = Outer::decode(bytes)?;
        let signed = match outer.data {
            Some(data) if !data.is_empty() => Signed::decode(data)?,
            _ => Signed {
                value: outer.value.unwrap_or_default().to_vec(),
                validity: outer.validity.unwrap_or_default().to_vec(),
                validity_type: outer.validity_type,
                sequence: outer.sequence,
                ttl: outer.ttl,
            },
        };
        let is_there = |field: Option<&[u8]>| field.is_some_and(|field| !field.is_empty());
        Ok(Self {
            value: signed.value,
            validity_type: signed.validity_type,
            validity: signed.validity,
            sequence: signed.sequence,
            ttl: Duration::from_nanos(signed.ttl),
            public_key: outer.key.filter(|key| !key.is_empty()).map(<[u8]>::to_vec),
            has_v1: is_there(outer.signature_v1),
            has_v2: is_there(outer.signature),
        })
    }
}
