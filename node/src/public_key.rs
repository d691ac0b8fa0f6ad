//! Public keys as peers show them. RSA keys have at most 8,192 bits, and of a longer one not even a signature is checked. Those in the
//! certificates of TLS and QUIC are not read here: the library that checks those has the same limit.

use libp2p::identity::{DecodingError, KeyType, PublicKey};

/// Why it is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("no key, or none that is known: {0}")]
    Unknown(#[from] DecodingError),
    #[error("a key of {0} bytes")]
    Long(usize),
    #[error("an RSA key of more than {RSA_BITS_MAX} bits, or of a form that does not read")]
    Rsa,
}

/// Reads one, in libp2p's form.
pub(crate) fn read(bytes: &[u8]) -> Result<PublicKey, KeyError> {
    if bytes.len() > KEY_BYTES_MAX {
        return Err(KeyError::Long(bytes.len()));
    }
    let key = PublicKey::try_decode_protobuf(bytes)?;
    check(&key)?;
    Ok(key)
}

/// Whether it is one that we deal with.
fn check(key: &PublicKey) -> Result<(), KeyError> {
    if key.key_type() != KeyType::RSA {
        return Ok(());
    }
    let rsa = key.clone().try_into_rsa().map_err(|_| KeyError::Rsa)?;
    match modulus_bits(&rsa.encode_pkcs1()) {
        Some(bits) if bits <= RSA_BITS_MAX => Ok(()),
        _ => Err(KeyError::Rsa),
    }
}

/// How many bits the modulus of a PKCS#1 key has.
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let body = element(SEQUENCE, der)?;
    let modulus = element(INTEGER, body)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let modulus = modulus.get(zeros..)?;
    let first = modulus.first()?.leading_zeros();
    Some(modulus.len() * 8 - usize::try_from(first).ok()?)
}

/// The content of the first element of DER, if it has this tag.
fn element(tag: u8, der: &[u8]) -> Option<&[u8]> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
            let length = length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.get(..length)
}

/// Longest modulus of an RSA key, as others have it.
const RSA_BITS_MAX: usize = 8192;
/// Longest key: such a one, and some.
const KEY_BYTES_MAX: usize = 2 << 10;
/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 2;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
        let length = match (high, low) {
            (0, 0..=0x7f) => vec![low],
            (0, _) => vec![0x81, low],
            _ => vec![0x82, high, low],
        };
        [&[tag][..], &length, content].concat()
    }

    /// An RSA key of so many bits, as a peer would show it. It is nobody's.
    pub(crate) fn rsa_of(bits: usize) -> Vec<u8> {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= bits.div_ceil(8) * 8 - bits;
        if modulus[0] & 0x80 > 0 {
            modulus.insert(0, 0);
        }
        let numbers = [der(INTEGER, &modulus), der(INTEGER, &[1, 0, 1])].concat();
        let key = [vec![0], der(SEQUENCE, &numbers)].concat();
        // The name of rsaEncryption, RFC 8017, and no parameters.
        let name = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
        let whole = der(SEQUENCE, &[der(SEQUENCE, &name), der(3, &key)].concat());
        let mut out = vec![8, 0, 0x12];
        let mut length = unsigned_varint::encode::usize_buffer();
        out.extend(unsigned_varint::encode::usize(whole.len(), &mut length));
        out.extend(whole);
        out
    }

    #[test]
    fn an_rsa_key_has_8192_bits_at_most() {
        for bits in [2048, 3072, 4096, 8191, 8192] {
            let bytes = rsa_of(bits);
            let key = read(&bytes).unwrap();
            assert_eq!(key.encode_protobuf(), bytes);
        }
        for bits in [8193, 8200, 10_000, 16_000] {
            // The library takes it.
            assert!(PublicKey::try_decode_protobuf(&rsa_of(bits)).is_ok());
            assert!(matches!(read(&rsa_of(bits)), Err(KeyError::Rsa)), "{bits}");
        }
        assert!(matches!(read(&rsa_of(100_000)), Err(KeyError::Long(_))));
    }

    #[test]
    fn other_keys_are_taken_as_they_are() {
        for keys in [
            libp2p::identity::Keypair::generate_ed25519(),
            libp2p::identity::Keypair::generate_ecdsa(),
            libp2p::identity::Keypair::generate_secp256k1(),
        ] {
            let bytes = keys.public().encode_protobuf();
            assert_eq!(read(&bytes).unwrap(), keys.public());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..300, by: u8, length in 0usize..300) {
            let mut bytes = rsa_of(2048);
            bytes[at.min(293)] ^= by;
            bytes.truncate(length.max(1));
            let _ = read(&bytes);
        }
    }
}
