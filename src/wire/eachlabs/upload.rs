//! Uploads as Eachlabs has them: announced first, then sent to a URL of their own.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::{FaceUrl, exact::Moment};
use crate::domain::{InvalidInput, Upload, UploadId};

/// How long a client may want an upload kept, seconds.
const KEPT: std::ops::RangeInclusive<u64> = 60..=31_536_000;
const FILE_TYPES: [&str; 4] = ["image", "video", "audio", "other"];

/// The body of a request to announce an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presign {
    /// The media type of what will be sent.
    pub content_type: String,
    /// How long it is to be kept.
    pub keep: Option<Duration>,
}

impl Presign {
    /// Reads a body.
    pub fn parse(body: Value) -> Result<Self, InvalidInput> {
        let Value::Object(fields) = body else {
            return Err(InvalidInput::one("body", "must be a JSON object"));
        };
        let content_type = match fields.get("content_type") {
            Some(Value::String(text)) if !text.is_empty() => text.to_ascii_lowercase(),
            None | Some(Value::Null | Value::String(_)) => {
                return Err(InvalidInput::one("content_type", "is required"));
            }
            Some(_) => return Err(InvalidInput::one("content_type", "must be a string")),
        };
        match fields.get("file_type") {
            None | Some(Value::Null) => {}
            Some(Value::String(word)) if FILE_TYPES.contains(&word.as_str()) => {}
            Some(_) => {
                return Err(InvalidInput::one("file_type", format!("must be one of {}", FILE_TYPES.join(", "))));
            }
        }
        let keep = match fields.get("expires_in_seconds") {
            None | Some(Value::Null) => None,
            Some(seconds) => {
                let seconds = seconds.as_u64().filter(|seconds| KEPT.contains(seconds));
                let must = || format!("must be an integer between {} and {}", KEPT.start(), KEPT.end());
                Some(Duration::from_secs(seconds.ok_or_else(|| InvalidInput::one("expires_in_seconds", must()))?))
            }
        };
        // One name of the same type is not registered, and common.
        let content_type = if content_type == "image/jpg" { "image/jpeg".to_owned() } else { content_type };
        Ok(Self { content_type, keep })
    }
}

/// Where to send the bytes, and where they can be read then.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Presigned)]
pub struct Presigned {
    /// The upload's id.
    #[schema(value_type = uuid::Uuid)]
    id: UploadId,
    /// To `PUT` the bytes to.
    presigned_url: String,
    /// Where anybody who knows it can read the file then.
    public_url: String,
    /// When it is deleted.
    expires_at: Moment,
    /// Beside `Content-Type`, which clients send anyway.
    #[schema(value_type = Object)]
    required_headers: Map<String, Value>,
}

impl Presigned {
    /// The answer to an announcement.
    pub fn new(upload: &Upload, ticket: &str, face: &FaceUrl) -> Self {
        Self {
            id: upload.id,
            presigned_url: format!("{face}/upload/{}/{ticket}", upload.id),
            public_url: face.server.file(&upload.key),
            expires_at: Moment(upload.expires_at),
            required_headers: Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_announcement_says_what_will_be_sent() {
        let read = Presign::parse(json!({"content_type": "image/JPG", "file_type": "image", "expires_in_seconds": 60}));
        assert_eq!(read, Ok(Presign { content_type: "image/jpeg".into(), keep: Some(Duration::from_secs(60)) }));
        for (body, field) in [
            (json!([]), "body"),
            (json!({}), "content_type"),
            (json!({"content_type": ""}), "content_type"),
            (json!({"content_type": 1}), "content_type"),
            (json!({"content_type": "image/png", "file_type": "text"}), "file_type"),
            (json!({"content_type": "image/png", "expires_in_seconds": 59}), "expires_in_seconds"),
            (json!({"content_type": "image/png", "expires_in_seconds": "60"}), "expires_in_seconds"),
        ] {
            assert_eq!(Presign::parse(body).expect_err(field).fields[0].field, field);
        }
    }
}
