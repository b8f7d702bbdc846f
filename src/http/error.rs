//! Errors on their way out: what a request did wrong, or what went wrong with it, as a [`Refusal`].
//!
//! One match decides. The refusal travels as an extension of its response; `observe`, which knows the request's face and
//! id, writes it into the body. What is our fault is logged here, once, and never shown.

use std::any::Any;

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_RANGE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};

use crate::{
    domain::{InvalidField, InvalidInput, PredictionId, Scope},
    service,
    wire::{Refusal, json::MOST_VALUES},
};

/// Seconds after which an unavailable server is worth another try.
pub(super) const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");
/// Another try would be another prediction, or as vain as the first. Understood by clients that retry conflicts, among them
/// Replicate's, and what is the server's fault, as OpenAI's do.
pub(super) const NOT_AGAIN: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));

/// Why a request is not answered as its client hoped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Service(#[from] service::Error),
    /// In a header, the query or the body's outer object.
    #[error(transparent)]
    InvalidRequest(#[from] InvalidInput),
    #[error("the body is not JSON: {0}")]
    MalformedBody(String),
    #[error("the body must not have more than {MOST_VALUES} values")]
    CrowdedBody,
    #[error("the body is not a form: {0}")]
    MalformedForm(String),
    #[error("the header {header} {reason}")]
    UnsupportedBody { header: &'static str, reason: String },
    #[error("the body must be at most {limit} bytes long")]
    BodyTooLarge { limit: usize },
    #[error("the body did not arrive in time")]
    BodyTooSlow,
    #[error("the body did not arrive whole")]
    BodyCutShort,
    #[error("nothing is told of this prediction to a webhook")]
    NoWebhook,
    #[error("the range lies beyond the file's {size} bytes")]
    RangeNotSatisfiable { size: u64 },
    #[error("there is nothing at this URL")]
    NoRoute,
    #[error("this URL does not take this method; see the Allow header")]
    MethodNotAllowed,
    /// Clients have another way when they are told that this one is not built, and none when it is merely not found.
    #[error("{0} are not supported yet")]
    NotBuilt(&'static str),
    /// Where a prediction is no data but an answer, which it did not come to.
    #[error("{message}")]
    Unsuccessful { code: &'static str, message: String },
    /// The same for one that goes on.
    #[error(
        "the prediction {0} takes longer than its answer could be waited for; it goes on, and \
         GET /predictions/{0}?wait=60 waits on for it"
    )]
    NotInTime(PredictionId),
    #[error("internal error")]
    Panicked,
}

impl Error {
    /// The status, a code for programs, and the fields at fault.
    fn classify(&self) -> (StatusCode, &'static str, Vec<InvalidField>) {
        let one = |field: &str| vec![InvalidField { field: field.to_owned(), reason: self.to_string() }];
        match self {
            Self::Service(error) => match error {
                service::Error::NotFound => (StatusCode::NOT_FOUND, "not_found", Vec::new()),
                service::Error::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", one("Authorization")),
                service::Error::Forbidden(Scope::SafetyDisable) => {
                    (StatusCode::FORBIDDEN, "forbidden", one("input.disable_safety_checker"))
                }
                service::Error::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", Vec::new()),
                service::Error::PaymentRequired(_) => (StatusCode::PAYMENT_REQUIRED, "payment_required", Vec::new()),
                service::Error::TooManyRequests { .. } => {
                    (StatusCode::TOO_MANY_REQUESTS, "too_many_requests", Vec::new())
                }
                service::Error::TooManyHeld { .. } => (StatusCode::TOO_MANY_REQUESTS, "too_many_held", Vec::new()),
                service::Error::TooManyInFlight(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_in_flight", Vec::new()),
                service::Error::Overloaded { .. } | service::Error::Crowded { .. } => {
                    (StatusCode::SERVICE_UNAVAILABLE, "overloaded", Vec::new())
                }
                service::Error::InvalidInput(invalid) => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", invalid.fields.clone())
                }
                service::Error::UnknownModel(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unknown_model", one("model")),
                service::Error::UnknownVersion(_) => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "unknown_version", one("version"))
                }
                service::Error::NoFile => (StatusCode::NOT_FOUND, "file_not_found", Vec::new()),
                service::Error::InvalidSignature => (StatusCode::FORBIDDEN, "invalid_signature", Vec::new()),
                service::Error::LinkExpired => (StatusCode::FORBIDDEN, "link_expired", Vec::new()),
                service::Error::StorageFull { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "storage_full", Vec::new()),
                service::Error::BeingStored => (StatusCode::CONFLICT, "being_stored", Vec::new()),
                service::Error::Conflict(_) => (StatusCode::CONFLICT, "conflict", one("id")),
                service::Error::KeyReused => {
                    (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", one("Idempotency-Key"))
                }
                service::Error::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", Vec::new()),
                service::Error::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", Vec::new()),
            },
            Self::InvalidRequest(invalid) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", invalid.fields.clone())
            }
            Self::MalformedBody(_) | Self::CrowdedBody | Self::MalformedForm(_) => {
                (StatusCode::BAD_REQUEST, "malformed_body", one("body"))
            }
            Self::UnsupportedBody { header, .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", one(header))
            }
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", one("body")),
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, "body_too_slow", one("body")),
            Self::BodyCutShort => (StatusCode::BAD_REQUEST, "body_cut_short", one("body")),
            Self::RangeNotSatisfiable { .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", one("Range"))
            }
            Self::NoWebhook => (StatusCode::NOT_FOUND, "webhook_not_found", Vec::new()),
            Self::NoRoute => (StatusCode::NOT_FOUND, "unknown_url", Vec::new()),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", Vec::new()),
            Self::NotBuilt(_) => (StatusCode::NOT_IMPLEMENTED, "not_implemented", Vec::new()),
            Self::Unsuccessful { code: code @ ("invalid_input" | "content_moderation"), .. } => {
                (StatusCode::BAD_REQUEST, code, Vec::new())
            }
            Self::Unsuccessful { code: code @ "canceled", .. } => (StatusCode::CONFLICT, code, Vec::new()),
            Self::Unsuccessful { code, .. } => (StatusCode::INTERNAL_SERVER_ERROR, code, Vec::new()),
            Self::NotInTime(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_in_time", Vec::new()),
            Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "internal", Vec::new()),
        }
    }

    /// What the faces make their error bodies of.
    pub(super) fn into_refusal(self) -> Refusal {
        let (status, code, invalid_fields) = self.classify();
        Refusal { status, code, detail: self.to_string(), invalid_fields }
    }

    /// The header its status calls for.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Service(service::Error::Unauthorized) => {
                Some((WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="fourstep""#)))
            }
            Self::Service(
                service::Error::Unavailable(_)
                | service::Error::TooManyHeld { .. }
                | service::Error::TooManyInFlight(_)
                | service::Error::BeingStored,
            ) => Some((RETRY_AFTER, RETRY_SECONDS)),
            Self::Service(
                service::Error::TooManyRequests { retry_after }
                | service::Error::Overloaded { retry_after }
                | service::Error::Crowded { retry_after },
            ) => Some((RETRY_AFTER, HeaderValue::from(*retry_after))),
            Self::Service(service::Error::Conflict(_)) | Self::NotBuilt(_) => Some(NOT_AGAIN),
            Self::RangeNotSatisfiable { size } => {
                HeaderValue::try_from(format!("bytes */{size}")).ok().map(|value| (CONTENT_RANGE, value))
            }
            _ => None,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        match &self {
            Self::Service(service::Error::Internal(source)) => {
                tracing::error!(error = format!("{source:#}"), "A request failed");
            }
            Self::Service(service::Error::Unavailable(source)) => {
                tracing::warn!(error = format!("{source:#}"), "A request could not be served now");
            }
            _ => {}
        }
        let header = self.header();
        let refusal = self.into_refusal();
        let mut response = Response::new(Body::empty());
        *response.status_mut() = refusal.status;
        response.headers_mut().extend(header);
        response.extensions_mut().insert(refusal);
        response
    }
}

/// An error with its causes, for the log: its own text is for the client.
pub(super) fn with_causes(error: service::Error) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// The answer to a request whose handler panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = message, "A request's handler panicked");
    Error::Panicked.into_response()
}
