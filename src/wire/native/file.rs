//! Uploads on the native face, and a create that brings its image along.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::super::{
    BaseUrl, Part,
    exact::Moment,
    form,
    json::{self, Unreadable},
};
use crate::domain::{Checksums, InvalidInput, NewFile, Upload, UploadId};

/// Fields of a create's outer object; any other field of a form belongs to the input.
const OUTER: [&str; 4] = ["model", "version", "webhook", "webhook_secret"];
/// The same, whose texts are JSON.
const OUTER_JSON: [&str; 3] = ["input", "priority", "webhook_events_filter"];

/// Reads the form of an upload: the part `file`, and perhaps `metadata`.
pub fn new_file(mut parts: Vec<Part>) -> Result<NewFile, InvalidInput> {
    let file = form::take(&mut parts, "file")?.ok_or_else(|| InvalidInput::one("file", "is required"))?;
    let metadata = form::metadata(form::take(&mut parts, "metadata")?)?;
    match parts.first() {
        Some(other) => {
            let reason = "is not a part of an upload; known are file and metadata";
            Err(InvalidInput::one(other.name.clone(), reason))
        }
        None => Ok(NewFile { field: "file", name: file.file_name, metadata, bytes: file.bytes }),
    }
}

/// The body that a form of a create stands for. A file becomes a `data:` URI; what is not a field of the outer object is one
/// of the input.
pub fn create_from_form(parts: Vec<Part>) -> Result<Value, InvalidInput> {
    let (mut outer, mut fields) = (Map::new(), Map::new());
    for part in &parts {
        let name = part.name.as_str();
        let taken = outer.contains_key(name) || fields.contains_key(name);
        if taken {
            return Err(InvalidInput::one(name, "must be given only once"));
        }
        if OUTER.contains(&name) {
            outer.insert(name.to_owned(), part.text()?.into());
        } else if OUTER_JSON.contains(&name) {
            let value = json::parse(&part.bytes).map_err(|unreadable| match unreadable {
                Unreadable::NotJson(_) => InvalidInput::one(name, "must be JSON"),
                Unreadable::TooManyValues => InvalidInput::one(name, unreadable.to_string()),
            })?;
            outer.insert(name.to_owned(), value);
        } else if part.file_name.is_some() {
            let media_type = part.media_type.as_deref().unwrap_or("application/octet-stream");
            fields.insert(
                name.to_owned(),
                format!("data:{media_type};base64,{}", BASE64_STANDARD.encode(&part.bytes)).into(),
            );
        } else {
            fields.insert(name.to_owned(), part.text()?.into());
        }
    }
    match outer.get_mut("input") {
        None | Some(Value::Null) => {
            outer.insert("input".to_owned(), Value::Object(fields));
        }
        Some(Value::Object(input)) => {
            if let Some(name) = fields.keys().find(|name| input.contains_key(*name)) {
                return Err(InvalidInput::one(format!("input.{name}"), "must be given only once"));
            }
            input.extend(fields);
        }
        // What is wrong with it is said where it is read.
        Some(_) => {}
    }
    Ok(json!(outer))
}

/// An upload as its owner sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::File)]
pub struct File<'a> {
    /// By which it can be named as `image`.
    #[schema(value_type = uuid::Uuid)]
    id: UploadId,
    /// For people.
    name: &'a str,
    /// Media type.
    content_type: &'a str,
    /// In bytes.
    size: u64,
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
    /// Where anybody who knows it can read the file, and what a prediction takes as `image`.
    url: String,
}

impl<'a> File<'a> {
    /// The document of an upload.
    pub fn new(upload: &'a Upload, base: &BaseUrl) -> Self {
        Self {
            id: upload.id,
            name: &upload.name,
            content_type: &upload.content_type,
            size: upload.size,
            checksums: upload.checksums.as_ref(),
            metadata: &upload.metadata,
            created_at: Moment(upload.created_at),
            expires_at: Moment(upload.expires_at),
            url: base.file(&upload.key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, file_name: Option<&str>, bytes: &[u8]) -> Part {
        Part { name: name.into(), file_name: file_name.map(Into::into), media_type: None, bytes: bytes.into() }
    }

    #[test]
    fn a_form_is_a_create_like_any_other() {
        let parts = vec![
            part("model", None, b"sdxl"),
            part("input", None, br#"{"seed": 7}"#),
            part("prompt", None, "ä".as_bytes()),
            part("image", Some("a.png"), b"hi"),
        ];
        let expected = json!({
            "model": "sdxl",
            "input": {"seed": 7, "prompt": "ä", "image": "data:application/octet-stream;base64,aGk="},
        });
        assert_eq!(create_from_form(parts), Ok(expected));
        assert_eq!(create_from_form(Vec::new()), Ok(json!({"input": {}})));
    }

    #[test]
    fn what_is_wrong_with_a_form_is_said_by_its_field() {
        for (parts, field) in [
            (vec![part("input", None, b"{")], "input"),
            (vec![part("prompt", None, b"\xff")], "prompt"),
            (vec![part("seed", None, b"1"), part("seed", None, b"2")], "seed"),
            (vec![part("seed", None, b"1"), part("input", None, br#"{"seed": 7}"#)], "input.seed"),
        ] {
            assert_eq!(create_from_form(parts).expect_err(field).fields[0].field, field);
        }
        for (parts, field) in [
            (vec![], "file"),
            (vec![part("file", None, b""), part("file", None, b"")], "file"),
            (vec![part("file", None, b""), part("metadata", None, b"[]")], "metadata"),
            (vec![part("file", None, b""), part("content", None, b"")], "content"),
        ] {
            assert_eq!(new_file(parts).expect_err(field).fields[0].field, field);
        }
    }
}
