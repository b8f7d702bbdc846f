//! The body of a create, and what Replicate calls the things that may be wrong with it.

use serde_json::Value;

use super::super::webhook;
use crate::domain::{InvalidField, InvalidInput, WebhookEvent, WebhookRequest};

const REQUIRED: &str = "is required";
/// What is told without a filter, by the vendor's documentation: new outputs, and the end.
const DEFAULT_EVENTS: [WebhookEvent; 2] = [WebhookEvent::Output, WebhookEvent::Completed];
const ADDITIONAL: &str = "is not a property of a prediction";

/// The body of a request to create a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatePrediction {
    /// The model, `owner/name`, if the version was named with it.
    pub model: Option<String>,
    /// A version of it.
    pub version: Option<String>,
    /// The input, as it came.
    pub input: Value,
    /// Where to tell what becomes of it.
    pub webhook: Option<WebhookRequest>,
}

impl CreatePrediction {
    /// Reads a body field by field, so that everything wrong with it is named at once.
    ///
    /// `stream` is taken, and the absence of a stream's URL in the answer tells the client that there is none.
    pub fn parse(body: Value) -> Result<Self, InvalidInput> {
        let Value::Object(mut fields) = body else {
            return Err(InvalidInput::one("body", "must be a JSON object"));
        };
        let mut invalid = Vec::new();
        let webhook = webhook::take(&mut fields, &DEFAULT_EVENTS, &mut invalid);
        let webhook = webhook::take_completed(&mut fields, webhook, &mut invalid);
        let mut refuse = |field: &str, reason: &str| {
            invalid.push(InvalidField { field: field.to_owned(), reason: reason.to_owned() });
        };
        let (mut model, mut version) = (None, None);
        match fields.remove("version") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) => (model, version) = model_and_version(name),
            Some(_) => refuse("version", "must be a string"),
        }
        let input = fields.remove("input");
        if input.is_none() {
            refuse("input", REQUIRED);
        }
        for (name, value) in fields {
            match name.as_str() {
                "stream" if value.is_null() || value.is_boolean() => {}
                "stream" => refuse(&name, "must be a boolean"),
                _ => refuse(&name, ADDITIONAL),
            }
        }
        match invalid.is_empty() {
            true => Ok(Self { model, version, input: input.unwrap_or_default(), webhook }),
            false => Err(InvalidInput { fields: invalid }),
        }
    }

    /// The same for a URL that names no model: the version must.
    pub fn with_version(self) -> Result<Self, InvalidInput> {
        match (&self.model, &self.version) {
            (None, None) => Err(InvalidInput::one("version", REQUIRED)),
            _ => Ok(self),
        }
    }
}

/// `owner/name:version`, `owner/name`, or a version alone.
fn model_and_version(name: String) -> (Option<String>, Option<String>) {
    match name.split_once(':') {
        Some((model, version)) => (Some(model.to_owned()), Some(version.to_owned())),
        None if name.contains('/') => (Some(name), None),
        None => (None, Some(name)),
    }
}

/// Replicate's word for a reason: those of the library that checks its requests.
pub(super) fn kind(reason: &str) -> &'static str {
    match reason {
        REQUIRED => "required",
        ADDITIONAL => "additional_property_not_allowed",
        _ => "invalid",
    }
}
