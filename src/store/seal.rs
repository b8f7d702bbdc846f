//! How secrets that must be read again are kept: those that sign webhooks. (API keys need not be: their hash is enough.)
//!
//! A signature is made with the secret itself, so a hash would not do. What is kept is the secret, and if the operator has
//! given a key (`webhooks.key`), the secret encrypted with it (AES-256-GCM), so that a copy of the database alone signs
//! nothing. The first byte tells the two apart; what was kept before there was a key stays readable.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
};

use super::{Error, Result};

const PLAIN: u8 = 0;
const SEALED: u8 = 1;

/// Seals and opens what is kept. Cheap to clone.
#[derive(Clone, Default)]
pub struct Seal {
    key: Option<Arc<LessSafeKey>>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seal")
    }
}

impl Seal {
    /// Seals with a key made from the operator's text, which is as good as that text is hard to guess.
    pub fn with_key(text: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        // A hash of 32 bytes is a key of that cipher.
        let key = UnboundKey::new(&AES_256_GCM, hash.as_ref()).ok().map(LessSafeKey::new);
        Self { key: key.map(Arc::new) }
    }

    /// As it is kept.
    pub(super) fn seal(&self, secret: &[u8]) -> Result<Vec<u8>> {
        let Some(key) = &self.key else {
            return Ok([&[PLAIN], secret].concat());
        };
        let refused = || Error::Unsealable("it could not be encrypted");
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| refused())?;
        let mut sealed = secret.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
            .map_err(|_| refused())?;
        Ok([&[SEALED], &nonce[..], &sealed].concat())
    }

    /// The secret again.
    pub(super) fn open(&self, kept: &[u8]) -> Result<Vec<u8>> {
        match kept.split_first() {
            Some((&PLAIN, secret)) => Ok(secret.to_vec()),
            Some((&SEALED, rest)) => {
                let key = self.key.as_ref().ok_or(Error::Unsealable("it is encrypted, and webhooks.key is not set"))?;
                let other_key = || Error::Unsealable("it was encrypted with another webhooks.key");
                let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(other_key)?;
                let mut secret = sealed.to_vec();
                let length = key
                    .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut secret)
                    .map_err(|_| other_key())?
                    .len();
                secret.truncate(length);
                Ok(secret)
            }
            _ => Err(Error::Unsealable("it was written by a newer version")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_alone() {
        let seal = Seal::with_key("correct horse");
        let sealed = seal.seal(b"secret").expect("sealed");
        assert!(!sealed.windows(6).any(|bytes| bytes == b"secret"));
        assert_ne!(sealed, seal.seal(b"secret").expect("sealed"), "never twice the same");
        assert_eq!(seal.open(&sealed).expect("opened"), b"secret");
        assert!(Seal::with_key("battery staple").open(&sealed).is_err());
        assert!(Seal::default().open(&sealed).is_err());
    }

    #[test]
    fn what_was_kept_before_there_was_a_key_stays_readable() {
        let kept = Seal::default().seal(b"secret").expect("kept");
        assert_eq!(Seal::with_key("correct horse").open(&kept).expect("opened"), b"secret");
        assert!(Seal::default().open(&[]).is_err());
    }
}
