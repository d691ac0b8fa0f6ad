//! The bytes of a key's file: the public key in the clear, the private one plain or sealed. No disk, no secrets.
//!
//! `docs/on-disk-format.md` has the layout. A file that was cut or changed is told by its checksum, so that what does
//! not open although it is whole was sealed with another secret.

use super::key::{KEY_BYTES_MAX, Kind};
use crate::public_key;
use libp2p::identity::PublicKey;
use zeroize::Zeroizing;

/// A file's content, understood as far as that needs no secret.
pub(super) struct Parsed<'a> {
    /// The key that others see.
    pub(super) public: PublicKey,
    /// How the private one lies there.
    pub(super) lock: Lock,
    /// Everything before it, which sealing holds fast.
    pub(super) head: &'a [u8],
    /// The private key, plain or sealed.
    pub(super) body: &'a [u8],
}

/// How a private key lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// As it is.
    Plain,
    /// Sealed with a passphrase.
    Passphrase {
        cost: Cost,
        salt: [u8; PASSPHRASE_SALT_BYTES],
        own: [u8; SALT_BYTES],
    },
    /// Sealed with a key file.
    KeyFile { own: [u8; SALT_BYTES] },
}

/// What it costs to make a key of a passphrase with Argon2id, in one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) kibibytes: u32,
    pub(super) passes: u32,
}

impl Cost {
    /// Whether it is one that we would pay, whoever wrote it.
    const fn is_bearable(self) -> bool {
        self.kibibytes >= KIBIBYTES_MIN
            && self.kibibytes <= KIBIBYTES_MAX
            && self.passes >= 1
            && self.passes <= PASSES_MAX
    }
}

/// Why a file holds no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Not a byte.
    #[error("it is empty")]
    Empty,
    /// Too many bytes.
    #[error("it is longer than any key's")]
    Long,
    /// Something else.
    #[error("it does not begin as a key's file does")]
    Foreign,
    /// A part is missing, or a byte is another.
    #[error("it is cut off, or some of it was changed: its checksum is wrong")]
    Checksum,
    /// Written by a later program.
    #[error("it has the format {0}, which this program does not know; a newer one wrote it")]
    Version(u8),
    /// A checksum that is right over what is not.
    #[error("{0}")]
    Content(&'static str),
    /// Its parameters are too costly.
    #[error(
        "opening it would take {kibibytes} KiB of memory and {passes} passes; {KIBIBYTES_MAX} and {PASSES_MAX} are \
         allowed"
    )]
    Cost {
        /// The memory.
        kibibytes: u32,
        /// How often it is gone over.
        passes: u32,
    },
}

/// Everything before the private key, of which there will be `length` bytes.
pub(super) fn head(public: &PublicKey, lock: &Lock, length: usize) -> Option<Vec<u8>> {
    let public = public.encode_protobuf();
    let mut out = Vec::new();
    out.extend(MAGIC);
    out.extend([VERSION, lock.code()]);
    out.extend(u16::try_from(public.len()).ok()?.to_be_bytes());
    out.extend(public);
    match lock {
        Lock::Plain => {}
        Lock::Passphrase { cost, salt, own } => {
            out.extend(cost.kibibytes.to_be_bytes());
            out.extend(cost.passes.to_be_bytes());
            out.extend(salt);
            out.extend(own);
        }
        Lock::KeyFile { own } => out.extend(own),
    }
    out.extend(u16::try_from(length).ok()?.to_be_bytes());
    Some(out)
}

/// A whole file.
pub(super) fn whole(head: &[u8], body: &[u8]) -> Zeroizing<Vec<u8>> {
    let length = head.len() + body.len() + CHECKSUM_BYTES;
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    out.extend(head);
    out.extend(body);
    let sum = crc32c::crc32c(&out);
    out.extend(sum.to_be_bytes());
    out
}

/// Reads a file's content.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Damage> {
    if bytes.is_empty() {
        return Err(Damage::Empty);
    }
    if bytes.len() > FILE_BYTES_MAX {
        return Err(Damage::Long);
    }
    if !bytes.starts_with(MAGIC) {
        return Err(Damage::Foreign);
    }
    let (content, sum) = bytes.split_last_chunk().ok_or(Damage::Checksum)?;
    if crc32c::crc32c(content) != u32::from_be_bytes(*sum) {
        return Err(Damage::Checksum);
    }
    let mut reader = Reader(content.get(MAGIC.len()..).ok_or(Damage::Checksum)?);
    let [version, code] = reader.array()?;
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    let public = reader.counted()?;
    let public = public_key::read(public).map_err(|_| Damage::Content("its public key is none"))?;
    let lock = match code {
        PLAIN => Lock::Plain,
        BY_PASSPHRASE => {
            let cost = Cost {
                kibibytes: u32::from_be_bytes(reader.array()?),
                passes: u32::from_be_bytes(reader.array()?),
            };
            let (salt, own) = (reader.array()?, reader.array()?);
            if !cost.is_bearable() {
                let Cost { kibibytes, passes } = cost;
                return Err(Damage::Cost { kibibytes, passes });
            }
            Lock::Passphrase { cost, salt, own }
        }
        BY_KEY_FILE => Lock::KeyFile {
            own: reader.array()?,
        },
        _ => return Err(Damage::Content("it is sealed in no way that is known")),
    };
    let body = reader.counted()?;
    if !reader.0.is_empty() {
        return Err(Damage::Content("there is more behind the key"));
    }
    let head = content.get(..content.len() - body.len());
    Ok(Parsed {
        public,
        lock,
        head: head.ok_or(CUT)?,
        body,
    })
}

impl Parsed<'_> {
    /// The kind of its key.
    pub(super) fn kind(&self) -> Kind {
        Kind::of(&self.public)
    }
}

impl Lock {
    const fn code(&self) -> u8 {
        match self {
            Self::Plain => PLAIN,
            Self::Passphrase { .. } => BY_PASSPHRASE,
            Self::KeyFile { .. } => BY_KEY_FILE,
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (array, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(*array)
    }

    /// Bytes that stand behind their number.
    fn counted(&mut self) -> Result<&'a [u8], Damage> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// A checksum that is right, and yet a part is missing.
const CUT: Damage = Damage::Content("a part of it is missing");
/// What every key's file begins with.
pub(crate) const MAGIC: &[u8] = b"cairnkey";
/// The format that is written.
const VERSION: u8 = 1;
const PLAIN: u8 = 0;
const BY_PASSPHRASE: u8 = 1;
const BY_KEY_FILE: u8 = 2;
const CHECKSUM_BYTES: usize = 4;
/// The salt of a passphrase, as RFC 9106 recommends; all keys of a store have the same one, so that a passphrase is
/// paid for once.
pub(super) const PASSPHRASE_SALT_BYTES: usize = 16;
/// The salt of one file: what seals it seals nothing else.
pub(super) const SALT_BYTES: usize = 32;
/// Longest file: the longest key and what is around it.
pub(super) const FILE_BYTES_MAX: usize = KEY_BYTES_MAX + (4 << 10);
/// Least memory that Argon2 works with.
const KIBIBYTES_MIN: u32 = 8;
/// Most memory that a file may make us use, and how often it is gone over: some seconds.
const KIBIBYTES_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 16;
