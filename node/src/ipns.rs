//! IPNS records: what a name points at, signed by the name's key.
//!
//! Only the signature of version 2 counts, over the dag-cbor as it was received; where the fields of version 1 are
//! there too they must say the same. Bytes are kept as they came. Follows the IPNS record specification.
//! `sign.rs` makes new ones, `look.rs` shows what stands in any.

mod look;
mod sign;

pub use look::Look;
pub use sign::{Draft, Readers, SignError};

use crate::protobuf::{FieldError, Fields, Value as Field};
use crate::public_key;
use cairn_store::cid::{DAG_PB, LIBP2P_KEY};
use cairn_store::dag::cbor;
use cairn_store::dag::value::Value;
use libp2p::PeerId;
use libp2p::identity::PublicKey;
use multibase::Base;
use std::cmp::Ordering;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A record that its name's key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    bytes: Vec<u8>,
    value: Vec<u8>,
    sequence: u64,
    expires: SystemTime,
    ttl: Duration,
}

/// Why bytes are no valid record of a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is too large.
    #[error("an IPNS record of {0} bytes is larger than the limit of {RECORD_BYTES_MAX}")]
    TooLarge(usize),
    /// It is no protobuf message.
    #[error("an IPNS record that is no protobuf: {0}")]
    Fields(#[from] FieldError),
    /// It has no signature that counts.
    #[error("an IPNS record without a signature of version 2")]
    Unsigned,
    /// Its key is missing, or is none.
    #[error("an IPNS record whose public key is neither in it nor in the name")]
    Key,
    /// Its key is another's.
    #[error("an IPNS record with the key of another name")]
    OtherKey,
    /// The signature is wrong.
    #[error("an IPNS record with a wrong signature")]
    Signature,
    /// Its signed part cannot be understood.
    #[error("an IPNS record whose signed data has no usable {0}")]
    Data(&'static str),
    /// What version 1 has in it is not what was signed.
    #[error("an IPNS record whose {0} differs from the signed one")]
    Differs(&'static str),
    /// It is too old.
    #[error("an IPNS record that expired")]
    Expired,
}

/// The fields outside the signed part.
#[derive(Debug, Default)]
struct Outer<'a> {
    value: Option<&'a [u8]>,
    signature_v1: Option<&'a [u8]>,
    validity_type: u64,
    validity: Option<&'a [u8]>,
    sequence: u64,
    ttl: u64,
    key: Option<&'a [u8]>,
    signature: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
}

impl<'a> Outer<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, FieldError> {
        let mut outer = Self::default();
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Field::Bytes(value)) => outer.value = Some(value),
                (2, Field::Bytes(signature)) => outer.signature_v1 = Some(signature),
                (3, Field::Number(kind)) => outer.validity_type = kind,
                (4, Field::Bytes(validity)) => outer.validity = Some(validity),
                (5, Field::Number(sequence)) => outer.sequence = sequence,
                (6, Field::Number(ttl)) => outer.ttl = ttl,
                (7, Field::Bytes(key)) => outer.key = Some(key),
                (8, Field::Bytes(signature)) => outer.signature = Some(signature),
                (9, Field::Bytes(data)) => outer.data = Some(data),
                _ => {}
            }
        }
        Ok(outer)
    }
}

/// What was signed.
struct Signed {
    value: Vec<u8>,
    validity: Vec<u8>,
    validity_type: u64,
    sequence: u64,
    ttl: u64,
}

impl Signed {
    fn decode(data: &[u8]) -> Result<Self, RecordError> {
        let map = cbor::decode(data).map_err(|_| RecordError::Data("dag-cbor"))?;
        let number = |name| match map.child(name) {
            Some(Value::Integer(number)) => u64::try_from(*number).ok(),
            _ => None,
        };
        let bytes = |name| match map.child(name) {
            Some(Value::Bytes(bytes)) => Some(bytes.to_vec()),
            _ => None,
        };
        Ok(Self {
            value: bytes("Value").ok_or(RecordError::Data("Value"))?,
            validity: bytes("Validity").ok_or(RecordError::Data("Validity"))?,
            validity_type: number("ValidityType").ok_or(RecordError::Data("ValidityType"))?,
            sequence: number("Sequence").ok_or(RecordError::Data("Sequence"))?,
            ttl: number("TTL").ok_or(RecordError::Data("TTL"))?,
        })
    }

    /// Whether what version 1 reads is the same.
    fn agrees(&self, outer: &Outer<'_>) -> Result<(), RecordError> {
        if outer.signature_v1.is_none_or(<[u8]>::is_empty)
            && outer.value.is_none_or(<[u8]>::is_empty)
        {
            return Ok(());
        }
        let pairs = [
            ("value", outer.value == Some(&self.value[..])),
            ("validity", outer.validity == Some(&self.validity[..])),
            ("validity type", outer.validity_type == self.validity_type),
            ("sequence", outer.sequence == self.sequence),
            ("TTL", outer.ttl == self.ttl),
        ];
        match pairs.into_iter().find(|(_, is_same)| !is_same) {
            Some((what, _)) => Err(RecordError::Differs(what)),
            None => Ok(()),
        }
    }

    fn expires(&self) -> Result<SystemTime, RecordError> {
        if self.validity_type != END_OF_LIFE {
            return Err(RecordError::Data("ValidityType"));
        }
        let text = std::str::from_utf8(&self.validity).ok();
        let at = text.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        at.map(SystemTime::from)
            .ok_or(RecordError::Data("Validity"))
    }
}

impl Record {
    /// Reads a record of `name` and checks everything but its age.
    pub fn decode(name: &PeerId, bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLarge(bytes.len()));
        }
        let outer = Outer::decode(bytes)?;
        let (Some(signature), Some(data)) = (outer.signature, outer.data) else {
            return Err(RecordError::Unsigned);
        };
        let key = key_of(name, outer.key)?;
        if !key.verify(&[SIGNED_AS, data].concat(), signature) {
            return Err(RecordError::Signature);
        }
        let signed = Signed::decode(data)?;
        signed.agrees(&outer)?;
        Ok(Self {
            bytes: bytes.to_vec(),
            expires: signed.expires()?,
            sequence: signed.sequence,
            ttl: Duration::from_nanos(signed.ttl),
            value: signed.value,
        })
    }

    /// The same, unless it has expired by `now`.
    pub fn valid(name: &PeerId, bytes: &[u8], now: SystemTime) -> Result<Self, RecordError> {
        let record = Self::decode(name, bytes)?;
        match record.expires > now {
            true => Ok(record),
            false => Err(RecordError::Expired),
        }
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the name points at, as `/ipfs/…`.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// How many records of the name came before it, at least.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Until when it holds.
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }

    /// For how long it need not be looked for again.
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Which of two records of one name is the newer. Where they do not say, the larger bytes, so that all agree.
    pub fn age(&self, other: &Self) -> Ordering {
        let place = |record: &Self| (record.sequence, record.expires);
        place(self)
            .cmp(&place(other))
            .then_with(|| self.bytes.cmp(&other.bytes))
    }
}

/// A name, or a peer ID: in base58 (`12D3…`, `Qm…`) or as a CID (`k51…`, `bafz…`).
pub fn name(text: &str) -> Option<PeerId> {
    let name = match text.parse::<PeerId>() {
        Ok(name) => name,
        Err(_) => {
            let cid = cairn_store::cid::parse(text).ok()?;
            matches!(cid.codec(), LIBP2P_KEY | DAG_PB).then_some(())?;
            PeerId::from_bytes(&cid.hash().to_bytes()).ok()?
        }
    };
    let hash: &libp2p::multihash::Multihash<64> = name.as_ref();
    (hash.digest().len() >= DIGEST_BYTES_MIN).then_some(name)
}

/// A name as it is written in addresses: a CID of the codec libp2p-key in base36.
pub fn text(name: &PeerId) -> String {
    let text = cid(name).and_then(|cid| cid.to_string_of_base(Base::Base36Lower).ok());
    // Every peer ID is a multihash of such a length.
    text.unwrap_or_else(|| name.to_string())
}

/// A name as a CID of the codec libp2p-key.
pub fn cid(name: &PeerId) -> Option<cairn_store::Cid> {
    let hash = cairn_store::cid::Multihash::from_bytes(&name.to_bytes()).ok()?;
    Some(cairn_store::Cid::new_v1(LIBP2P_KEY, hash))
}

/// The media type of records.
pub const RECORD_MEDIA: &str = "application/vnd.ipfs.ipns-record";

/// What the record of a name is kept under in the DHT.
pub fn key(name: &PeerId) -> Vec<u8> {
    [KEY_PREFIX, &name.to_bytes()].concat()
}

/// The key of a name, from the record or from the name itself.
fn key_of(name: &PeerId, given: Option<&[u8]>) -> Result<PublicKey, RecordError> {
    if let Some(given) = given.filter(|given| !given.is_empty()) {
        let key = public_key::read(given).map_err(|_| RecordError::Key)?;
        return match key.to_peer_id() == *name {
            true => Ok(key),
            false => Err(RecordError::OtherKey),
        };
    }
    let hash: &libp2p::multihash::Multihash<64> = name.as_ref();
    if hash.code() != IDENTITY {
        return Err(RecordError::Key);
    }
    public_key::read(hash.digest()).map_err(|_| RecordError::Key)
}

/// What stands before a name in [`key`].
pub(crate) const KEY_PREFIX: &[u8] = b"/ipns/";
/// Longest record.
pub const RECORD_BYTES_MAX: usize = 10 << 10;
/// What is signed before the data.
const SIGNED_AS: &[u8] = b"ipns-signature:";
/// The only kind of validity that there is.
const END_OF_LIFE: u64 = 0;
/// The multihash code of a name that is its own key.
const IDENTITY: u64 = 0;
/// A name is a hash of 256 bits or a whole public key; none of these is shorter.
const DIGEST_BYTES_MIN: usize = 32;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protobuf::{put_bytes, put_number};
    use bytes::BytesMut;
    use libp2p::identity::Keypair;

    /// What a test's record says.
    #[derive(Debug, Clone)]
    pub(crate) struct Says {
        pub(crate) sequence: u64,
        pub(crate) validity: &'static str,
        pub(crate) also_v1: bool,
    }

    impl Default for Says {
        fn default() -> Self {
            Self {
                sequence: 1,
                validity: "2100-01-01T00:00:00.000000001Z",
                also_v1: true,
            }
        }
    }

    fn data(says: &Says) -> Vec<u8> {
        let bytes = |text: &str| Value::Bytes(text.as_bytes().to_vec().into());
        let entries = [
            ("TTL", Value::Integer(1_000_000_000)),
            ("Value", bytes("/ipfs/bafkqaaa")),
            ("Sequence", Value::Integer(says.sequence.into())),
            ("Validity", bytes(says.validity)),
            ("ValidityType", Value::Integer(0)),
        ];
        cbor::encode(&Value::Map(
            entries
                .map(|(name, value)| (name.to_owned(), value))
                .to_vec(),
        ))
    }

    pub(crate) fn record(keys: &Keypair, says: &Says) -> Vec<u8> {
        let data = data(says);
        let signature = keys.sign(&[SIGNED_AS, &data].concat()).unwrap();
        let mut out = BytesMut::new();
        if says.also_v1 {
            put_bytes(&mut out, 1, b"/ipfs/bafkqaaa");
            put_bytes(&mut out, 2, b"nobody looks at this one");
            put_number(&mut out, 3, 0);
            put_bytes(&mut out, 4, says.validity.as_bytes());
            put_number(&mut out, 5, says.sequence);
            put_number(&mut out, 6, 1_000_000_000);
        }
        if keys.public().encode_protobuf().len() > 42 {
            put_bytes(&mut out, 7, &keys.public().encode_protobuf());
        }
        put_bytes(&mut out, 8, &signature);
        put_bytes(&mut out, 9, &data);
        out.to_vec()
    }

    fn named() -> (Keypair, PeerId) {
        let keys = Keypair::generate_ed25519();
        let name = keys.public().to_peer_id();
        (keys, name)
    }

    #[test]
    fn a_signed_record_says_what_it_says_and_keeps_its_bytes() {
        let (keys, name) = named();
        for also_v1 in [true, false] {
            let says = Says {
                also_v1,
                ..Says::default()
            };
            let bytes = record(&keys, &says);
            let read = Record::valid(&name, &bytes, SystemTime::now()).unwrap();
            assert_eq!(read.bytes(), bytes);
            assert_eq!((read.value(), read.sequence()), (&b"/ipfs/bafkqaaa"[..], 1));
            assert_eq!(read.ttl(), Duration::from_secs(1));
            let since = read.expires().duration_since(SystemTime::UNIX_EPOCH);
            assert_eq!(since.unwrap(), Duration::new(4_102_444_800, 1));
        }
    }

    #[test]
    fn names_are_read_in_every_form_they_are_written_in() {
        let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let name: PeerId = peer.parse().unwrap();
        let hash = cairn_store::cid::Multihash::from_bytes(&name.to_bytes()).unwrap();
        let cid = cairn_store::Cid::new_v1(LIBP2P_KEY, hash).to_string();
        assert_eq!([super::name(peer), super::name(&cid)], [Some(name); 2]);
        let text = text(&name);
        assert!(text.starts_with("k51"), "{text}");
        assert_eq!(super::name(&text), Some(name));
        for wrong in ["", "bafkqaaa", "example.com", "12D3"] {
            assert_eq!(super::name(wrong), None, "{wrong}");
        }
    }

    /// The records that the public gateway suite has for its readers, under their names.
    fn of_the_suite(about: &str) -> Vec<(PeerId, Vec<u8>)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/ipns");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            if path.extension().is_some_and(|kind| kind == "ipns-record") && name.ends_with(about) {
                let name = super::name(name.split('_').next().unwrap()).unwrap();
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
        assert!(!found.is_empty(), "{about}");
        found
    }

    #[test]
    fn the_suites_records_are_taken_or_refused_as_it_says() {
        let read = |about: &str| {
            let of = of_the_suite(about).into_iter();
            let read = of.map(|(name, bytes)| (Record::decode(&name, &bytes), bytes));
            read.collect::<Vec<_>>()
        };
        for (about, value) in [
            ("_v2", "/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi"),
            ("_v1-v2", "/ipfs/bafkqaddwgevxmmraojswg33smq"),
            (
                "_v1-v2-broken-signature-v1",
                "/ipfs/bafkqahtwgevxmmrao5uxi2bamjzg623fnyqhg2lhnzqxi5lsmuqhmmi",
            ),
            // By an RSA key, which is in the record.
            (
                "QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3",
                "/ipfs/bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am",
            ),
            (
                "k51qzi5uqu5djokp3m1keo36hoxtd6u3a1d2rg1camf6al7p3huy63dojlm57c",
                "/ipfs/bafybeib3ffl2teiqdncv3mkz4r23b5ctrwkzrrhctdbne6iboayxuxk5ui/root2",
            ),
        ] {
            for (record, bytes) in read(about) {
                let record = record.unwrap();
                assert_eq!(record.value(), value.as_bytes(), "{about}");
                assert_eq!(record.bytes(), bytes, "{about}");
            }
        }
        for (about, error) in [
            ("_v1", RecordError::Unsigned),
            ("_v1-v2-broken-v1-value", RecordError::Differs("value")),
            ("_v1-v2-broken-signature-v2", RecordError::Signature),
        ] {
            for (record, _) in read(about) {
                assert_eq!(record, Err(error.clone()), "{about}");
            }
        }
        assert_eq!(read("").len(), 12, "all of them");
        // What is refused can be looked at all the same.
        for (about, (v1, v2), value) in [
            ("_v1", (true, false), "/ipfs/bafkqadtwgeww63tmpeqhezldn5zgi"),
            ("_v2", (false, true), "/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi"),
            (
                "_v1-v2-broken-v1-value",
                (true, true),
                "/ipfs/bafkqahtwgevxmmraojswg33smqqho2lunaqge4tpnnsw4idwmfwhkzi",
            ),
        ] {
            let (_, bytes) = of_the_suite(about).remove(0);
            let look = Look::at(&bytes).unwrap();
            assert_eq!((look.has_v1, look.has_v2), (v1, v2), "{about}");
            assert_eq!(String::from_utf8(look.value).unwrap(), value);
            assert_eq!(look.sequence, 0, "{about}");
            assert_eq!(look.ttl, Duration::from_secs(1800), "{about}");
            assert_eq!(look.validity, b"2123-08-14T12:17:03.694052Z", "{about}");
        }
    }

    #[test]
    fn a_name_that_is_a_hash_needs_the_key_in_its_record() {
        let keys = Keypair::generate_ecdsa();
        let name = keys.public().to_peer_id();
        let bytes = record(&keys, &Says::default());
        Record::decode(&name, &bytes).unwrap();
        let other = Record::decode(&PeerId::random(), &bytes);
        assert_eq!(other, Err(RecordError::OtherKey));
        let small = record(&named().0, &Says::default());
        assert_eq!(Record::decode(&name, &small), Err(RecordError::Key));
    }

    #[test]
    fn a_name_is_of_no_rsa_key_that_is_too_long() {
        for (bits, is_read) in [(8192, true), (8200, false)] {
            let given = public_key::tests::rsa_of(bits);
            let key = PublicKey::try_decode_protobuf(&given).unwrap();
            let read = key_of(&key.to_peer_id(), Some(&given));
            assert_eq!(read.is_ok(), is_read, "{bits}: {read:?}");
        }
    }

    #[test]
    fn what_is_not_signed_or_not_the_same_is_refused() {
        let (keys, name) = named();
        let says = Says::default();
        let good = record(&keys, &says);
        assert_eq!(
            Record::decode(&named().1, &good),
            Err(RecordError::Signature)
        );
        let mut broken = good.clone();
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(Record::decode(&name, &broken), Err(RecordError::Signature));
        // A later field of the same number replaces the one before.
        let mut replaced = BytesMut::from(&good[..]);
        put_bytes(&mut replaced, 1, b"/ipfs/bafkqabq");
        let differs = Record::decode(&name, &replaced);
        assert_eq!(differs, Err(RecordError::Differs("value")));
        let mut replaced = BytesMut::from(&good[..]);
        put_number(&mut replaced, 5, 2);
        let differs = Record::decode(&name, &replaced);
        assert_eq!(differs, Err(RecordError::Differs("sequence")));
        let mut v1_only = BytesMut::new();
        put_bytes(&mut v1_only, 1, b"/ipfs/bafkqaaa");
        put_bytes(&mut v1_only, 2, b"signature");
        assert_eq!(Record::decode(&name, &v1_only), Err(RecordError::Unsigned));
        let large = vec![0; RECORD_BYTES_MAX + 1];
        let refused = Record::decode(&name, &large);
        assert_eq!(refused, Err(RecordError::TooLarge(RECORD_BYTES_MAX + 1)));
    }

    #[test]
    fn an_expired_record_is_refused_and_the_later_one_is_newer() {
        let (keys, name) = named();
        let at = |sequence, validity| {
            let says = Says {
                sequence,
                validity,
                ..Says::default()
            };
            record(&keys, &says)
        };
        let now = SystemTime::now();
        let old = Record::valid(&name, &at(1, "2020-01-01T00:00:00Z"), now);
        assert_eq!(old, Err(RecordError::Expired));
        let unclear = Record::valid(&name, &at(1, "tomorrow"), now);
        assert_eq!(unclear, Err(RecordError::Data("Validity")));
        let read = |bytes: Vec<u8>| Record::valid(&name, &bytes, now).unwrap();
        let [one, longer, next] = [
            at(1, "2100-01-01T00:00:00Z"),
            at(1, "2101-01-01T00:00:00Z"),
            at(2, "2090-01-01T00:00:00Z"),
        ]
        .map(read);
        assert_eq!(one.age(&longer), Ordering::Less);
        assert_eq!(longer.age(&next), Ordering::Less);
        assert_eq!(next.age(&next.clone()), Ordering::Equal);
    }
}
