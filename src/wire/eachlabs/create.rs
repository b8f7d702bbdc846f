//! The body of a create.

use serde_json::Value;

use super::DEFAULTS;
use crate::domain::{FaceDefaults, InvalidInput};

/// The body of a request to create a prediction.
#[derive(Clone, Debug, PartialEq)]
pub struct CreatePrediction {
    /// The model's slug.
    pub model: String,
    /// The input, as it came.
    pub input: Value,
}

impl CreatePrediction {
    /// Reads a body. Fields it does not know are left alone, as the vendor does, whose own client sends some; among them
    /// `version`, which has no meaning any more.
    ///
    /// A webhook is refused while there is nobody to deliver it: a client that waits for one must not wait for ever.
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
        // Samples send an empty one for none.
        if fields.get("webhook_url").is_some_and(|url| !url.is_null() && url != "") {
            let reason = "is not supported yet; leave it empty and poll the prediction";
            return Err(InvalidInput::one("webhook_url", reason));
        }
        Ok(Self { model, input: fields.remove("input").unwrap_or_default() })
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
