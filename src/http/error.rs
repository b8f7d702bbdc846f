//! Errors on their way out: what a request did wrong, or what went wrong with it, as a [`Refusal`].
//!
//! One match decides. The refusal travels as an extension of its response; `observe`, which knows the request's face and
//! id, writes it into the body. What is our fault is logged here, once, and never shown.

use std::any::Any;

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue,
        header::{CONTENT_RANGE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};

use crate::{
    domain::{Failure, InvalidField, InvalidInput, PredictionId, Scope},
    service,
    wire::{Refusal, RefusalCode, json::MOST_VALUES},
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
    #[error("the server is receiving as much as it can hold; try again in a second")]
    TooManyBodies,
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
    #[error("{}", .0.message)]
    Failed(Failure),
    #[error("the prediction was canceled")]
    Canceled,
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
    /// A code for programs, and the fields at fault.
    fn classify(&self) -> (RefusalCode, Vec<InvalidField>) {
        let one = |field: &str| vec![InvalidField { field: field.to_owned(), reason: self.to_string() }];
        let none = |code| (code, Vec::new());
        match self {
            Self::Service(error) => match error {
                service::Error::NotFound => none(RefusalCode::NotFound),
                service::Error::Unauthorized => (RefusalCode::Unauthorized, one("Authorization")),
                service::Error::Forbidden(Scope::SafetyDisable) => {
                    (RefusalCode::Forbidden, one("input.disable_safety_checker"))
                }
                service::Error::Forbidden(_) => none(RefusalCode::Forbidden),
                service::Error::PaymentRequired(_) => none(RefusalCode::PaymentRequired),
                service::Error::TooManyRequests { .. } => none(RefusalCode::TooManyRequests),
                service::Error::TooManyHeld { .. } => none(RefusalCode::TooManyHeld),
                service::Error::TooManyInFlight(_) => none(RefusalCode::TooManyInFlight),
                service::Error::Overloaded { .. }
                | service::Error::Crowded { .. }
                | service::Error::TooManyStrangers { .. } => none(RefusalCode::Overloaded),
                service::Error::InvalidInput(invalid) => (RefusalCode::InvalidRequest, invalid.fields.clone()),
                service::Error::UnknownModel(_) => (RefusalCode::UnknownModel, one("model")),
                service::Error::UnknownVersion(_) => (RefusalCode::UnknownVersion, one("version")),
                service::Error::NoFile => none(RefusalCode::FileNotFound),
                service::Error::InvalidSignature => none(RefusalCode::InvalidSignature),
                service::Error::LinkExpired => none(RefusalCode::LinkExpired),
                service::Error::StorageFull { .. } => none(RefusalCode::StorageFull),
                service::Error::BeingStored => none(RefusalCode::BeingStored),
                service::Error::Conflict(_) => (RefusalCode::Conflict, one("id")),
                service::Error::KeyReused => (RefusalCode::IdempotencyKeyReused, one("Idempotency-Key")),
                service::Error::Unavailable(_) => none(RefusalCode::Unavailable),
                service::Error::Internal(_) => none(RefusalCode::Internal),
            },
            Self::InvalidRequest(invalid) => (RefusalCode::InvalidRequest, invalid.fields.clone()),
            Self::MalformedBody(_) | Self::CrowdedBody | Self::MalformedForm(_) => {
                (RefusalCode::MalformedBody, one("body"))
            }
            Self::UnsupportedBody { header, .. } => (RefusalCode::UnsupportedMediaType, one(header)),
            Self::BodyTooLarge { .. } => (RefusalCode::BodyTooLarge, one("body")),
            Self::BodyTooSlow => (RefusalCode::BodyTooSlow, one("body")),
            Self::BodyCutShort => (RefusalCode::BodyCutShort, one("body")),
            Self::TooManyBodies => none(RefusalCode::Overloaded),
            Self::RangeNotSatisfiable { .. } => (RefusalCode::RangeNotSatisfiable, one("Range")),
            Self::NoWebhook => none(RefusalCode::WebhookNotFound),
            Self::NoRoute => none(RefusalCode::UnknownUrl),
            Self::MethodNotAllowed => none(RefusalCode::MethodNotAllowed),
            Self::NotBuilt(_) => none(RefusalCode::NotImplemented),
            Self::Failed(failure) => none(RefusalCode::Failed(failure.code)),
            Self::Canceled => none(RefusalCode::Canceled),
            Self::NotInTime(_) => none(RefusalCode::NotInTime),
            Self::Panicked => none(RefusalCode::Internal),
        }
    }

    /// What the faces make their error bodies of.
    pub(super) fn into_refusal(self) -> Refusal {
        let (code, invalid_fields) = self.classify();
        Refusal { code, detail: self.to_string(), invalid_fields }
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
            )
            | Self::TooManyBodies => Some((RETRY_AFTER, RETRY_SECONDS)),
            Self::Service(
                service::Error::TooManyRequests { retry_after }
                | service::Error::Overloaded { retry_after }
                | service::Error::Crowded { retry_after }
                | service::Error::TooManyStrangers { retry_after },
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
        *response.status_mut() = refusal.code.status();
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
