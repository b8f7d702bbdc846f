//! Replicate's face: its JSON, as its own clients read it.
//!
//! Those clients are stricter than the vendor's documentation: `model` and `version` must be texts, no URL may be `null`,
//! `error` must be `null` and not empty, and there is no status but the five here.

pub mod body;
mod create;
mod file;
mod model;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, schema::Type},
};

use super::{
    FaceUrl, Refusal, RefusalCode,
    exact::{Dollars, Moment, Seconds},
};
use crate::domain::{self, FaceDefaults, InvalidField, PredictionId, Status, UnknownFields};

pub use create::CreatePrediction;
pub use file::{File, new_file};
pub use model::{Account, Model, Version};

/// What Replicate fills in, as the model's authors have it.
pub const DEFAULTS: FaceDefaults = FaceDefaults {
    prompt: "self-portrait of a woman, lightning in the background",
    negative_prompt: "worst quality, low quality",
    disable_safety_checker: false,
    has_seed_minus_one: true,
    unknown_fields: UnknownFields::Note,
};

/// Replicate's word for a status. Its `aborted`, for a deadline passed before the start, is a stumbling block to its own
/// clients: that is `canceled` here.
pub const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Queued => "starting",
        Status::Processing => "processing",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::Canceled => "canceled",
    }
}

fn statuses() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Status::ALL.map(status_word)))
        .description(Some("How far it is."))
        .build()
}

/// A prediction as Replicate's clients read it, with its cost besides.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = replicate::Prediction)]
pub struct Prediction<'a> {
    /// By which it is asked for.
    #[schema(value_type = uuid::Uuid)]
    id: PredictionId,
    /// With its owner.
    model: String,
    /// Of the model.
    version: &'a str,
    /// As it came; of an inline picture the start.
    input: &'a Value,
    /// Remarks, seeds and progress, in lines.
    logs: &'a str,
    /// Where the pictures can be read, in order.
    output: Option<Vec<String>>,
    /// Whether pictures and logs have been deleted.
    data_removed: bool,
    /// Why it failed.
    error: Option<&'a str>,
    /// Always `api`.
    source: &'static str,
    #[schema(schema_with = statuses)]
    status: &'static str,
    /// When it was accepted.
    created_at: Moment,
    /// When it was first taken by a worker.
    started_at: Option<Moment>,
    /// When it ended.
    completed_at: Option<Moment>,
    /// When it is canceled, if it has not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Moment>,
    /// What it took.
    metrics: Metrics,
    /// Where to look at it.
    urls: Urls,
}

/// Empty until the prediction has ended.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = replicate::Metrics)]
struct Metrics {
    /// On the device; what is paid for.
    #[serde(skip_serializing_if = "Option::is_none")]
    predict_time: Option<Seconds>,
    /// From creation to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_time: Option<Seconds>,
    /// What it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<Dollars>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = replicate::Urls)]
struct Urls {
    /// Itself.
    get: String,
    /// To `POST` to.
    cancel: String,
    /// Clients insist on a page for people; the prediction's own URL is the nearest there is.
    web: String,
}

impl<'a> Prediction<'a> {
    /// The document of a prediction. The model lends its full name; the catalog may have lost it since. `output` are the
    /// URLs of the images, `https:` or `data:`, because clients do not take any others for files.
    pub fn new(
        prediction: &'a domain::Prediction,
        model: Option<&domain::Model>,
        output: Option<Vec<String>>,
        face: &FaceUrl,
    ) -> Self {
        let url = prediction_url(face, prediction.id);
        let total_time =
            prediction.completed_at.map(|ended| (ended - prediction.created_at).to_std().unwrap_or_default());
        Self {
            id: prediction.id,
            model: model.map_or_else(|| prediction.model.clone(), domain::Model::full_name),
            version: &prediction.version,
            input: &prediction.raw_input,
            logs: &prediction.logs,
            output,
            data_removed: prediction.data_removed,
            error: prediction.failure.as_ref().map(|failure| failure.message.as_str()),
            source: "api",
            status: status_word(prediction.status),
            created_at: Moment(prediction.created_at),
            started_at: prediction.started_at.map(Moment),
            completed_at: prediction.completed_at.map(Moment),
            deadline: prediction.deadline.map(Moment),
            metrics: Metrics {
                predict_time: prediction.device_time.map(Seconds),
                total_time: total_time.map(Seconds),
                cost: prediction.cost.map(Dollars),
            },
            urls: Urls { cancel: format!("{url}/cancel"), web: url.clone(), get: url },
        }
    }

    /// The same for a client whose wait ran out. Clients take every status but `starting` for final, also `processing`,
    /// and would hand out an output that is not there yet.
    pub fn not_yet(self) -> Self {
        Self { status: status_word(Status::Queued), output: None, started_at: None, ..self }
    }
}

/// Where a prediction is.
pub fn prediction_url(face: &FaceUrl, id: PredictionId) -> String {
    format!("{face}/predictions/{id}")
}

/// A file inside its own URL.
pub fn data_uri(content_type: &str, bytes: &[u8]) -> String {
    format!("data:{content_type};base64,{}", BASE64_STANDARD.encode(bytes))
}

/// Some of a list, and where the rest is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = replicate::Page)]
pub struct Page<T> {
    /// The absolute URL of what follows.
    pub next: Option<String>,
    /// Pages are turned forwards only.
    pub previous: Option<String>,
    /// In order.
    pub results: Vec<T>,
}

impl<T> Page<T> {
    /// A page without one before it.
    pub fn new(results: Vec<T>, next: Option<String>) -> Self {
        Self { next, previous: None, results }
    }
}

/// Why a request was refused, as Replicate says it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = replicate::Problem)]
pub struct Problem {
    /// The status in words.
    title: String,
    /// For people.
    detail: String,
    /// The HTTP status.
    status: u16,
    /// What was wrong where, if it was the request's content.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    invalid_fields: Vec<ProblemField>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = replicate::ProblemField)]
struct ProblemField {
    /// In a word.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Its path in the body.
    field: String,
    /// What was wrong with it.
    description: String,
}

impl Problem {
    /// The problem a refusal is.
    pub fn new(refusal: Refusal) -> Self {
        let Refusal { code, detail, invalid_fields } = refusal;
        let status = code.status();
        let (title, detail) = match code {
            RefusalCode::Unauthorized => {
                ("Unauthenticated", "You did not pass a valid authentication token".to_owned())
            }
            RefusalCode::NotFound | RefusalCode::FileNotFound | RefusalCode::UnknownUrl => {
                ("Not Found", "The requested resource could not be found.".to_owned())
            }
            RefusalCode::UnknownVersion => (
                "Invalid version or not permitted",
                "The specified version does not exist (or perhaps you don't have permission to use it?)".to_owned(),
            ),
            RefusalCode::PaymentRequired => ("Insufficient credit", detail),
            // The beginning of the sentence is the vendor's.
            RefusalCode::TooManyRequests | RefusalCode::TooManyHeld | RefusalCode::TooManyInFlight => {
                ("Too Many Requests", format!("Request was throttled. {}.", sentence(&detail)))
            }
            RefusalCode::InvalidRequest => ("Input validation failed", lines(&invalid_fields)),
            RefusalCode::MalformedBody
            | RefusalCode::BodyCutShort
            | RefusalCode::BodyTooSlow
            | RefusalCode::BodyTooLarge
            | RefusalCode::UnsupportedMediaType
            | RefusalCode::UnknownModel
            | RefusalCode::IdempotencyKeyReused
            | RefusalCode::Conflict
            | RefusalCode::Forbidden
            | RefusalCode::InvalidSignature
            | RefusalCode::LinkExpired
            | RefusalCode::Overloaded
            | RefusalCode::Unavailable
            | RefusalCode::WebhookNotFound
            | RefusalCode::MethodNotAllowed
            | RefusalCode::RangeNotSatisfiable
            | RefusalCode::StorageFull
            | RefusalCode::BeingStored
            | RefusalCode::NotImplemented
            | RefusalCode::Failed(_)
            | RefusalCode::Canceled
            | RefusalCode::NotInTime
            | RefusalCode::Internal => (status.canonical_reason().unwrap_or("Error"), detail),
        };
        // Only what is wrong inside the body or the query has a field; a missing key has none.
        let named = if code == RefusalCode::InvalidRequest { invalid_fields } else { Vec::new() };
        let field =
            |InvalidField { field, reason }| ProblemField { kind: create::kind(&reason), field, description: reason };
        let invalid_fields = named.into_iter().map(field).collect();
        Self { title: title.to_owned(), detail, status: status.as_u16(), invalid_fields }
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn lines(fields: &[InvalidField]) -> String {
    fields.iter().map(|InvalidField { field, reason }| format!("- {field}: {reason}\n")).collect()
}
