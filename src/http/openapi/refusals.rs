//! How each face refuses, one example for each status: made of the errors themselves, in the words each face has for them.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::Error;
use crate::{
    domain::{Dialect, InvalidInput, NanoUsd, PredictionId, Scope, Shortage},
    service,
    wire::{Refusal, eachlabs, mounts, native, openai, replicate},
};

/// The schemas of the faces' error bodies.
const SCHEMAS: [&str; 4] = ["native.Problem", "replicate.Problem", "eachlabs.Refused", "openai.Refused"];

/// An operation that refuses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// What its caller's key must have.
    pub(super) scope: Option<Scope>,
    /// The example of a prediction's id.
    pub(super) id: PredictionId,
}

impl Operation<'_> {
    /// Puts an example into a response of this status, wherever it has the body of a refusal.
    pub(super) fn put_into(self, response: &mut Value, status: &str) {
        for (_, media) in response.get_mut("content").and_then(Value::as_object_mut).into_iter().flatten() {
            let name = media["schema"]["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
            if name.is_some_and(|name| SCHEMAS.contains(&name))
                && let Some(example) = self.refusal(status)
            {
                media["example"] = example;
            }
        }
    }

    /// What is answered with this status. Where several errors have it, the likeliest.
    fn refusal(self, status: &str) -> Option<Value> {
        let mut answers = self.errors().into_iter().map(|error| self.body(error.into_refusal()));
        answers.find(|(answered, _)| answered.as_str() == status).map(|(_, body)| body)
    }

    fn errors(self) -> Vec<Error> {
        let path = self.path;
        let missing: Error = match self.method {
            _ if path.contains("webhook") => Error::NoWebhook,
            "post" if !path.contains("{id}") => service::Error::UnknownModel("sdxl-lightning-2step".to_owned()).into(),
            _ => service::Error::NotFound.into(),
        };
        let conflict =
            if path.contains("/images/") { Error::Canceled } else { service::Error::Conflict(self.id).into() };
        let forbidden: Error = if path.ends_with("/download") {
            service::Error::InvalidSignature.into()
        } else {
            service::Error::Forbidden(self.scope.unwrap_or(Scope::Admin)).into()
        };
        let shortage = Shortage::Balance {
            needed: NanoUsd::new(3_080_000),
            available: NanoUsd::new(1_000_000),
            held: NanoUsd::new(0),
        };
        let not_json = "must be application/json, not text/plain".to_owned();
        vec![
            service::Error::Unauthorized.into(),
            forbidden,
            service::Error::TooManyRequests { retry_after: 3 }.into(),
            service::Error::Overloaded { retry_after: 30 }.into(),
            service::Error::PaymentRequired(shortage).into(),
            missing,
            conflict,
            InvalidInput::one("input.width", "must be a multiple of 8").into(),
            Error::MalformedBody("expected value at line 1 column 1".to_owned()),
            Error::BodyTooSlow,
            Error::BodyTooLarge { limit: 16 << 20 },
            Error::UnsupportedBody { header: "Content-Type", reason: not_json },
            Error::RangeNotSatisfiable { size: 61_440 },
            service::Error::KeyReused.into(),
            service::Error::Unavailable(anyhow::anyhow!("away")).into(),
            Error::NotBuilt("variations"),
            Error::Panicked,
            service::Error::NotFound.into(),
        ]
    }

    /// In the words of the face the operation belongs to.
    fn body(self, refusal: Refusal) -> (StatusCode, Value) {
        match mounts::named_by(self.path).unwrap_or(Dialect::Native) {
            Dialect::Replicate => (refusal.code.status(), json!(replicate::Problem::new(refusal))),
            Dialect::Eachlabs => {
                let of_a_poll = self.method == "get" && self.path.contains("/prediction/");
                let (status, body) = eachlabs::Refused::new(refusal, of_a_poll);
                (status, json!(body))
            }
            Dialect::OpenAi => {
                let (status, body) = openai::Refused::new(refusal);
                (status, json!(body))
            }
            Dialect::Native => (refusal.code.status(), json!(native::Problem::new(refusal, "5f2b8c1e".to_owned()))),
        }
    }
}
