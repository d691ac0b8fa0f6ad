//! ChaCha20-Poly1305 by OpenSSL, which does it sixteen blocks at a time where the processor has
//! AVX-512: what aws-lc has for it stops at AVX2.

use super::{NONCE_BYTES, TAG_BYTES};
use openssl::cipher::Cipher;
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;

/// One direction's key.
pub(in crate::swarm) struct Key(CipherCtx);

impl Key {
    /// `None` where aws-lc is as fast, or where OpenSSL was built or set up without this cipher.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        if !has_wide_registers() || key.len() != KEY_BYTES {
            return None;
        }
        Self::made(key).ok()
    }

    fn made(key: &[u8]) -> Result<Self, ErrorStack> {
        let mut context = CipherCtx::new()?;
        let cipher = Cipher::chacha20_poly1305();
        context.encrypt_init(Some(cipher), Some(key), Some(&[0; NONCE_BYTES]))?;
        Ok(Self(context))
    }

    /// `plain` into `sealed`, which is [`TAG_BYTES`] longer; false if it cannot be.
    pub(super) fn seal(
        &mut self,
        nonce: &[u8; NONCE_BYTES],
        plain: &[u8],
        sealed: &mut [u8],
    ) -> bool {
        match sealed.split_at_mut_checked(plain.len()) {
            Some((body, tag)) if tag.len() == TAG_BYTES => {
                self.sealed(nonce, plain, body, tag).is_ok()
            }
            _ => false,
        }
    }

    fn sealed(
        &mut self,
        nonce: &[u8],
        plain: &[u8],
        body: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), ErrorStack> {
        self.0.encrypt_init(None, None, Some(nonce))?;
        if !plain.is_empty() {
            self.0.cipher_update(plain, Some(body))?;
        }
        self.0.cipher_final(&mut [])?;
        self.0.tag(tag)
    }

    /// Opens `sealed` in place; how many plain bytes stand at its front.
    pub(super) fn open(&mut self, nonce: &[u8; NONCE_BYTES], sealed: &mut [u8]) -> Option<usize> {
        let length = sealed.len().checked_sub(TAG_BYTES)?;
        let (body, tag) = sealed.split_at_mut_checked(length)?;
        self.opened(nonce, body, tag).ok().map(|()| length)
    }

    fn opened(&mut self, nonce: &[u8], body: &mut [u8], tag: &[u8]) -> Result<(), ErrorStack> {
        self.0.decrypt_init(None, None, Some(nonce))?;
        self.0.set_tag(tag)?;
        if !body.is_empty() {
            self.0.cipher_update_inplace(body, body.len())?;
        }
        self.0.cipher_final(&mut []).map(drop)
    }
}

/// Whether this processor has what OpenSSL is faster with.
fn has_wide_registers() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512vl");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

    const KEY: [u8; KEY_BYTES] = [7; KEY_BYTES];

    #[test]
    fn both_libraries_mean_the_same() {
        let theirs = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &KEY).unwrap());
        let (mut seals, mut opens) = (Key::made(&KEY).unwrap(), Key::made(&KEY).unwrap());
        // Around the steps in which either works, and the longest record.
        let lengths = [0, 1, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025, 65_519];
        for (number, length) in (0..).zip(lengths) {
            let nonce = [number; NONCE_BYTES];
            let plain: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let mut ours = vec![0; length + TAG_BYTES];
            assert!(seals.seal(&nonce, &plain, &mut ours));
            let mut other = plain.clone();
            theirs
                .seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::empty(),
                    &mut other,
                )
                .unwrap();
            assert!(ours == other, "{length} bytes");
            assert_eq!(opens.open(&nonce, &mut other), Some(length));
            assert!(other[..length] == plain, "{length} bytes");
        }
    }

    #[test]
    fn what_was_changed_or_has_another_number_does_not_open() {
        let mut key = Key::made(&KEY).unwrap();
        let mut sealed = vec![0; 100 + TAG_BYTES];
        assert!(key.seal(&[1; NONCE_BYTES], &[3; 100], &mut sealed));
        for at in [0, 99, 100, 115] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(&[1; NONCE_BYTES], &mut changed), None, "byte {at}");
        }
        assert_eq!(key.open(&[2; NONCE_BYTES], &mut sealed.clone()), None);
        assert_eq!(key.open(&[1; NONCE_BYTES], &mut sealed[..15]), None);
        // What failed leaves nothing behind.
        let mut again = vec![0; 100 + TAG_BYTES];
        assert!(key.seal(&[1; NONCE_BYTES], &[3; 100], &mut again));
        assert_eq!(again, sealed);
        assert_eq!(key.open(&[1; NONCE_BYTES], &mut again), Some(100));
    }

    #[test]
    fn a_buffer_or_a_key_of_the_wrong_length_is_refused() {
        let mut key = Key::made(&KEY).unwrap();
        for room in [0, 3, 4 + TAG_BYTES - 1, 4 + TAG_BYTES + 1] {
            assert!(!key.seal(&[0; NONCE_BYTES], &[1; 4], &mut vec![0; room]));
        }
        assert!(Key::new(&KEY[1..]).is_none());
    }
}
