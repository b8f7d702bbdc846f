//! A request refused, before a face has put it in its words.

use http::StatusCode;

use crate::domain::{FailureCode, InvalidField};

/// What every face's error body is made of.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub detail: String,
    /// What was wrong where, if it was the request's content.
    pub invalid_fields: Vec<InvalidField>,
}

/// Why a request is refused. Every face says of each what its own clients understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// A body that cannot be read as what it should be.
    MalformedBody,
    /// A body that ended before its end.
    BodyCutShort,
    /// A body that took too long.
    BodyTooSlow,
    /// A body of too many bytes.
    BodyTooLarge,
    /// A body of another type.
    UnsupportedMediaType,
    /// Content that is not what it should be.
    InvalidRequest,
    /// No such model.
    UnknownModel,
    /// No such version of it.
    UnknownVersion,
    /// The `Idempotency-Key` of another request.
    IdempotencyKeyReused,
    /// The id of another prediction.
    Conflict,
    /// No key, or none that is valid.
    Unauthorized,
    /// A key that may not do this.
    Forbidden,
    /// A link that its owner has not signed.
    InvalidSignature,
    /// A link that was good until a while ago.
    LinkExpired,
    /// Too little money.
    PaymentRequired,
    /// Too many requests in a time.
    TooManyRequests,
    /// Too many requests that wait.
    TooManyHeld,
    /// Too many predictions that have not ended.
    TooManyInFlight,
    /// Too much for this server, for a while.
    Overloaded,
    /// Something that this server needs is away, for a while.
    Unavailable,
    /// No such prediction, or somebody else's.
    NotFound,
    /// No such file, or somebody else's.
    FileNotFound,
    /// No webhook of this prediction.
    WebhookNotFound,
    /// No such URL.
    UnknownUrl,
    /// Not by this method.
    MethodNotAllowed,
    /// Bytes that the file does not have.
    RangeNotSatisfiable,
    /// Too many bytes of uploads.
    StorageFull,
    /// Bytes that another request is storing.
    BeingStored,
    /// What the vendor has and this server has not.
    NotImplemented,
    /// Where a prediction is an answer: it has failed.
    Failed(FailureCode),
    /// Where a prediction is an answer: it was canceled.
    Canceled,
    /// Where a prediction is an answer: it goes on.
    NotInTime,
    /// Our fault.
    Internal,
}

impl RefusalCode {
    /// The native face's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedBody => "malformed_body",
            Self::BodyCutShort => "body_cut_short",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InvalidRequest => "invalid_request",
            Self::UnknownModel => "unknown_model",
            Self::UnknownVersion => "unknown_version",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::Conflict => "conflict",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::InvalidSignature => "invalid_signature",
            Self::LinkExpired => "link_expired",
            Self::PaymentRequired => "payment_required",
            Self::TooManyRequests => "too_many_requests",
            Self::TooManyHeld => "too_many_held",
            Self::TooManyInFlight => "too_many_in_flight",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::FileNotFound => "file_not_found",
            Self::WebhookNotFound => "webhook_not_found",
            Self::UnknownUrl => "unknown_url",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::StorageFull => "storage_full",
            Self::BeingStored => "being_stored",
            Self::NotImplemented => "not_implemented",
            Self::Failed(failure) => failure.as_str(),
            Self::Canceled => "canceled",
            Self::NotInTime => "not_in_time",
            Self::Internal => "internal",
        }
    }

    /// As HTTP has it. A face whose vendor has another habit changes it.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MalformedBody | Self::BodyCutShort => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
            Self::Forbidden | Self::InvalidSignature | Self::LinkExpired => StatusCode::FORBIDDEN,
            Self::NotFound | Self::FileNotFound | Self::WebhookNotFound | Self::UnknownUrl => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict | Self::BeingStored | Self::Canceled => StatusCode::CONFLICT,
            Self::BodyTooLarge | Self::StorageFull => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::InvalidRequest | Self::UnknownModel | Self::UnknownVersion | Self::IdempotencyKeyReused => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::TooManyRequests | Self::TooManyHeld | Self::TooManyInFlight => StatusCode::TOO_MANY_REQUESTS,
            // What was asked for is at fault, and not the server.
            Self::Failed(FailureCode::InvalidInput | FailureCode::ContentModeration) => StatusCode::BAD_REQUEST,
            Self::Failed(_) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Overloaded | Self::Unavailable | Self::NotInTime => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
