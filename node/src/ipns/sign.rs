//! New records: what is to be said, in the fields that readers of version 1 look at and in the data that is signed.

use super::{END_OF_LIFE, IDENTITY, RECORD_BYTES_MAX, Record, RecordError, SIGNED_AS};
use crate::keystore::{Key, KeyError};
use crate::protobuf::{put_any_number, put_bytes};
use bytes::BytesMut;
use cairn_store::dag::cbor;
use cairn_store::dag::value::Value;
use libp2p::PeerId;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// What a record is to say.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// What the name points at: a path below `/ipfs` or `/ipns`.
    pub value: &'a [u8],
    /// Larger than that of every record of the name before it.
    pub sequence: u64,
    /// Until when it holds.
    pub expires: SystemTime,
    /// For how long it need not be looked for again.
    pub ttl: Duration,
    /// Who can read it.
    pub readers: Readers,
}

/// Who can read a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Readers {
    /// Those of version 1 as well.
    #[default]
    All,
    /// Those of version 2 alone; it is smaller by half.
    V2,
}

/// Why a record was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key cannot sign.
    #[error("the key does not sign: {0}")]
    Key(#[from] KeyError),
    /// It ends when no date can tell.
    #[error("the record would hold until a date beyond the year 9999; give it a shorter lifetime")]
    Lifetime,
    /// It would be none.
    #[error("the record would be refused by others: {0}")]
    Record(#[from] RecordError),
}

impl Record {
    /// Signs what is to be said.
    pub fn sign(key: &Key, draft: &Draft<'_>) -> Result<Self, SignError> {
        let validity = date(draft.expires).ok_or(SignError::Lifetime)?;
        let ttl = u64::try_from(draft.ttl.as_nanos())
            .unwrap_or(TTL_MAX)
            .min(TTL_MAX);
        let data = data(draft, &validity, ttl);
        let mut out = BytesMut::new();
        if draft.readers == Readers::All {
            let signed = [draft.value, validity.as_bytes(), SIGNED_AS_V1].concat();
            put_bytes(&mut out, 1, draft.value);
            put_bytes(&mut out, 2, &key.sign(&signed)?);
            // Some readers take a number that is not there for no number, and not for zero.
            put_any_number(&mut out, 3, END_OF_LIFE);
            put_bytes(&mut out, 4, validity.as_bytes());
            put_any_number(&mut out, 5, draft.sequence);
            put_any_number(&mut out, 6, ttl);
        }
        let name = key.id();
        if !is_its_own_key(&name) {
            put_bytes(&mut out, 7, &key.public().encode_protobuf());
        }
        put_bytes(&mut out, 8, &key.sign(&[SIGNED_AS, &data].concat())?);
        put_bytes(&mut out, 9, &data);
        // What others refuse must not become the newest that we know.
        Ok(Self::decode(&name, &out)?)
    }
}

/// The dag-cbor that is signed.
fn data(draft: &Draft<'_>, validity: &str, ttl: u64) -> Vec<u8> {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec().into());
    let entries = [
        ("Value", bytes(draft.value)),
        ("Validity", bytes(validity.as_bytes())),
        ("ValidityType", Value::Integer(END_OF_LIFE.into())),
        ("Sequence", Value::Integer(draft.sequence.into())),
        ("TTL", Value::Integer(ttl.into())),
    ];
    let named = entries.map(|(name, value)| (name.to_owned(), value));
    cbor::encode(&Value::Map(named.to_vec()))
}

/// RFC 3339 with nanoseconds, in UTC; `None` for what has more than four digits of a year.
fn date(at: SystemTime) -> Option<String> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let since = time::Duration::try_from(since).ok()?;
    let date = OffsetDateTime::UNIX_EPOCH.checked_add(since)?;
    date.format(DATE).ok().filter(|_| date.year() <= 9999)
}

fn is_its_own_key(name: &PeerId) -> bool {
    let hash: &libp2p::multihash::Multihash<64> = name.as_ref();
    hash.code() == IDENTITY
}

const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
/// What the signature of version 1 covers behind value and validity: the name of the kind of validity.
const SIGNED_AS_V1: &[u8] = b"EOL";
/// Most nanoseconds: signed readers have a bit less.
const TTL_MAX: u64 = i64::MAX.unsigned_abs();
/// There is room for a value of any length that a path has.
const _: () = assert!(RECORD_BYTES_MAX > 4096);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::{Make, RsaBits};
    use crate::protobuf::{Fields, Value as Field};
    use proptest::prelude::*;

    const SOON: Duration = Duration::from_secs(3600);

    fn draft(value: &[u8]) -> Draft<'_> {
        Draft {
            value,
            sequence: 7,
            expires: SystemTime::now() + SOON,
            ttl: Duration::from_secs(300),
            readers: Readers::All,
        }
    }

    #[test]
    fn what_is_signed_reads_back_by_every_kind_of_key() {
        for make in [Make::Ed25519, Make::Secp256k1, Make::Rsa(RsaBits::B2048)] {
            let keys = Key::generate(make).unwrap();
            for readers in [Readers::All, Readers::V2] {
                let draft = Draft {
                    readers,
                    ..draft(b"/ipfs/bafkqaaa/sub")
                };
                let made = Record::sign(&keys, &draft).unwrap();
                let name = keys.public().to_peer_id();
                let read = Record::valid(&name, made.bytes(), SystemTime::now()).unwrap();
                assert_eq!(read, made);
                assert_eq!(read.value(), b"/ipfs/bafkqaaa/sub");
                assert_eq!((read.sequence(), read.ttl()), (7, draft.ttl));
                assert_eq!(read.expires(), draft.expires);
            }
        }
    }

    #[test]
    fn readers_of_version_1_find_a_signature_of_theirs() {
        let keys = Key::generate(Make::Ed25519).unwrap();
        let expires = SystemTime::UNIX_EPOCH + Duration::new(4_102_444_800, 1);
        let draft = Draft {
            expires,
            ..draft(b"/ipfs/bafkqaaa")
        };
        let made = Record::sign(&keys, &draft).unwrap();
        let outer = crate::ipns::Outer::decode(made.bytes()).unwrap();
        assert_eq!(outer.validity, Some(&b"2100-01-01T00:00:00.000000001Z"[..]));
        let signed = b"/ipfs/bafkqaaa2100-01-01T00:00:00.000000001ZEOL";
        assert!(keys.public().verify(signed, outer.signature_v1.unwrap()));
        assert_eq!((outer.sequence, outer.ttl), (7, 300_000_000_000));
        assert_eq!(outer.key, None, "it is in the name");
        let lean = Draft {
            readers: Readers::V2,
            ..draft
        };
        let lean = Record::sign(&keys, &lean).unwrap();
        let outer = crate::ipns::Outer::decode(lean.bytes()).unwrap();
        assert_eq!((outer.value, outer.signature_v1), (None, None));
    }

    #[test]
    fn zeros_of_version_1_are_written() {
        let keys = Key::generate(Make::Ed25519).unwrap();
        let zeros = Draft {
            sequence: 0,
            ttl: Duration::ZERO,
            ..draft(b"/ipfs/bafkqaaa")
        };
        let made = Record::sign(&keys, &zeros).unwrap();
        let mut fields = Fields(made.bytes());
        let mut numbers = Vec::new();
        while let Some(field) = fields.next().unwrap() {
            if let (field, Field::Number(number)) = field {
                numbers.push((field, number));
            }
        }
        assert_eq!(numbers, [(3, END_OF_LIFE), (5, 0), (6, 0)]);
    }

    #[test]
    fn what_others_would_refuse_is_not_signed() {
        let keys = Key::generate(Make::Ed25519).unwrap();
        let long = vec![b'a'; RECORD_BYTES_MAX];
        let refused = Record::sign(&keys, &draft(&long));
        let is_too_large = |error| matches!(error, SignError::Record(RecordError::TooLarge(_)));
        assert!(refused.is_err_and(is_too_large));
        let late = Draft {
            expires: SystemTime::now() + Duration::from_secs(3600 * 24 * 366 * 9000),
            ..draft(b"/ipfs/bafkqaaa")
        };
        let refused = Record::sign(&keys, &late);
        assert!(matches!(refused, Err(SignError::Lifetime)), "{refused:?}");
    }

    #[test]
    fn a_hundred_years_are_told_to_the_nanosecond() {
        let keys = Key::generate(Make::Ed25519).unwrap();
        let century = Duration::from_secs(3600 * 24 * 36_525) + Duration::from_nanos(1);
        let long = Draft {
            ttl: century,
            expires: SystemTime::now() + century,
            ..draft(b"/ipfs/bafkqaaa")
        };
        let made = Record::sign(&keys, &long).unwrap();
        assert_eq!((made.ttl(), made.expires()), (century, long.expires));
        let ever = Draft {
            ttl: Duration::MAX,
            ..long
        };
        let made = Record::sign(&keys, &ever).unwrap();
        assert_eq!(made.ttl(), Duration::from_nanos(TTL_MAX));
    }

    proptest! {
        #[test]
        fn any_value_and_number_read_back(
            value in proptest::collection::vec(any::<u8>(), 1..2000),
            sequence in any::<u64>(),
            seconds in 0..7_000_000_000u64,
        ) {
            let keys = Key::generate(Make::Ed25519).unwrap();
            let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let draft = Draft { sequence, expires, ..draft(&value) };
            let made = Record::sign(&keys, &draft).unwrap();
            prop_assert_eq!(made.value(), &value[..]);
            prop_assert_eq!((made.sequence(), made.expires()), (sequence, expires));
        }
    }
}
