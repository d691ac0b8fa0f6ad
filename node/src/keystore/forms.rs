//! The forms in which keys are brought in and given away: libp2p's protobuf, and PKCS#8 as PEM (RFC 5958, RFC 7468).

use super::key::{KEY_BYTES_MAX, Key, KeyError, Kind};
use pkcs8::der::asn1::{AnyRef, OctetStringRef};
use pkcs8::der::{Decode, Encode, pem};
use pkcs8::spki::AlgorithmIdentifierRef;
use pkcs8::{LineEnding, ObjectIdentifier, PrivateKeyInfoRef};
use sec1::{EcParameters, EcPrivateKey};
use zeroize::Zeroizing;

/// How a key is written where others read it. Both are in the clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// libp2p's protobuf.
    #[default]
    Protobuf,
    /// PKCS#8 as PEM, which OpenSSL reads.
    Pem,
}

impl Form {
    /// The form with this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Protobuf, Self::Pem]
            .into_iter()
            .find(|form| form.name() == name)
    }

    /// Its name, as `--format` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Protobuf => "libp2p-protobuf-cleartext",
            Self::Pem => "pem-pkcs8-cleartext",
        }
    }

    /// What the names of files in it end with.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Protobuf => "key",
            Self::Pem => "pem",
        }
    }
}

impl Key {
    /// Reads one that was written in `form`.
    pub fn read(bytes: &[u8], form: Form) -> Result<Self, KeyError> {
        match form {
            Form::Protobuf => Self::from_protobuf(bytes).map_err(|error| {
                if !is_pem(bytes) {
                    return error;
                }
                KeyError::Form {
                    expected: Form::Protobuf.name(),
                    found: "a PEM text".to_owned(),
                    fix: "try again with --format=pem-pkcs8-cleartext",
                }
            }),
            Form::Pem => from_pem(bytes),
        }
    }

    /// Writes it in `form`.
    pub fn written(&self, form: Form) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match form {
            Form::Protobuf => Ok(Zeroizing::new(self.protobuf().to_vec())),
            Form::Pem => to_pem(self).ok_or(KeyError::Failed("writing a key as PEM")),
        }
    }
}

fn is_pem(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.contains("-----BEGIN "))
}

fn from_pem(bytes: &[u8]) -> Result<Key, KeyError> {
    if bytes.is_empty() {
        return Err(KeyError::Empty);
    }
    if bytes.len() > PEM_BYTES_MAX {
        return Err(KeyError::Long);
    }
    if !is_pem(bytes) {
        let form = |found: &str, fix| KeyError::Form {
            expected: Form::Pem.name(),
            found: found.to_owned(),
            fix,
        };
        return Err(match Key::from_protobuf(bytes) {
            Ok(_) => form(
                "one in libp2p's protobuf form",
                "try again with --format=libp2p-protobuf-cleartext",
            ),
            Err(_) => form(
                "something else",
                "a PEM text begins with -----BEGIN PRIVATE KEY-----",
            ),
        });
    }
    let damaged = |error: pem::Error| KeyError::Pkcs8(format!("a damaged PEM text: {error}"));
    let (label, der) = pem::decode_vec(bytes).map_err(damaged)?;
    let der = Zeroizing::new(der);
    if label != LABEL {
        return Err(KeyError::Form {
            expected: Form::Pem.name(),
            found: format!("a PEM text with {label:?} instead of {LABEL:?}"),
            fix: match label {
                "ENCRYPTED PRIVATE KEY" => {
                    "it is encrypted; `openssl pkey -in <file> -out <new file>` asks for its passphrase and writes \
                     it in the clear"
                }
                _ => {
                    "`openssl pkcs8 -topk8 -nocrypt -in <file> -out <new file>` writes keys of older forms as PKCS#8"
                }
            },
        });
    }
    from_pkcs8(&der)
}

fn from_pkcs8(der: &[u8]) -> Result<Key, KeyError> {
    let found = |what: &str| KeyError::Pkcs8(what.to_owned());
    let info = PrivateKeyInfoRef::from_der(der)
        .map_err(|_| found("a PEM text whose content is damaged or none"))?;
    let data = info.private_key.as_bytes();
    match info.algorithm.oid {
        RSA => Key::from_pkcs1(data),
        ED25519 => {
            let damaged = |_| KeyError::Damaged(Kind::Ed25519.name());
            let seed = <&OctetStringRef>::from_der(data).map_err(damaged)?;
            Key::from_scalar(Kind::Ed25519, seed.as_bytes())
        }
        EC => {
            let curve = info.algorithm.parameters_oid();
            match curve.map_err(|_| found("an ECDSA key without a named curve"))? {
                SECP256K1 => from_ec(data, Kind::Secp256k1),
                P256 => from_ec(data, Kind::Ecdsa),
                other => Err(KeyError::Pkcs8(format!(
                    "an ECDSA key of the curve {other}; secp256k1 and P-256 are known"
                ))),
            }
        }
        other => Err(KeyError::Pkcs8(format!(
            "a key of the algorithm {other}; RSA, Ed25519 and ECDSA are known"
        ))),
    }
}

/// Reads RFC 5915's form of a key on the curve of `kind`.
pub(super) fn from_ec(der: &[u8], kind: Kind) -> Result<Key, KeyError> {
    let damaged = || KeyError::Damaged(kind.name());
    let read = EcPrivateKey::from_der(der).map_err(|_| damaged())?;
    let curve = if kind == Kind::Ecdsa { P256 } else { SECP256K1 };
    let other = |given: EcParameters| given.named_curve() != Some(curve);
    if read.parameters.is_some_and(other) {
        return Err(damaged());
    }
    // Some leave out the zeros before a number.
    let mut scalar = Zeroizing::new(vec![0; SCALAR_BYTES]);
    let start = SCALAR_BYTES.checked_sub(read.private_key.len());
    let place = start.and_then(|start| scalar.get_mut(start..));
    place.ok_or_else(damaged)?.copy_from_slice(read.private_key);
    let key = Key::from_scalar(kind, &scalar)?;
    let same =
        |given: &[u8]| points(&key).is_some_and(|(whole, short)| given == whole || given == short);
    match read.public_key {
        Some(given) if !same(given) => Err(damaged()),
        _ => Ok(key),
    }
}

/// A key's point, uncompressed and compressed.
fn points(key: &Key) -> Option<(Vec<u8>, Vec<u8>)> {
    let public = key.public().clone();
    let whole = match key.kind() {
        Kind::Secp256k1 => public
            .try_into_secp256k1()
            .ok()?
            .to_bytes_uncompressed()
            .to_vec(),
        Kind::Ecdsa => public.try_into_ecdsa().ok()?.to_bytes(),
        Kind::Ed25519 | Kind::Rsa => return None,
    };
    // Whether the second half is odd stands before the first one.
    let mut short = whole.get(..1 + SCALAR_BYTES)?.to_vec();
    *short.first_mut()? = 2 + (whole.last()? & 1);
    Some((whole, short))
}

/// RFC 5915's form of a key.
pub(super) fn ec(
    scalar: &[u8],
    curve: Option<ObjectIdentifier>,
    public: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let written = EcPrivateKey {
        private_key: scalar,
        parameters: curve.map(EcParameters::NamedCurve),
        public_key: Some(public),
    }
    .to_der();
    written.ok().map(Zeroizing::new)
}

fn to_pem(key: &Key) -> Option<Zeroizing<Vec<u8>>> {
    // The curve stands outside already.
    let on_curve = |scalar: &[u8]| ec(scalar, None, &points(key)?.0);
    let copied = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
    let (oid, parameters, data) = match key.kind() {
        Kind::Ed25519 => {
            let seed = OctetStringRef::new(key.data().get(..SCALAR_BYTES)?).ok()?;
            (ED25519, None, Zeroizing::new(seed.to_der().ok()?))
        }
        Kind::Rsa => (RSA, Some(AnyRef::NULL), copied(key.data())),
        Kind::Secp256k1 => (EC, Some(AnyRef::from(&SECP256K1)), on_curve(key.data())?),
        Kind::Ecdsa => {
            let inner = EcPrivateKey::from_der(key.data()).ok()?;
            (EC, Some(AnyRef::from(&P256)), on_curve(inner.private_key)?)
        }
    };
    let info = PrivateKeyInfoRef::new(
        AlgorithmIdentifierRef { oid, parameters },
        OctetStringRef::new(&data).ok()?,
    );
    let der = Zeroizing::new(info.to_der().ok()?);
    let text = pem::encode_string(LABEL, LineEnding::LF, &der).ok()?;
    Some(Zeroizing::new(text.into_bytes()))
}

/// What a PEM text with PKCS#8 in the clear is called.
const LABEL: &str = "PRIVATE KEY";
/// Longest PEM text with a key: base64 takes a third more, and some write about it before.
const PEM_BYTES_MAX: usize = 2 * KEY_BYTES_MAX;
/// A seed of Ed25519, a scalar of the other curves.
const SCALAR_BYTES: usize = 32;
/// Algorithms: RFC 8017, RFC 8410, RFC 5480.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// Curves: SEC 2, RFC 5480.
const SECP256K1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");
pub(super) const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
