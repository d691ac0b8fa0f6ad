//! A private key in memory: what kind it is, what it signs, and its bytes in libp2p's protobuf form.
//!
//! That form is the one that is kept and given away: `1: kind, 2: data`, where the data of an RSA key is PKCS#1, of an
//! Ed25519 key the seed and the public key, of a secp256k1 key the scalar, and of an ECDSA key (P-256) RFC 5915's DER.
//! RSA keys are aws-lc's here, because libp2p's library signs with 4,096 bits at most and cannot write them at all.

use super::forms;
use crate::protobuf::{Fields, Value};
use crate::public_key;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use libp2p::PeerId;
use libp2p::identity::{KeyType, Keypair, PublicKey, ecdsa, secp256k1};
use pkcs8::PrivateKeyInfoRef;
use zeroize::Zeroizing;

/// A private key. Its bytes are wiped when it is dropped, and no text shows them.
pub struct Key {
    kind: Kind,
    protobuf: Zeroizing<Vec<u8>>,
    public: PublicKey,
    signer: Signer,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Key({} {})", self.kind.name(), self.id())
    }
}

/// What signs.
enum Signer {
    Libp2p(Box<Keypair>),
    Rsa(rsa::KeyPair),
}

/// The kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ed25519: short and fast, and a name holds its whole public key.
    Ed25519,
    /// RSA with 2,048 to 8,192 bits.
    Rsa,
    /// ECDSA on secp256k1.
    Secp256k1,
    /// ECDSA on P-256; not every program resolves its names.
    Ecdsa,
}

/// What key to make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Make {
    /// An Ed25519 key.
    #[default]
    Ed25519,
    /// An RSA key.
    Rsa(RsaBits),
    /// A secp256k1 key.
    Secp256k1,
}

/// How long an RSA key may be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RsaBits {
    /// 2,048 bits.
    #[default]
    B2048,
    /// 3,072 bits.
    B3072,
    /// 4,096 bits.
    B4096,
    /// 8,192 bits: may take a minute to find.
    B8192,
}

/// Why bytes are no key, or a key is not had. Tells nothing of the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No bytes.
    #[error("it is empty")]
    Empty,
    /// Too many bytes.
    #[error("it has more than {KEY_BYTES_MAX} bytes, which no key has")]
    Long,
    /// No message of libp2p's.
    #[error("it is no key in libp2p's protobuf form ({0})")]
    Protobuf(&'static str),
    /// A type that there is not.
    #[error(
        "it is of type {0}, which is none of RSA (0), Ed25519 (1), secp256k1 (2) and ECDSA (3)"
    )]
    Type(u64),
    /// Its key is none.
    #[error("it says that it is a key of the kind {0} and holds none that works")]
    Damaged(&'static str),
    /// Too short or too long for RSA.
    #[error("its RSA key has {0} bits; keys with 2048 to 8192 bits are taken")]
    Bits(usize),
    /// Found one form, expected another.
    #[error("expected a key as {expected}, found {found}; {fix}")]
    Form {
        /// What was expected.
        expected: &'static str,
        /// What is there.
        found: String,
        /// What to do.
        fix: &'static str,
    },
    /// A PEM text that is damaged, or holds something else.
    #[error("expected a key in PKCS#8 (PEM), found {0}")]
    Pkcs8(String),
    /// The system or a library did not do its part.
    #[error("{0} failed; try again")]
    Failed(&'static str),
}

impl Kind {
    /// Its name, as `--type` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
            Self::Secp256k1 => "secp256k1",
            Self::Ecdsa => "ecdsa",
        }
    }

    /// The kind of a public key.
    pub(super) fn of(public: &PublicKey) -> Self {
        match public.key_type() {
            KeyType::Ed25519 => Self::Ed25519,
            KeyType::RSA => Self::Rsa,
            KeyType::Secp256k1 => Self::Secp256k1,
            KeyType::Ecdsa => Self::Ecdsa,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Rsa => 0,
            Self::Ed25519 => 1,
            Self::Secp256k1 => 2,
            Self::Ecdsa => 3,
        }
    }

    const fn numbered(number: u64) -> Result<Self, KeyError> {
        match number {
            0 => Ok(Self::Rsa),
            1 => Ok(Self::Ed25519),
            2 => Ok(Self::Secp256k1),
            3 => Ok(Self::Ecdsa),
            other => Err(KeyError::Type(other)),
        }
    }
}

impl RsaBits {
    /// From a number of bits.
    pub const fn new(bits: u32) -> Option<Self> {
        match bits {
            2048 => Some(Self::B2048),
            3072 => Some(Self::B3072),
            4096 => Some(Self::B4096),
            8192 => Some(Self::B8192),
            _ => None,
        }
    }

    const fn size(self) -> KeySize {
        match self {
            Self::B2048 => KeySize::Rsa2048,
            Self::B3072 => KeySize::Rsa3072,
            Self::B4096 => KeySize::Rsa4096,
            Self::B8192 => KeySize::Rsa8192,
        }
    }
}

impl Key {
    /// Makes one. An RSA key takes its time.
    pub fn generate(make: Make) -> Result<Self, KeyError> {
        match make {
            Make::Ed25519 => Self::from_keypair(Keypair::generate_ed25519()),
            Make::Secp256k1 => Self::from_keypair(Keypair::generate_secp256k1()),
            Make::Rsa(bits) => {
                let pair = rsa::KeyPair::generate(bits.size());
                Self::from_rsa(pair.map_err(|_| KeyError::Failed("making an RSA key"))?)
            }
        }
    }

    /// Reads one in libp2p's protobuf form, and nothing beside it.
    pub fn from_protobuf(bytes: &[u8]) -> Result<Self, KeyError> {
        let (kind, data) = parts(bytes)?;
        if kind == Kind::Rsa {
            return Self::from_pkcs1(data);
        }
        let damaged = || KeyError::Damaged(kind.name());
        if kind == Kind::Ecdsa {
            return forms::from_ec(data, kind).map_err(|_| damaged());
        }
        // Long ago Ed25519 keys were written with the public key twice.
        let data = match (kind, data) {
            (Kind::Ed25519, data) if data.len() == ED25519_OLD_BYTES => {
                let (key, again) = data.split_at(ED25519_BYTES);
                if !key.ends_with(again) {
                    return Err(damaged());
                }
                key
            }
            (_, data) => data,
        };
        let protobuf = encode(kind, data);
        let keypair = Keypair::from_protobuf_encoding(&protobuf).map_err(|_| damaged())?;
        Self::from_keypair(keypair)
    }

    /// The key of a curve with this scalar.
    pub(super) fn from_scalar(kind: Kind, scalar: &[u8]) -> Result<Self, KeyError> {
        let damaged = |_| KeyError::Damaged(kind.name());
        // Those of libp2p wipe what they are given.
        let mut bytes = Zeroizing::new(scalar.to_vec());
        let keypair = match kind {
            Kind::Ed25519 => Keypair::ed25519_from_bytes(bytes.as_mut_slice()).map_err(damaged)?,
            Kind::Secp256k1 => {
                let secret = secp256k1::SecretKey::try_from_bytes(bytes.as_mut_slice());
                secp256k1::Keypair::from(secret.map_err(damaged)?).into()
            }
            Kind::Ecdsa => {
                let secret = ecdsa::SecretKey::try_from_bytes(bytes.as_slice());
                ecdsa::Keypair::from(secret.map_err(damaged)?).into()
            }
            Kind::Rsa => return Err(KeyError::Damaged(kind.name())),
        };
        Self::from_keypair(keypair)
    }

    /// Reads an RSA key in PKCS#1.
    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let damaged = || KeyError::Damaged(Kind::Rsa.name());
        let key = Self::from_rsa(rsa::KeyPair::from_der(der).map_err(|_| damaged())?)?;
        // What follows the key would be lost here.
        if *key.protobuf != *encode(Kind::Rsa, der) {
            return Err(damaged());
        }
        Ok(key)
    }

    /// One of libp2p's, of any kind but RSA, which it cannot write.
    fn from_keypair(keypair: Keypair) -> Result<Self, KeyError> {
        let public = keypair.public();
        let kind = Kind::of(&public);
        let protobuf = match keypair.clone().try_into_ecdsa() {
            // As Go has it, with its curve.
            Ok(pair) => {
                let scalar = Zeroizing::new(pair.secret().to_bytes());
                let public = pair.public().to_bytes();
                let der = forms::ec(&scalar, Some(forms::P256), &public);
                encode(kind, &der.ok_or(KeyError::Failed("writing a key"))?)
            }
            Err(_) => {
                let written = keypair.to_protobuf_encoding();
                Zeroizing::new(written.map_err(|_| KeyError::Failed("writing a key"))?)
            }
        };
        Ok(Self {
            kind,
            protobuf,
            public,
            signer: Signer::Libp2p(Box::new(keypair)),
        })
    }

    fn from_rsa(pair: rsa::KeyPair) -> Result<Self, KeyError> {
        let bits = pair.public_modulus_len() * 8;
        if bits < RSA_BITS_MIN {
            return Err(KeyError::Bits(bits));
        }
        let failed = || KeyError::Failed("writing an RSA key");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| failed())?;
        let public = public_key::read(&encode(Kind::Rsa, public.as_ref()));
        let public = public.map_err(|_| KeyError::Bits(bits))?;
        let whole: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| failed())?;
        let info = PrivateKeyInfoRef::try_from(whole.as_ref()).map_err(|_| failed())?;
        let protobuf = encode(Kind::Rsa, info.private_key.as_bytes());
        Ok(Self {
            kind: Kind::Rsa,
            protobuf,
            public,
            signer: Signer::Rsa(pair),
        })
    }

    /// What kind it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The name that it signs for.
    pub fn id(&self) -> PeerId {
        self.public.to_peer_id()
    }

    /// Signs, as libp2p does with a key of its kind.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = KeyError::Failed("signing");
        match &self.signer {
            Signer::Libp2p(keypair) => keypair.sign(message).map_err(|_| failed),
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let signed = pair.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                );
                signed.map(|()| signature).map_err(|_| failed)
            }
        }
    }

    /// The same key as libp2p's library has it, which reads RSA keys with up to 4,096 bits.
    pub fn keypair(&self) -> Option<Keypair> {
        match &self.signer {
            Signer::Libp2p(keypair) => Some((**keypair).clone()),
            Signer::Rsa(_) => Keypair::from_protobuf_encoding(&self.protobuf).ok(),
        }
    }

    /// The whole key in libp2p's protobuf form.
    pub(super) fn protobuf(&self) -> &[u8] {
        &self.protobuf
    }

    /// The key alone, without its kind.
    pub(super) fn data(&self) -> &[u8] {
        parts(&self.protobuf).map_or(&[], |(_, data)| data)
    }
}

/// The kind and the data of a key in libp2p's form, which has both once and nothing else.
fn parts(bytes: &[u8]) -> Result<(Kind, &[u8]), KeyError> {
    if bytes.is_empty() {
        return Err(KeyError::Empty);
    }
    if bytes.len() > KEY_BYTES_MAX {
        return Err(KeyError::Long);
    }
    let wrong = KeyError::Protobuf;
    let mut fields = Fields(bytes);
    let (mut kind, mut data) = (None, None);
    loop {
        match fields
            .next()
            .map_err(|_| wrong("it is cut off, or something else"))?
        {
            None => break,
            Some((1, Value::Number(number))) if kind.is_none() => kind = Some(number),
            Some((2, Value::Bytes(bytes))) if data.is_none() => data = Some(bytes),
            Some(_) => return Err(wrong("it has a field that no key has")),
        }
    }
    let kind = Kind::numbered(kind.ok_or(KeyError::Protobuf("it has no type"))?)?;
    Ok((kind, data.ok_or(KeyError::Protobuf("it has no data"))?))
}

/// A key in libp2p's form, public or private.
fn encode(kind: Kind, data: &[u8]) -> Zeroizing<Vec<u8>> {
    // Longer than the head: what is wiped is never moved first.
    let mut out = Zeroizing::new(Vec::with_capacity(data.len() + HEAD_BYTES_MAX));
    let mut length = unsigned_varint::encode::usize_buffer();
    out.extend([1 << 3, kind.number(), 2 << 3 | 2]);
    out.extend(unsigned_varint::encode::usize(data.len(), &mut length));
    out.extend(data);
    out
}

/// Most bytes of a key in libp2p's form: an RSA key of 8,192 bits has about 4.7 kB.
pub(super) const KEY_BYTES_MAX: usize = 16 << 10;
/// Least bits of an RSA key, as others have it.
const RSA_BITS_MIN: usize = 2048;
/// An Ed25519 key: the seed and the public key; the old form has that again.
const ED25519_BYTES: usize = 64;
const ED25519_OLD_BYTES: usize = 96;
/// What stands before the data: three bytes and a varint.
const HEAD_BYTES_MAX: usize = 16;
