//! Why a request was refused, as Eachlabs says it.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{Refusal, RefusalCode};
use crate::domain::InvalidField;

/// The body of a refusal. Clients look for its text under `error` or under `message`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Refused)]
pub struct Refused {
    /// The HTTP status; not there for who asks for a prediction again and again.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The vendor's sentence where it has one.
    error: String,
    /// For people.
    message: String,
    /// What was wrong where, or a sentence about it.
    #[serde(skip_serializing_if = "Details::is_none")]
    details: Details,
}

/// A sentence where the vendor has one, and what was wrong where.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = eachlabs::Details)]
enum Details {
    None,
    Sentence(String),
    Fields(Vec<Detail>),
}

impl Details {
    fn is_none(&self) -> bool {
        matches!(self, Self::None) || matches!(self, Self::Fields(fields) if fields.is_empty())
    }
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Detail)]
struct Detail {
    /// Its path in the body.
    field: String,
    /// What was wrong with it.
    reason: String,
}

impl Refused {
    /// The status and the body of a refusal. `of_a_poll` says that it answers a client that asks for a prediction over and
    /// over: it compares the body's `status` with words that end its loop, and one that is there and is none of them, as
    /// a number is, keeps it asking for ever what it may never have. What passes by itself is worth asking again.
    pub fn new(refusal: Refusal, of_a_poll: bool) -> (StatusCode, Self) {
        let Refusal { code, detail, invalid_fields } = refusal;
        let status = code.status();
        let (status, error) = match code {
            RefusalCode::Unauthorized => (status, "Invalid or missing API key".to_owned()),
            RefusalCode::NotFound => (status, "Prediction not found".to_owned()),
            RefusalCode::WebhookNotFound => (status, "webhook not found".to_owned()),
            RefusalCode::FileNotFound => (status, "file not found".to_owned()),
            RefusalCode::UnknownModel => (StatusCode::NOT_FOUND, "Failed to fetch model: model not found".to_owned()),
            RefusalCode::MalformedBody => (StatusCode::UNPROCESSABLE_ENTITY, "invalid request body".to_owned()),
            RefusalCode::InvalidRequest => (StatusCode::BAD_REQUEST, error(&invalid_fields)),
            RefusalCode::PaymentRequired => (status, "payment required".to_owned()),
            RefusalCode::TooManyRequests | RefusalCode::TooManyHeld | RefusalCode::TooManyInFlight => {
                (status, "too many requests".to_owned())
            }
            // The vendor documents no 503, and its loop to try again knows 429 and 500 only.
            RefusalCode::Overloaded => (StatusCode::TOO_MANY_REQUESTS, "too many requests".to_owned()),
            RefusalCode::Unavailable | RefusalCode::NotInTime => (StatusCode::TOO_MANY_REQUESTS, detail.clone()),
            RefusalCode::Internal => (status, "Internal server error".to_owned()),
            RefusalCode::BodyCutShort
            | RefusalCode::BodyTooSlow
            | RefusalCode::BodyTooLarge
            | RefusalCode::UnsupportedMediaType
            | RefusalCode::UnknownVersion
            | RefusalCode::IdempotencyKeyReused
            | RefusalCode::Conflict
            | RefusalCode::Forbidden
            | RefusalCode::InvalidSignature
            | RefusalCode::LinkExpired
            | RefusalCode::UnknownUrl
            | RefusalCode::MethodNotAllowed
            | RefusalCode::RangeNotSatisfiable
            | RefusalCode::StorageFull
            | RefusalCode::BeingStored
            | RefusalCode::NotImplemented
            | RefusalCode::Failed(_)
            | RefusalCode::Canceled => (status, detail.clone()),
        };
        let is_final = of_a_poll && status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
        let field = |InvalidField { field, reason }| Detail { field, reason };
        let details = match code {
            RefusalCode::InvalidRequest => Details::Fields(invalid_fields.into_iter().map(field).collect()),
            RefusalCode::PaymentRequired
            | RefusalCode::TooManyRequests
            | RefusalCode::TooManyHeld
            | RefusalCode::TooManyInFlight
            | RefusalCode::Overloaded => Details::Sentence(detail.clone()),
            _ => Details::None,
        };
        (status, Self { status: (!is_final).then_some(status.as_u16()), error, message: detail, details })
    }
}

/// The vendor's sentence where it has one.
fn error(fields: &[InvalidField]) -> String {
    if fields.iter().any(|InvalidField { field, .. }| field.starts_with("input")) {
        return "Invalid input for model".to_owned();
    }
    if fields.iter().any(|InvalidField { field, .. }| field == "execution_id") {
        return "invalid execution_id".to_owned();
    }
    if fields.iter().any(|InvalidField { field, .. }| field == "id") {
        return "invalid argument".to_owned();
    }
    let sentences: Vec<String> =
        fields.iter().map(|InvalidField { field, reason }| format!("{field} {reason}")).collect();
    sentences.join("; ")
}
