//! Why a request was refused, as OpenAI says it.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{Refusal, RefusalCode};
use crate::domain::{FailureCode, InvalidField};

/// What was drawn is not given out; its type is the vendor's as well.
const MODERATION: &str = "moderation_blocked";

/// The body of a refusal.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::Refused)]
pub struct Refused {
    /// All of it.
    pub error: RefusedError,
}

/// What was wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = openai::RefusedError)]
pub struct RefusedError {
    /// For people.
    message: String,
    /// Whose fault it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The first field at fault, by the name this face has for it.
    param: Option<String>,
    /// For programs.
    code: Option<&'static str>,
}

impl Refused {
    /// The status and the body of a refusal. Its clients make an exception of their own out of each status.
    pub fn new(refusal: Refusal) -> (StatusCode, Self) {
        let Refusal { code, detail, invalid_fields } = refusal;
        let (status, code) = match code {
            RefusalCode::InvalidRequest => (StatusCode::BAD_REQUEST, None),
            RefusalCode::UnknownModel => (StatusCode::NOT_FOUND, Some("model_not_found")),
            RefusalCode::Unauthorized => (code.status(), Some("invalid_api_key")),
            RefusalCode::Failed(FailureCode::ContentModeration) => (code.status(), Some(MODERATION)),
            // The vendor documents no codes for these.
            RefusalCode::MalformedBody
            | RefusalCode::BodyCutShort
            | RefusalCode::BodyTooSlow
            | RefusalCode::BodyTooLarge
            | RefusalCode::UnsupportedMediaType
            | RefusalCode::UnknownVersion
            | RefusalCode::IdempotencyKeyReused
            | RefusalCode::Conflict
            | RefusalCode::Forbidden
            | RefusalCode::InvalidSignature
            | RefusalCode::LinkExpired
            | RefusalCode::PaymentRequired
            | RefusalCode::TooManyRequests
            | RefusalCode::TooManyHeld
            | RefusalCode::TooManyInFlight
            | RefusalCode::Overloaded
            | RefusalCode::Unavailable
            | RefusalCode::NotFound
            | RefusalCode::FileNotFound
            | RefusalCode::WebhookNotFound
            | RefusalCode::UnknownUrl
            | RefusalCode::MethodNotAllowed
            | RefusalCode::RangeNotSatisfiable
            | RefusalCode::StorageFull
            | RefusalCode::BeingStored
            | RefusalCode::NotImplemented
            | RefusalCode::Failed(_)
            | RefusalCode::Canceled
            | RefusalCode::NotInTime
            | RefusalCode::Internal => (code.status(), Some(code.as_str())),
        };
        let kind = match status {
            _ if code == Some(MODERATION) => "image_generation_user_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::PAYMENT_REQUIRED => "insufficient_quota",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let of_content = matches!(code, None | Some("model_not_found"));
        let named: Vec<InvalidField> = invalid_fields.into_iter().filter(|_| of_content).map(renamed).collect();
        let sentences: Vec<String> =
            named.iter().map(|InvalidField { field, reason }| format!("{field} {reason}")).collect();
        let message = if code.is_none() { sentences.join("; ") } else { detail };
        let param = named.into_iter().next().map(|InvalidField { field, .. }| field);
        (status, Self { error: RefusedError { message, kind, param, code } })
    }
}

/// A field of the input by the name it has here.
fn renamed(InvalidField { field, reason }: InvalidField) -> InvalidField {
    let field = match field.strip_prefix("input.").unwrap_or(&field) {
        "num_outputs" => "n",
        "width" | "height" => "size",
        "output_quality" => "output_compression",
        own => own,
    };
    InvalidField { field: field.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_as_its_client_sent_it() {
        let fields = [("input.num_outputs", "must be less"), ("input.width", "must be more")];
        let invalid_fields =
            fields.map(|(field, reason)| InvalidField { field: field.to_owned(), reason: reason.to_owned() }).into();
        let refusal = Refusal { code: RefusalCode::InvalidRequest, detail: "no".to_owned(), invalid_fields };
        let (status, refused) = Refused::new(refusal);
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let expected = serde_json::json!({"error": {
            "message": "n must be less; size must be more", "type": "invalid_request_error", "param": "n", "code": null,
        }});
        assert_eq!(serde_json::to_value(refused).expect("serializable"), expected);
    }
}
