//! Eachlabs' face: its JSON, as its clients read it.
//!
//! Four vocabularies for the same statuses, as the vendor has them: a prediction, a finished run and an execution each
//! say it in their own words, and creating says `success` before anything has run.

mod answer;
pub mod body;
mod create;
mod execution;
mod model;
mod refused;
mod upload;
mod webhook;

use serde::Serialize;
use serde_json::Value;
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, schema::Type},
};

use super::{
    BaseUrl, FaceUrl,
    exact::{Dollars, Seconds},
};
use crate::domain::{
    self, Artifact, CHECKER_KEPT, FaceDefaults, Failure, FailureCode, NanoUsd, PredictionId, Status, UnknownFields,
};

pub use answer::{Canceled, Created, Finished, TimedOut};
pub use create::CreatePrediction;
pub use execution::{Execution, Executions, parse_classifications, parse_status};
pub use model::Model;
pub use refused::Refused;
pub use upload::{Presign, Presigned};
pub use webhook::{Told, Webhook, Webhooks};

/// What Eachlabs fills in, by the page of the hosted model.
pub const DEFAULTS: FaceDefaults = FaceDefaults {
    prompt: "A superhero smiling",
    negative_prompt: "worst quality, low quality",
    disable_safety_checker: true,
    has_seed_minus_one: true,
    unknown_fields: UnknownFields::Note,
};

/// The word for a prediction's status. The documentation has `starting` and `failed` as well; the vendor's server says
/// neither.
pub const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Queued => "created",
        Status::Processing => "processing",
        Status::Succeeded => "success",
        Status::Failed => "error",
        Status::Canceled => "cancelled",
    }
}

fn statuses() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(Status::ALL.map(status_word)))
        .description(Some("How far it is."))
        .build()
}

/// A prediction as Eachlabs' clients read it. Its error, if it has one, is its output.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Prediction)]
pub struct Prediction<'a> {
    /// By which it is asked for.
    #[schema(value_type = uuid::Uuid)]
    id: PredictionId,
    /// Its slug.
    model: &'a str,
    /// As it came; of an inline picture the start.
    input: &'a Value,
    #[schema(schema_with = statuses)]
    status: &'static str,
    /// The pictures' URLs, in order, or why there are none.
    output: Option<Output<'a>>,
    /// The reason of a failure, which is what the vendor's own samples print; else whether the safety checker stayed on.
    logs: Option<&'a str>,
    /// What it took.
    metrics: Metrics,
    /// Where to look at it.
    urls: Urls,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = eachlabs::Output)]
enum Output<'a> {
    Images(Vec<String>),
    Error(ErrorEnvelope<'a>),
}

/// Both zero until the prediction has ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Metrics)]
struct Metrics {
    /// On the device; what is paid for.
    predict_time: Seconds,
    /// What it cost.
    cost: Dollars,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Urls)]
struct Urls {
    /// To `POST` to.
    cancel: String,
    /// Itself.
    get: String,
}

impl<'a> Prediction<'a> {
    /// The document of a prediction.
    pub fn new(prediction: &'a domain::Prediction, face: &FaceUrl) -> Self {
        let url = format!("{face}/prediction/{}", prediction.id);
        let failure = prediction.failure.as_ref();
        let output = match (prediction.status, failure) {
            (Status::Failed, Some(failure)) => Some(Output::Error(ErrorEnvelope::new(prediction, failure))),
            _ => prediction.output.as_deref().map(|files| Output::Images(urls(files, &face.server))),
        };
        Self {
            id: prediction.id,
            model: &prediction.model,
            input: &prediction.raw_input,
            status: status_word(prediction.status),
            output,
            logs: failure.map_or_else(
                || prediction.logs.lines().find(|line| *line == CHECKER_KEPT),
                |failure| Some(failure.message.as_str()),
            ),
            metrics: Metrics {
                predict_time: Seconds(prediction.device_time.unwrap_or_default()),
                cost: Dollars(prediction.cost.unwrap_or(NanoUsd::ZERO)),
            },
            urls: Urls { cancel: format!("{url}/cancel"), get: url },
        }
    }
}

/// Where images can be read.
fn urls(files: &[Artifact], server: &BaseUrl) -> Vec<String> {
    files.iter().map(|file| server.file(&file.key)).collect()
}

/// What stands in the place of a failed prediction's output.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::ErrorEnvelope)]
struct ErrorEnvelope<'a> {
    /// What kind of failure it is.
    classification: Classification,
    /// In a word.
    error: &'static str,
    /// For programs.
    error_code: &'static str,
    /// For people.
    error_message: &'a str,
    /// Where it failed.
    error_step: &'static str,
    /// The prediction's id.
    #[schema(value_type = uuid::Uuid)]
    execution_id: PredictionId,
    /// Its slug.
    model_id: &'a str,
    /// Its slug.
    model_slug: &'a str,
    /// Always `fourstep`.
    provider: &'static str,
    /// Whether another try may end better.
    retryable: bool,
    /// Always `ERROR`.
    status: &'static str,
    /// Always false.
    success: bool,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Classification)]
struct Classification {
    /// In a word.
    category: &'static str,
}

impl<'a> ErrorEnvelope<'a> {
    fn new(prediction: &'a domain::Prediction, failure: &'a Failure) -> Self {
        // The vendor's categories and codes; whoever runs the model is its provider.
        let (category, error_code, retryable) = match failure.code {
            FailureCode::InvalidInput => ("VALIDATION", "INPUT_VALIDATION_ERROR", false),
            FailureCode::ContentModeration => ("PROVIDER", "PROVIDER_FAILED", false),
            FailureCode::OutOfMemory => ("PROVIDER", "PROVIDER_FAILED", false),
            FailureCode::WorkerLost => ("PROVIDER", "PROVIDER_SERVER_ERROR", true),
            FailureCode::DeadlineExceeded | FailureCode::TimeLimit => ("TIMEOUT", "EXECUTION_TIMEOUT", true),
            FailureCode::Internal => ("INTERNAL", "PROVIDER_SERVER_ERROR", true),
        };
        Self {
            classification: Classification { category },
            error: "Execution failed",
            error_code,
            error_message: &failure.message,
            error_step: "execution",
            execution_id: prediction.id,
            model_id: &prediction.version,
            model_slug: &prediction.model,
            provider: "fourstep",
            retryable,
            status: "ERROR",
            success: false,
        }
    }
}
