//! The parts of a form (`multipart/form-data`).

use serde_json::{Map, Value};

use super::json::{self, Unreadable};
use crate::domain::InvalidInput;

/// One part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its field.
    pub name: String,
    /// What the file is called, if it is sent as one.
    pub file_name: Option<String>,
    /// The media type it says it has.
    pub media_type: Option<String>,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Part {
    /// Its bytes as text.
    pub(super) fn text(&self) -> Result<&str, InvalidInput> {
        std::str::from_utf8(&self.bytes).map_err(|_| InvalidInput::one(self.name.clone(), "must be text in UTF-8"))
    }
}

/// Takes the one part of a form that has this name.
pub(super) fn take(parts: &mut Vec<Part>, name: &'static str) -> Result<Option<Part>, InvalidInput> {
    let Some(at) = parts.iter().position(|part| part.name == name) else { return Ok(None) };
    let part = parts.remove(at);
    match parts.iter().any(|part| part.name == name) {
        true => Err(InvalidInput::one(name, "must be given only once")),
        false => Ok(Some(part)),
    }
}

/// What an owner keeps with a file: a JSON object, or nothing.
pub(super) fn metadata(part: Option<Part>) -> Result<Map<String, Value>, InvalidInput> {
    let Some(part) = part else { return Ok(Map::new()) };
    match json::parse(&part.bytes) {
        // The database keeps no text with it.
        Ok(Value::Object(_)) if part.bytes.windows(6).any(|bytes| bytes == br"\u0000") => {
            Err(InvalidInput::one("metadata", "must not contain the character U+0000"))
        }
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(Value::Null) => Ok(Map::new()),
        Err(Unreadable::TooManyValues) => Err(InvalidInput::one("metadata", Unreadable::TooManyValues.to_string())),
        _ => Err(InvalidInput::one("metadata", "must be a JSON object")),
    }
}
