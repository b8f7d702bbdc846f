//! API keys: how one is made, recognized without a database, and kept only as a hash.
//!
//! A key reads `fs_<lookup>_<secret><checksum>`: eight characters to find its row, 256 random bits, and a CRC-32 so
//! that a mistyped key is refused offline and secret scanners can be sure. It is shown once; the database holds the
//! SHA-256 of the whole text, which is enough for a secret of full entropy.

use std::fmt;

use sha2::{Digest, Sha256};

use super::Scopes;

const PREFIX: &str = "fs";
const LOOKUP_LENGTH: usize = 8;
/// 32 bytes in base 62.
const SECRET_LENGTH: usize = 43;
/// 32 bits in base 62.
const CHECKSUM_LENGTH: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A well-formed API key. `Debug` shows only its public part.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    text: String,
}

/// The text is not a key of ours: wrong shape, or its checksum does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fourstep API key")]
pub struct MalformedKey;

/// Who is asking: the account and the key a request was authenticated with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Owner of the predictions made and seen.
    pub account_id: i64,
    /// The key used, for usage by key.
    pub key_id: i64,
    /// What the key may do.
    pub scopes: Scopes,
}

impl ApiKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let (mut lookup, mut secret) = ([0; 8], [0; 32]);
        getrandom::fill(&mut lookup)?;
        getrandom::fill(&mut secret)?;
        Ok(Self::from_entropy(lookup, secret))
    }

    /// Makes a key from fresh random bytes: 8 for the lookup part, 32 for the secret.
    pub fn from_entropy(lookup: [u8; 8], secret: [u8; 32]) -> Self {
        let body = format!("{PREFIX}_{}_{}", base62(&lookup, LOOKUP_LENGTH), base62(&secret, SECRET_LENGTH));
        let checksum = checksum(&body);
        Self { text: body + &checksum }
    }

    /// Recognizes a key by shape and checksum, without any look-up.
    pub fn parse(text: &str) -> Result<Self, MalformedKey> {
        let expected_length = PREFIX.len() + 1 + LOOKUP_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH;
        if text.len() != expected_length || !text.is_ascii() {
            return Err(MalformedKey);
        }
        let mut parts = text.splitn(3, '_');
        let (prefix, lookup) = (parts.next(), parts.next());
        if prefix != Some(PREFIX) || lookup.map(str::len) != Some(LOOKUP_LENGTH) {
            return Err(MalformedKey);
        }
        let (body, given) = text.split_at(text.len() - CHECKSUM_LENGTH);
        if checksum(body) != given {
            return Err(MalformedKey);
        }
        Ok(Self { text: text.to_owned() })
    }

    /// The part that finds the key's row; not a secret.
    pub fn lookup(&self) -> &str {
        let start = PREFIX.len() + 1;
        &self.text[start..start + LOOKUP_LENGTH]
    }

    /// What the database keeps instead of the key.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }

    /// The whole key, to be shown once to its owner.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ApiKey({PREFIX}_{}_***)", self.lookup())
    }
}

/// `bytes` as one big-endian number in base 62, left-padded and cut to `length` digits.
fn base62(bytes: &[u8], length: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; length];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    digits.into_iter().map(char::from).collect()
}

fn checksum(body: &str) -> String {
    base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_made_is_recognized(lookup: [u8; 8], secret: [u8; 32]) {
            let key = ApiKey::from_entropy(lookup, secret);
            prop_assert_eq!(ApiKey::parse(key.expose()), Ok(key));
        }

        #[test]
        fn one_changed_character_is_refused(secret: [u8; 32], position in 0usize..60, replacement in 33u8..126) {
            let key = ApiKey::from_entropy([7; 8], secret);
            let mut text = key.expose().as_bytes().to_vec();
            prop_assume!(text[position] != replacement);
            text[position] = replacement;
            let text = String::from_utf8(text).expect("ASCII");
            prop_assert_eq!(ApiKey::parse(&text), Err(MalformedKey));
        }
    }

    #[test]
    fn debug_never_shows_the_secret() {
        let key = ApiKey::from_entropy([1; 8], [2; 32]);
        let shown = format!("{key:?}");
        assert!(shown.contains(key.lookup()) && !shown.contains(&key.expose()[12..]));
    }

    #[test]
    fn text_that_is_not_a_key_is_refused() {
        for text in ["", "fs", "sk-live-1234", "fs_12345678_", "ключ", &"_".repeat(60)] {
            assert_eq!(ApiKey::parse(text), Err(MalformedKey));
        }
    }
}
