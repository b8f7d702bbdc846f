//! The body of a create.

use serde_json::Value;

use super::DEFAULTS;
use crate::domain::{FaceDefaults, InvalidInput, WebhookEvent, WebhookRequest, WebhookSecret};

/// The body of a request to create a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatePrediction {
    /// The model's slug.
    pub model: String,
    /// The input, as it came.
    pub input: Value,
    /// Where to tell how it ended.
    pub webhook: Option<WebhookRequest>,
}

impl CreatePrediction {
    /// Reads a body. Fields it does not know are left alone, as the vendor does, whose own client sends some; among them
    /// `version`, which has no meaning any more.
    pub fn parse(body: Value) -> Result<Self, InvalidInput> {
        let Value::Object(mut fields) = body else {
            return Err(InvalidInput::one("body", "must be a JSON object"));
        };
        let model = match fields.remove("model") {
            Some(Value::String(model)) if !model.is_empty() => model,
            None | Some(Value::Null | Value::String(_)) => {
                return Err(InvalidInput::one("model", "field is required"));
            }
            Some(_) => return Err(InvalidInput::one("model", "field must be a string")),
        };
        let webhook = webhook(fields.remove("webhook_url"), fields.remove("webhook_secret"))?;
        Ok(Self { model, input: fields.remove("input").unwrap_or_default(), webhook })
    }

    /// What is filled in. Eachlabs' models have `enable_safety_checker` beside the model's own switch, which counts more.
    pub fn defaults(&self) -> FaceDefaults {
        let enabled = match self.input.get("enable_safety_checker") {
            Some(Value::Bool(enabled)) => Some(*enabled),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let disable_safety_checker = enabled.map_or(DEFAULTS.disable_safety_checker, |enabled| !enabled);
        FaceDefaults { disable_safety_checker, ..DEFAULTS }
    }
}

fn webhook(url: Option<Value>, secret: Option<Value>) -> Result<Option<WebhookRequest>, InvalidInput> {
    let field = "webhook_url";
    let url = match url {
        // Samples send an empty one for none; then a secret means nothing.
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(url)) if url.is_empty() => return Ok(None),
        Some(Value::String(url)) => url,
        Some(_) => return Err(InvalidInput::one(field, "must be a URL")),
    };
    let secret = match secret {
        None | Some(Value::Null) => None,
        Some(Value::String(secret)) if secret.is_empty() => None,
        Some(Value::String(secret)) => {
            let secret = WebhookSecret::verbatim(secret);
            Some(secret.map_err(|reason| InvalidInput::one("webhook_secret", reason))?)
        }
        Some(_) => return Err(InvalidInput::one("webhook_secret", "must be a string")),
    };
    Ok(Some(WebhookRequest { field, url, events: vec![WebhookEvent::Completed], secret }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_two_switches_of_the_safety_checker_mean_the_same() {
        for (input, disabled) in [
            (json!({}), true),
            (json!({"enable_safety_checker": true}), false),
            (json!({"enable_safety_checker": "true"}), false),
            (json!({"enable_safety_checker": false}), true),
        ] {
            let body = CreatePrediction::parse(json!({"model": "m", "input": input})).expect("valid");
            assert_eq!(body.defaults().disable_safety_checker, disabled, "{input}");
        }
    }
}
