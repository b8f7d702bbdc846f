//! What a file must hash to. The hub's `ETag` says it: SHA-256 for large files, git's blob id (SHA-1) for small ones.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

const SHA256_DIGITS: usize = 64;
const SHA1_DIGITS: usize = 40;
const BUFFER_BYTES: usize = 1 << 20;

/// The hash a file must have, which also names its blob in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digest {
    kind: Kind,
    hex: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Files in large file storage.
    Sha256,
    /// Files in the git repository itself: SHA-1 of `blob <length>\0` and the bytes.
    GitBlob,
}

impl Digest {
    /// Reads an `ETag` or the name of a blob. `None` if it is neither hash: then nothing can be verified by it.
    pub(super) fn parse(etag: &str) -> Option<Self> {
        let hex = etag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let kind = match hex.len() {
            SHA256_DIGITS => Kind::Sha256,
            SHA1_DIGITS => Kind::GitBlob,
            _ => return None,
        };
        hex.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(Self { kind, hex })
    }

    /// The hexadecimal digits.
    pub(super) fn as_str(&self) -> &str {
        &self.hex
    }

    /// Hashes a file from its beginning in the way of this digest.
    pub(super) fn of_file(&self, file: &mut File) -> io::Result<Self> {
        let hex = match self.kind {
            Kind::Sha256 => hex::encode(hash(Sha256::new(), file)?),
            Kind::GitBlob => {
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {}\0", file.metadata()?.len()));
                hex::encode(hash(hasher, file)?)
            }
        };
        Ok(Self { kind: self.kind, hex })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Sha256 => "SHA-256",
            Kind::GitBlob => "git blob",
        };
        write!(formatter, "{kind} {}", self.hex)
    }
}

fn hash<H: sha2::Digest>(mut hasher: H, file: &mut File) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().to_vec()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn an_etag_is_a_hash_or_nothing() {
        let sha256 = "a".repeat(64);
        for etag in [format!("\"{sha256}\""), format!("W/\"{sha256}\""), sha256.clone(), sha256.to_uppercase()] {
            assert_eq!(Digest::parse(&etag).expect("a hash").as_str(), sha256);
        }
        for etag in ["", "\"\"", "5f3e-18a", &"g".repeat(40), &"../".repeat(20)] {
            assert_eq!(Digest::parse(etag), None, "{etag}");
        }
    }

    #[test]
    fn files_hash_as_sha256sum_and_git_hash_object_do() {
        let path = std::env::temp_dir().join(format!("fourstep-digest-{}", uuid::Uuid::new_v4()));
        File::create(&path).and_then(|mut file| file.write_all(b"hello\n")).expect("writable");
        for known in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let digest = Digest::parse(known).expect("a hash");
            assert_eq!(digest.of_file(&mut File::open(&path).expect("there")).expect("readable"), digest);
        }
        std::fs::remove_file(path).expect("the test's own file");
    }
}
