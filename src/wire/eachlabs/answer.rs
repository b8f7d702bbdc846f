//! The answers to creating, running and canceling: each a word, a sentence and the prediction's id.

use serde::Serialize;
use utoipa::ToSchema;

use super::{FaceUrl, urls};
use crate::domain::{self, PredictionId, Status};

/// A prediction was created.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Created)]
pub struct Created {
    /// Always `success`.
    status: &'static str,
    /// For people.
    message: &'static str,
    /// By which it is asked for.
    #[serde(rename = "predictionID")]
    #[schema(value_type = uuid::Uuid)]
    prediction_id: PredictionId,
    /// Under the name some clients look for.
    #[schema(value_type = uuid::Uuid)]
    id: PredictionId,
}

impl Created {
    /// The answer that names the prediction.
    pub fn new(id: PredictionId) -> Self {
        Self { status: "success", message: "Prediction created successfully", prediction_id: id, id }
    }
}

/// A prediction was created and has ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Finished)]
pub struct Finished<'a> {
    /// How it ended.
    status: &'static str,
    /// For people.
    message: &'static str,
    /// By which it is asked for.
    #[serde(rename = "predictionID")]
    #[schema(value_type = uuid::Uuid)]
    prediction_id: PredictionId,
    /// The pictures' URLs, in order.
    output: Option<Vec<String>>,
    /// Empty but for a failure.
    error: &'a str,
}

impl<'a> Finished<'a> {
    /// The answer to a run, unless the prediction has not ended.
    pub fn new(prediction: &'a domain::Prediction, face: &FaceUrl) -> Option<Self> {
        let (status, message) = match prediction.status {
            Status::Queued | Status::Processing => return None,
            Status::Succeeded => ("success", "Prediction completed successfully"),
            // Not `error`, as when the prediction is read.
            Status::Failed => ("failed", "Prediction failed"),
            Status::Canceled => ("cancelled", "Prediction canceled"),
        };
        Some(Self {
            status,
            message,
            prediction_id: prediction.id,
            output: prediction.output.as_deref().map(|files| urls(files, &face.server)),
            error: prediction.failure.as_ref().map_or("", |failure| failure.message.as_str()),
        })
    }
}

/// A prediction was created and has not ended in time; it goes on, and can be read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::TimedOut)]
pub struct TimedOut {
    /// The HTTP status.
    status: u16,
    /// In a word.
    error: &'static str,
    /// For people.
    message: &'static str,
    /// Which it was.
    details: Details,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::TimedOutDetails)]
struct Details {
    /// By which it is asked for.
    #[serde(rename = "predictionID")]
    #[schema(value_type = uuid::Uuid)]
    prediction_id: PredictionId,
}

impl TimedOut {
    /// The answer that names the prediction.
    pub fn new(id: PredictionId) -> Self {
        let message = "The prediction goes on; get it by its predictionID";
        Self { status: 408, error: "Request timeout", message, details: Details { prediction_id: id } }
    }
}

/// A prediction is being canceled.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Canceled)]
pub struct Canceled {
    /// Always `cancelled`.
    status: &'static str,
    /// For people.
    message: &'static str,
    /// The prediction's id.
    #[serde(rename = "predictionID")]
    #[schema(value_type = uuid::Uuid)]
    prediction_id: PredictionId,
}

impl Canceled {
    /// The answer that names the prediction. Its two spellings of the word are the vendor's.
    pub fn new(id: PredictionId) -> Self {
        Self { status: "cancelled", message: "Prediction canceled successfully", prediction_id: id }
    }
}
