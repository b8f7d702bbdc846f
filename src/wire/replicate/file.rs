//! Files as Replicate's clients send and read them.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::super::{FaceUrl, Part, exact::Moment, form};
use crate::domain::{Checksums, InvalidInput, NewFile, Upload, UploadId};

/// Reads the form of an upload: `content`, and perhaps `filename` and `metadata`, which the JavaScript client sends as a file. What
/// `type` says does not matter: the bytes tell.
pub fn new_file(mut parts: Vec<Part>) -> Result<NewFile, InvalidInput> {
    let content = form::take(&mut parts, "content")?.ok_or_else(|| InvalidInput::one("content", "is required"))?;
    let named = form::take(&mut parts, "filename")?;
    let named = named.as_ref().map(Part::text).transpose()?.map(str::to_owned);
    let metadata = form::metadata(form::take(&mut parts, "metadata")?)?;
    Ok(NewFile { field: "content", name: named.or(content.file_name), metadata, bytes: content.bytes })
}

/// A file. All of this is read by one client or another; the Python one refuses a file without `name` or `etag`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = replicate::File)]
pub struct File<'a> {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    id: UploadId,
    /// For people.
    name: &'a str,
    /// Media type.
    content_type: &'a str,
    /// In bytes.
    size: u64,
    /// MD5 of the bytes, in hexadecimal.
    etag: &'a str,
    /// `sha256` and `md5` of the bytes, in hexadecimal.
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    checksums: Option<&'a Checksums>,
    /// As it was sent.
    #[schema(value_type = Object)]
    metadata: &'a Value,
    /// When it was sent.
    created_at: Moment,
    /// When it is deleted.
    expires_at: Moment,
    /// Where it is.
    urls: Urls,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = replicate::FileUrls)]
struct Urls {
    /// What clients put into an input.
    get: String,
}

impl<'a> File<'a> {
    /// The document of an upload.
    pub fn new(upload: &'a Upload, face: &FaceUrl) -> Self {
        Self {
            id: upload.id,
            name: &upload.name,
            content_type: &upload.content_type,
            size: upload.size,
            etag: upload.checksums.as_ref().map_or("", |checksums| &checksums.md5),
            checksums: upload.checksums.as_ref(),
            metadata: &upload.metadata,
            created_at: Moment(upload.created_at),
            expires_at: Moment(upload.expires_at),
            urls: Urls { get: format!("{face}/files/{}", upload.id) },
        }
    }
}
