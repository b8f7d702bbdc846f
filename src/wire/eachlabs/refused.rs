//! Why a request was refused, as Eachlabs says it.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::Refusal;
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
        let Refusal { status, code, detail, invalid_fields } = refusal;
        let (status, error) = match code {
            "unauthorized" => (status, "Invalid or missing API key".to_owned()),
            "not_found" => (status, "Prediction not found".to_owned()),
            "webhook_not_found" => (status, "webhook not found".to_owned()),
            "file_not_found" => (status, "file not found".to_owned()),
            "unknown_model" => (StatusCode::NOT_FOUND, "Failed to fetch model: model not found".to_owned()),
            "malformed_body" => (StatusCode::UNPROCESSABLE_ENTITY, "invalid request body".to_owned()),
            "invalid_request" => (StatusCode::BAD_REQUEST, error(&invalid_fields)),
            "payment_required" => (status, "payment required".to_owned()),
            "too_many_requests" | "too_many_held" | "too_many_in_flight" => (status, "too many requests".to_owned()),
            // The vendor documents no 503, and its loop to try again knows 429 and 500 only.
            "overloaded" => (StatusCode::TOO_MANY_REQUESTS, "too many requests".to_owned()),
            "unavailable" | "not_in_time" => (StatusCode::TOO_MANY_REQUESTS, detail.clone()),
            "internal" => (status, "Internal server error".to_owned()),
            _ => (status, detail.clone()),
        };
        let is_final = of_a_poll && status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
        let field = |InvalidField { field, reason }| Detail { field, reason };
        let details = match code {
            "invalid_request" => Details::Fields(invalid_fields.into_iter().map(field).collect()),
            "payment_required" | "too_many_requests" | "too_many_held" | "too_many_in_flight" | "overloaded" => {
                Details::Sentence(detail.clone())
            }
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
