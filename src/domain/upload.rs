//! Files that callers have sent ahead, and how a prediction names one of them.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::PredictionId;

/// The public id of an upload, one string on every face. It is no permission to read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(Uuid);

impl UploadId {
    /// A new id, time-ordered.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as the database keeps it.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for UploadId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for UploadId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for UploadId {
    type Err = uuid::Error;

    /// Only the hyphenated form is an id.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hyphenated: uuid::fmt::Hyphenated = text.parse()?;
        Ok(Self(hyphenated.into_uuid()))
    }
}

/// An upload before its bytes are stored.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Its id.
    pub id: UploadId,
    /// Who may use it.
    pub account_id: i64,
    /// The file's name, for people.
    pub name: String,
    /// Media type.
    pub content_type: &'static str,
    /// What its owner keeps with it.
    pub metadata: Map<String, Value>,
    /// Where its bytes will be.
    pub key: String,
    /// SHA-256 of what permits to send the bytes; `None` where they come with the request.
    pub ticket: Option<[u8; 32]>,
    /// How long it is kept.
    pub keep: std::time::Duration,
}

/// An upload.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// Who may use it.
    pub account_id: i64,
    /// The file's name, for people.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Length in bytes; 0 until they are there.
    pub size: u64,
    /// Hashes of the bytes, once they are there.
    pub checksums: Option<Checksums>,
    /// What its owner keeps with it.
    pub metadata: Value,
    /// Where its bytes are kept. Whoever knows it may read them.
    pub key: String,
    /// When it was sent or announced.
    pub created_at: DateTime<Utc>,
    /// When it is deleted.
    pub expires_at: DateTime<Utc>,
}

/// A file that has arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct NewFile {
    /// Where the request has it, for what is wrong with it.
    pub field: &'static str,
    /// Its name, for people.
    pub name: Option<String>,
    /// What its owner keeps with it.
    pub metadata: Map<String, Value>,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Hashes of a file, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checksums {
    /// SHA-256.
    pub sha256: String,
    /// MD5, for those who compare; it protects nothing.
    pub md5: String,
}

/// A file of this server, as an input names it: by the id of an upload, or by a URL that this server has given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnFile<'a> {
    /// A caller's upload, by its id.
    Upload(UploadId),
    /// What may be an upload's URL and may as well be somebody else's: another server can have such URLs, too.
    PerhapsUpload(UploadId),
    /// An upload, by the place where it can be read.
    UploadAt(UploadId, &'a str),
    /// A prediction's output, by the place where it can be read.
    OutputAt(PredictionId, &'a str),
}

impl<'a> OwnFile<'a> {
    /// Recognizes such a name by its form, whatever this server is called from outside.
    pub fn named_by(text: &'a str) -> Option<Self> {
        if let Ok(id) = text.parse() {
            return Some(Self::Upload(id));
        }
        let (scheme, rest) = text.split_once("://")?;
        if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        let (_, key) = path.rsplit_once("/files/")?;
        match key.split('/').collect::<Vec<_>>()[..] {
            [id] => id.parse().ok().map(Self::PerhapsUpload),
            ["uploads", id, _, _] => id.parse().ok().map(|id| Self::UploadAt(id, key)),
            ["outputs", id, _, _] => id.parse().ok().map(|id| Self::OutputAt(id, key)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0197f3a0-5bd3-7cc2-8e5c-3b1a2f4d5e6f";

    #[test]
    fn a_file_of_ours_is_known_by_its_form() {
        let upload: UploadId = ID.parse().expect("an id");
        let prediction: PredictionId = ID.parse().expect("an id");
        let (kept, drawn) = (format!("uploads/{ID}/x/picture.png"), format!("outputs/{ID}/1-x/out-0.png"));
        for (text, expected) in [
            (ID.to_owned(), Some(OwnFile::Upload(upload))),
            (format!("http://127.0.0.1:8000/v1/files/{ID}"), Some(OwnFile::PerhapsUpload(upload))),
            (format!("https://example.com/a/replicate/v1/files/{ID}?x=y"), Some(OwnFile::PerhapsUpload(upload))),
            (format!("HTTPS://example.com/files/{kept}#x"), Some(OwnFile::UploadAt(upload, &kept))),
            (format!("https://example.com/files/{drawn}"), Some(OwnFile::OutputAt(prediction, &drawn))),
            (format!("https://example.com/files/{ID}/more"), None),
            (format!("https://example.com/files/uploads/{ID}"), None),
            (format!("https://example.com/files/uploads/{ID}/x/y/z"), None),
            (format!("https://example.com/?/files/{ID}"), None),
            (format!("ftp://example.com/files/{ID}"), None),
            (format!("/files/{ID}"), None),
            ("https://example.com/picture.png".to_owned(), None),
            ("data:image/png;base64,aGk=".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(OwnFile::named_by(&text), expected, "{text}");
        }
    }
}
