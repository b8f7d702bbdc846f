//! `Idempotency-Key`: a client that did not see the answer to a create asks again, and gets the prediction it already has.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, request::Parts},
    response::{IntoResponseParts, ResponseParts},
};
use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use super::{Api, Error, openapi::header};
use crate::{domain::InvalidInput, service::Created};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// Characters of a key at most.
const MAX_LENGTH: usize = 255;

/// The key of a create, if its client gave one: bare, or in quotes as the standard that never was has it.
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let same = "1 to 255 printable characters. A repetition with the same key is answered with the prediction made the first time.";
        vec![header("Idempotency-Key", same)]
    }
}

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(Self(None));
        };
        let key = value.to_str().ok().filter(|_| values.next().is_none()).and_then(unquoted);
        let malformed =
            || InvalidInput::one("Idempotency-Key", format!("must be 1 to {MAX_LENGTH} printable characters"));
        Ok(Self(Some(key.ok_or_else(malformed)?.to_owned())))
    }
}

fn unquoted(value: &str) -> Option<&str> {
    let value = value.trim();
    let key = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let is_printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (is_printable && (1..=MAX_LENGTH).contains(&key.len())).then_some(key)
}

/// As a part of an answer: says that it is about a prediction made by an earlier request.
pub(super) struct Replayed(bool);

impl Replayed {
    /// What became of a create.
    pub(super) fn of(created: &Created) -> Self {
        Self(!created.is_new)
    }
}

impl IntoResponseParts for Replayed {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        if self.0 {
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_bare_or_quoted() {
        for (value, key) in [("a-1", "a-1"), ("\"a-1\"", "a-1"), (" a ", "a"), ("\"a b\"", "a b"), ("\"", "\"")] {
            assert_eq!(unquoted(value), Some(key), "{value}");
        }
        for value in ["", "\"\"", "a\tb", &"x".repeat(256)] {
            assert_eq!(unquoted(value), None, "{value}");
        }
    }
}
