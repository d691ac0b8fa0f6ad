//! Which CIDs exist here: the hashes and codecs that are read and written, and their limits.
//!
//! `Cid` is the field's own type with room for the longest digest we accept, an identity digest of
//! 128 bytes. A CID that came from outside passes [`check`] before anybody acts on it.

use std::fmt;
use std::str::FromStr;
use unsigned_varint::decode::u64 as varint;

/// A content identifier with room for digests of up to [`DIGEST_BYTES_MAX`] bytes.
pub type Cid = ::cid::CidGeneric<DIGEST_BYTES_MAX>;
/// The hash inside a CID.
pub type Multihash = multihash::Multihash<DIGEST_BYTES_MAX>;
/// CID version 0 or 1.
pub use ::cid::Version;

/// Codec of bytes without links.
pub const RAW: u64 = 0x55;
/// Codec of UnixFS nodes.
pub const DAG_PB: u64 = 0x70;
/// Codec of CBOR with links.
pub const DAG_CBOR: u64 = 0x71;
/// Codec of JSON with links.
pub const DAG_JSON: u64 = 0x0129;
/// Codec of CBOR whose links, if any, are not followed.
pub const CBOR: u64 = 0x51;
/// Codec of JSON without links.
pub const JSON: u64 = 0x0200;
/// Codec of a public key, the name of a peer or an IPNS record.
pub const LIBP2P_KEY: u64 = 0x72;

/// Longest digest, reached only by identity and BLAKE3.
pub const DIGEST_BYTES_MAX: usize = 128;
/// Shortest digest of a hash: a shorter one is too easily met by other bytes.
pub const DIGEST_BYTES_MIN: usize = 20;
/// Longest binary CID taken from a peer.
pub const CID_BYTES_MAX: usize = 168;

/// A codec by its registered name.
pub fn codec_from_name(name: &str) -> Option<u64> {
    CODECS
        .iter()
        .find(|(_, known)| *known == name)
        .map(|(code, _)| *code)
}

/// The registered name of a codec this program reads.
pub fn codec_name(code: u64) -> Option<&'static str> {
    CODECS
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, name)| *name)
}

/// A hash function that CIDs may use here: those that IPFS nodes agree on, and none of them less than 20 bytes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashKind {
    /// SHA2-256, the default everywhere.
    Sha2_256,
    /// SHA2-512.
    Sha2_512,
    /// BLAKE3, of 32 bytes unless a CID has more or fewer.
    Blake3,
    /// BLAKE2b of so many bytes, 20 to 64.
    Blake2b(u8),
    /// The bytes themselves.
    Identity,
    /// SHA1, which git names things by.
    Sha1,
    /// SHA2-256 of the SHA2-256.
    DoubleSha2_256,
    /// SHA3-224.
    Sha3_224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
    /// SHA3-512.
    Sha3_512,
    /// SHAKE256 with 64 bytes of output.
    Shake256,
    /// Keccak with 28 bytes of output, as it was before it became SHA3.
    Keccak224,
    /// Keccak with 32 bytes of output.
    Keccak256,
    /// Keccak with 48 bytes of output.
    Keccak384,
    /// Keccak with 64 bytes of output.
    Keccak512,
    /// BLAKE2s of so many bytes, 20 to 32.
    Blake2s(u8),
}

impl HashKind {
    /// Every hash, of BLAKE2 the usual length alone, in the order that messages list them.
    pub const ALL: [Self; 17] = [
        Self::Sha2_256,
        Self::Sha2_512,
        Self::Blake3,
        Self::Blake2b(32),
        Self::Identity,
        Self::Sha1,
        Self::DoubleSha2_256,
        Self::Sha3_224,
        Self::Sha3_256,
        Self::Sha3_384,
        Self::Sha3_512,
        Self::Shake256,
        Self::Keccak224,
        Self::Keccak256,
        Self::Keccak384,
        Self::Keccak512,
        Self::Blake2s(32),
    ];

    /// The multicodec code.
    pub const fn code(self) -> u64 {
        match self {
            Self::Sha2_256 => 0x12,
            Self::Sha2_512 => 0x13,
            Self::Blake3 => 0x1e,
            Self::Blake2b(bytes) => 0xb200 + bytes as u64,
            Self::Identity => 0x00,
            Self::Sha1 => 0x11,
            Self::DoubleSha2_256 => 0x56,
            Self::Sha3_224 => 0x17,
            Self::Sha3_256 => 0x16,
            Self::Sha3_384 => 0x15,
            Self::Sha3_512 => 0x14,
            Self::Shake256 => 0x19,
            Self::Keccak224 => 0x1a,
            Self::Keccak256 => 0x1b,
            Self::Keccak384 => 0x1c,
            Self::Keccak512 => 0x1d,
            Self::Blake2s(bytes) => 0xb240 + bytes as u64,
        }
    }

    /// The registered name.
    pub fn name(self) -> &'static str {
        let sized = |names: &[&'static str], bytes: u8| {
            let at = usize::from(bytes).checked_sub(DIGEST_BYTES_MIN);
            at.and_then(|at| names.get(at).copied()).unwrap_or("blake2")
        };
        match self {
            Self::Sha2_256 => "sha2-256",
            Self::Sha2_512 => "sha2-512",
            Self::Blake3 => "blake3",
            Self::Blake2b(bytes) => sized(&BLAKE2B, bytes),
            Self::Identity => "identity",
            Self::Sha1 => "sha1",
            Self::DoubleSha2_256 => "dbl-sha2-256",
            Self::Sha3_224 => "sha3-224",
            Self::Sha3_256 => "sha3-256",
            Self::Sha3_384 => "sha3-384",
            Self::Sha3_512 => "sha3-512",
            Self::Shake256 => "shake-256",
            Self::Keccak224 => "keccak-224",
            Self::Keccak256 => "keccak-256",
            Self::Keccak384 => "keccak-384",
            Self::Keccak512 => "keccak-512",
            Self::Blake2s(bytes) => sized(&BLAKE2S, bytes),
        }
    }

    /// The hash with this multicodec code, if it is one of ours.
    pub fn from_code(code: u64) -> Option<Self> {
        let sized = |from: u64| u8::try_from(code.checked_sub(from)?).ok();
        match code {
            0xb214..=0xb240 => sized(0xb200).map(Self::Blake2b),
            0xb254..=0xb260 => sized(0xb240).map(Self::Blake2s),
            _ => Self::ALL.into_iter().find(|hash| hash.code() == code),
        }
    }

    /// Length of a whole digest, `None` where it depends on the input.
    pub const fn digest_bytes(self) -> Option<usize> {
        match self {
            Self::Sha1 => Some(20),
            Self::Sha3_224 | Self::Keccak224 => Some(28),
            Self::Sha2_256
            | Self::DoubleSha2_256
            | Self::Sha3_256
            | Self::Keccak256
            | Self::Blake3 => Some(32),
            Self::Sha3_384 | Self::Keccak384 => Some(48),
            Self::Sha2_512 | Self::Sha3_512 | Self::Keccak512 | Self::Shake256 => Some(64),
            Self::Blake2b(bytes) | Self::Blake2s(bytes) => Some(bytes as usize),
            Self::Identity => None,
        }
    }

    /// Whether a CID may have a digest of so many bytes. One may be cut, though not to less than any hash may have, and
    /// BLAKE3 goes on for as long as one likes.
    pub const fn allows(self, bytes: usize) -> bool {
        let most = match self {
            Self::Identity => return bytes <= DIGEST_BYTES_MAX,
            Self::Blake3 => DIGEST_BYTES_MAX,
            _ => match self.digest_bytes() {
                Some(whole) => whole,
                None => 0,
            },
        };
        DIGEST_BYTES_MIN <= bytes && bytes <= most
    }
}

impl fmt::Display for HashKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for HashKind {
    type Err = CidError;

    fn from_str(name: &str) -> Result<Self, CidError> {
        let sized = |names: &[&str], kind: fn(u8) -> Self| {
            let at = names.iter().position(|known| *known == name)?;
            u8::try_from(at + DIGEST_BYTES_MIN).ok().map(kind)
        };
        Self::ALL
            .into_iter()
            .find(|hash| hash.name() == name)
            .or_else(|| sized(&BLAKE2B, Self::Blake2b))
            .or_else(|| sized(&BLAKE2S, Self::Blake2s))
            .ok_or_else(|| CidError::UnknownHashName(name.to_owned()))
    }
}

/// Why a CID is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// The text or the bytes are no CID.
    #[error("invalid cid {text:?}: {why}")]
    Malformed {
        /// What was given, shortened.
        text: String,
        /// What the parser said.
        why: String,
    },
    /// The hash function is not one of ours.
    #[error("unknown hash function 0x{0:x} in a CID; known are {known}", known = known_hashes())]
    UnknownHash(u64),
    /// The hash function is not one of ours, by name.
    #[error("unknown hash function {0:?}; known are {known}", known = known_hashes())]
    UnknownHashName(String),
    /// The digest has a length that this hash does not give.
    #[error("a {hash} digest cannot have {bytes} bytes")]
    DigestLength {
        /// The hash function.
        hash: HashKind,
        /// The length found.
        bytes: usize,
    },
}

/// Reads a CID in any multibase, or a CIDv0, and checks it.
pub fn parse(text: &str) -> Result<Cid, CidError> {
    let cid = parse_link(text)?;
    check(&cid)?;
    Ok(cid)
}

/// Reads a binary CID off the front of `bytes`, of any hash.
pub fn read(bytes: &mut &[u8]) -> Result<Cid, String> {
    if let Some((cid, rest)) = read_usual(bytes) {
        *bytes = rest;
        return Ok(cid);
    }
    let before = bytes.len();
    let cid = Cid::read_bytes(&mut *bytes).map_err(|error| error.to_string())?;
    has_one_form(&cid)?;
    if cid.encoded_len() != before - bytes.len() {
        return Err("a number in a longer form than it needs".to_owned());
    }
    Ok(cid)
}

/// What nearly all CIDs are, without the reader below, which takes a byte at a time and has the reasons.
fn read_usual(bytes: &[u8]) -> Option<(Cid, &[u8])> {
    let v1 = bytes.strip_prefix(&[1]);
    let (codec, rest) = match v1 {
        Some(rest) => varint(rest).ok()?,
        None if bytes.starts_with(&V0_START) => (DAG_PB, bytes),
        None => return None,
    };
    let (code, rest) = varint(rest).ok()?;
    let (length, rest) = varint(rest).ok()?;
    let (digest, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let hash = Multihash::wrap(code, digest).ok()?;
    let cid = match v1 {
        Some(_) => Cid::new_v1(codec, hash),
        None => Cid::new_v0(hash).ok()?,
    };
    has_one_form(&cid).ok()?;
    (cid.encoded_len() == bytes.len() - rest.len()).then_some((cid, rest))
}

/// The tenth byte of a varint loses bits when it is read, so that many would be read as the same.
/// The field's numbers have at most nine bytes.
fn has_one_form(cid: &Cid) -> Result<(), String> {
    let fits = |number: u64| number >> VARINT_BITS_MAX == 0;
    if fits(cid.codec()) && fits(cid.hash().code()) {
        Ok(())
    } else {
        Err(format!("a number of more than {VARINT_BITS_MAX} bits"))
    }
}

/// Reads a CID as a link inside a block may have it: of any hash, also ones that we do not know.
pub fn parse_link(text: &str) -> Result<Cid, CidError> {
    let malformed = |why: String| CidError::Malformed {
        text: text.chars().take(TEXT_SHOWN).collect(),
        why,
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(malformed(format!(
            "longer than {TEXT_BYTES_MAX} characters"
        )));
    }
    let cid = Cid::from_str(text).map_err(|error| malformed(error.to_string()))?;
    has_one_form(&cid).map_err(malformed)?;
    // The parser takes what it needs: without this, one content would have endless names.
    let whole = match cid.version() {
        // Never in another base than its own, which would be a second name.
        Version::V0 => cid.to_string() == text,
        Version::V1 => multibase::decode(text).is_ok_and(|(base, bytes)| {
            // Base 45 has groups of letters beyond what they stand for; they would be cut.
            bytes == cid.to_bytes() && multibase::encode(base, bytes).eq_ignore_ascii_case(text)
        }),
    };
    if !whole {
        return Err(malformed(
            "more follows, or it has another form in its base".to_owned(),
        ));
    }
    Ok(cid)
}

/// Refuses hashes that we do not have and digests of impossible lengths.
pub fn check(cid: &Cid) -> Result<(), CidError> {
    let code = cid.hash().code();
    let hash = HashKind::from_code(code).ok_or(CidError::UnknownHash(code))?;
    let bytes = cid.hash().digest().len();
    if hash.allows(bytes) {
        Ok(())
    } else {
        Err(CidError::DigestLength { hash, bytes })
    }
}

/// The block that an identity CID carries in itself.
pub fn is_identity(cid: &Cid) -> bool {
    cid.hash().code() == HashKind::Identity.code()
}

/// The same content named by a CIDv1.
pub fn to_v1(cid: &Cid) -> Cid {
    Cid::new_v1(cid.codec(), *cid.hash())
}

fn known_hashes() -> String {
    format!(
        "{}, and the other lengths of blake2b and blake2s from 160 bits",
        HashKind::ALL.map(HashKind::name).join(", ")
    )
}

/// How every CIDv0 begins: SHA2-256, 32 bytes.
const V0_START: [u8; 2] = [0x12, 32];
/// BLAKE2b by its length in bits, from 20 bytes.
const BLAKE2B: [&str; 45] = [
    "blake2b-160",
    "blake2b-168",
    "blake2b-176",
    "blake2b-184",
    "blake2b-192",
    "blake2b-200",
    "blake2b-208",
    "blake2b-216",
    "blake2b-224",
    "blake2b-232",
    "blake2b-240",
    "blake2b-248",
    "blake2b-256",
    "blake2b-264",
    "blake2b-272",
    "blake2b-280",
    "blake2b-288",
    "blake2b-296",
    "blake2b-304",
    "blake2b-312",
    "blake2b-320",
    "blake2b-328",
    "blake2b-336",
    "blake2b-344",
    "blake2b-352",
    "blake2b-360",
    "blake2b-368",
    "blake2b-376",
    "blake2b-384",
    "blake2b-392",
    "blake2b-400",
    "blake2b-408",
    "blake2b-416",
    "blake2b-424",
    "blake2b-432",
    "blake2b-440",
    "blake2b-448",
    "blake2b-456",
    "blake2b-464",
    "blake2b-472",
    "blake2b-480",
    "blake2b-488",
    "blake2b-496",
    "blake2b-504",
    "blake2b-512",
];
/// BLAKE2s by its length in bits, from 20 bytes.
const BLAKE2S: [&str; 13] = [
    "blake2s-160",
    "blake2s-168",
    "blake2s-176",
    "blake2s-184",
    "blake2s-192",
    "blake2s-200",
    "blake2s-208",
    "blake2s-216",
    "blake2s-224",
    "blake2s-232",
    "blake2s-240",
    "blake2s-248",
    "blake2s-256",
];

const CODECS: [(u64, &str); 7] = [
    (RAW, "raw"),
    (DAG_PB, "dag-pb"),
    (DAG_CBOR, "dag-cbor"),
    (DAG_JSON, "dag-json"),
    (CBOR, "cbor"),
    (JSON, "json"),
    (LIBP2P_KEY, "libp2p-key"),
];

/// Most bits of a number inside a CID, as the varints of the field are bounded.
const VARINT_BITS_MAX: u32 = 63;
/// Longest text of a CID: the longest binary one in base 2, its least dense encoding.
const TEXT_BYTES_MAX: usize = 8 * CID_BYTES_MAX + 1;
/// How much of a wrong text an error repeats.
const TEXT_SHOWN: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_versions_of_one_multihash() {
        let v0 = parse("QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR").unwrap();
        let v1 = parse("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi").unwrap();
        assert_eq!(to_v1(&v0), v1);
        assert_eq!(v0.hash(), v1.hash());
    }

    proptest::proptest! {
        /// Also with bytes that are none, cut or followed by others.
        #[test]
        fn the_short_way_reads_what_the_long_way_reads(
            start in 0..4_usize,
            numbers in proptest::array::uniform3(0..300_u64),
            wide in proptest::prelude::any::<u64>(),
            digest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
        ) {
            let mut bytes = match start {
                0 => vec![1],
                1 => V0_START.to_vec(),
                2 => vec![0x12, 0x80, 0x00],
                _ => Vec::new(),
            };
            let [codec, code, length] = numbers;
            for number in [codec, if code % 2 == 0 { code } else { wide }, length % 70] {
                let mut buffer = unsigned_varint::encode::u64_buffer();
                if start != 1 {
                    bytes.extend_from_slice(unsigned_varint::encode::u64(number, &mut buffer));
                }
            }
            bytes.extend_from_slice(&digest);
            let mut rest = bytes.as_slice();
            let long = Cid::read_bytes(&mut rest).ok();
            let long = long.filter(|cid| {
                has_one_form(cid).is_ok() && cid.encoded_len() == bytes.len() - rest.len()
            });
            let long = long.map(|cid| (cid, rest));
            proptest::prop_assert_eq!(read_usual(&bytes), long);
            let mut cursor = bytes.as_slice();
            proptest::prop_assert_eq!(read(&mut cursor).ok().map(|cid| (cid, cursor)), long);
        }
    }

    #[test]
    fn refuses_what_is_no_cid_and_says_what_it_got() {
        let error = parse("hello").unwrap_err();
        assert!(error.to_string().contains("hello"), "{error}");
    }

    #[test]
    fn one_content_has_one_name_in_each_base() {
        let text = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
        assert!(parse(text).is_ok());
        for tail in ["a", "aa", "aaaaaaaa"] {
            assert!(parse(&format!("{text}{tail}")).is_err(), "{tail}");
        }
        assert!(parse(&"b".repeat(100_000)).is_err());
        assert!(parse_link("RBB000BB*00007B7P5").is_ok());
        assert!(parse_link("RBB000BB*00007B7BB").is_err());
    }

    #[test]
    fn takes_identity_digests_up_to_their_limit() {
        let whole = Multihash::wrap(0, &[7; DIGEST_BYTES_MAX]).unwrap();
        assert_eq!(check(&Cid::new_v1(RAW, whole)), Ok(()));
        assert!(Multihash::wrap(0, &[7; DIGEST_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn refuses_numbers_that_more_than_one_form_is_read_as() {
        for last in [1, 0x0b, 0x60] {
            let mut bytes = vec![1];
            bytes.extend([0xc2; 9]);
            bytes.extend([last, 0, 0]);
            assert!(
                read(&mut &bytes[..]).is_err(),
                "a codec ending with {last:#x}"
            );
            let mut bytes = vec![1, 0x55];
            bytes.extend([0xc2; 9]);
            bytes.extend([last, 0]);
            assert!(
                read(&mut &bytes[..]).is_err(),
                "a hash ending with {last:#x}"
            );
        }
        let wide = Cid::new_v1(1 << 63, Multihash::default());
        assert!(parse_link(&wide.to_string()).is_err());
        let widest = Cid::new_v1((1 << 63) - 1, Multihash::default());
        assert_eq!(parse_link(&widest.to_string()), Ok(widest));
        assert_eq!(read(&mut &widest.to_bytes()[..]), Ok(widest));
    }

    #[test]
    fn an_old_cid_stands_in_its_own_base_only() {
        let cid = parse("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH").unwrap();
        let bytes = cid.to_bytes();
        for base in [
            multibase::Base::Base16Lower,
            multibase::Base::Base32Lower,
            multibase::Base::Base58Btc,
        ] {
            assert!(
                parse_link(&multibase::encode(base, &bytes)).is_err(),
                "{base:?}"
            );
        }
        assert!(parse_link(&format!("/ipfs/{cid}")).is_err());
    }

    #[test]
    fn a_digest_may_be_cut_to_twenty_bytes_and_no_further() {
        let of = |code, bytes: usize| {
            check(&Cid::new_v1(
                RAW,
                Multihash::wrap(code, &vec![7; bytes]).unwrap(),
            ))
        };
        for (code, shortest, longest) in [
            (0x12, 20, 32),
            (0x11, 20, 20),
            (0x19, 20, 64),
            (0x1e, 20, 128),
            (0xb214, 20, 20),
            (0xb240, 20, 64),
            (0xb260, 20, 32),
            (0x00, 0, 128),
        ] {
            assert_eq!(of(code, shortest), Ok(()), "{code:#x}");
            assert_eq!(of(code, longest), Ok(()), "{code:#x}");
            for bytes in [shortest.wrapping_sub(1), longest + 1] {
                if bytes <= DIGEST_BYTES_MAX {
                    let hash = HashKind::from_code(code).unwrap();
                    let refused = Err(CidError::DigestLength { hash, bytes });
                    assert_eq!(of(code, bytes), refused, "{code:#x}");
                }
            }
        }
    }

    /// Those that boxo's verifcid allows (`verifcid/allowlist.go` of boxo 0.43).
    #[test]
    fn the_hashes_are_those_that_nodes_agree_on_and_each_is_found_by_its_name() {
        let plain = [
            0x00, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e,
            0x56,
        ];
        for code in 0..0x20000 {
            let sized =
                (0xb201 + 19..=0xb240).contains(&code) || (0xb241 + 19..=0xb260).contains(&code);
            let known = HashKind::from_code(code);
            assert_eq!(known.is_some(), plain.contains(&code) || sized, "{code:#x}");
            if let Some(hash) = known {
                assert_eq!(hash.code(), code);
                assert_eq!(hash.name().parse(), Ok(hash));
            }
        }
        assert_eq!(HashKind::Blake2b(64).name(), "blake2b-512");
        assert_eq!(HashKind::Blake2s(20).name(), "blake2s-160");
    }
}
