//! Executions: the account's predictions as Eachlabs lists them, with what each cost.

use serde::Serialize;
use utoipa::ToSchema;

use super::super::{
    BaseUrl,
    exact::{Dollars, Moment, Seconds},
};
use crate::domain::{FailureCode, NanoUsd, Prediction, PredictionId, Status};

const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Queued => "created",
        // Not `processing`, as when the prediction is read.
        Status::Processing => "starting",
        Status::Succeeded => "success",
        Status::Failed => "error",
        Status::Canceled => "cancelled",
    }
}

/// The status a word of a filter means. Canceled ones cannot be asked for, as at the vendor's.
pub fn parse_status(word: &str) -> Option<Status> {
    let canceled = |status: &Status| *status == Status::Canceled;
    Status::ALL.into_iter().filter(|status| !canceled(status)).find(|status| status_word(*status) == word)
}

/// The vendor's words for why an execution failed, each with what that is here: whoever runs the model is its provider, and
/// has neither keys nor limits of its own to fail by.
const CLASSIFICATIONS: [(&str, &[FailureCode]); 10] = [
    ("content_moderation", &[FailureCode::ContentModeration]),
    ("execution_timeout", &[FailureCode::DeadlineExceeded, FailureCode::TimeLimit]),
    ("invalid_user_input", &[FailureCode::InvalidInput]),
    ("invalid_model_config", &[]),
    ("provider_auth", &[]),
    ("provider_error", &[FailureCode::OutOfMemory, FailureCode::WorkerLost]),
    ("provider_rate_limit", &[]),
    ("provider_unavailable", &[]),
    ("internal_error", &[FailureCode::Internal]),
    ("unknown", &[]),
];

/// The failures that a filter's words mean, with commas between; the error says what they must be.
pub fn parse_classifications(words: &str) -> Result<Vec<FailureCode>, String> {
    let meant = |word| CLASSIFICATIONS.into_iter().find(|(known, _)| *known == word).map(|(_, failures)| failures);
    let failures: Option<Vec<_>> = words.split(',').map(meant).collect();
    let known = || CLASSIFICATIONS.map(|(word, _)| word).join(", ");
    failures.map(|failures| failures.concat()).ok_or_else(|| format!("must be a list of {}", known()))
}

/// A prediction in the list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Execution)]
pub struct Execution<'a> {
    /// The prediction's id.
    #[schema(value_type = uuid::Uuid)]
    id: PredictionId,
    /// The slug of what ran.
    model: &'a str,
    /// Always null.
    requested_model: Option<String>,
    /// How far it is.
    status: &'static str,
    /// Always null.
    workflow_id: Option<String>,
    /// Always null.
    workflow_execution_id: Option<String>,
    /// What it cost.
    execution_cost: Dollars,
    /// On the device.
    run_time: Seconds,
    /// When it was accepted.
    created_at: Moment,
    /// When it was first taken by a worker.
    started_at: Option<Moment>,
    /// When it ended.
    completed_at: Option<Moment>,
    /// The first image.
    output: Option<String>,
}

impl<'a> Execution<'a> {
    /// The entry of a prediction.
    pub fn new(prediction: &'a Prediction, server: &BaseUrl) -> Self {
        Self {
            id: prediction.id,
            model: &prediction.model,
            requested_model: None,
            status: status_word(prediction.status),
            workflow_id: None,
            workflow_execution_id: None,
            execution_cost: Dollars(prediction.cost.unwrap_or(NanoUsd::ZERO)),
            run_time: Seconds(prediction.device_time.unwrap_or_default()),
            created_at: Moment(prediction.created_at),
            started_at: prediction.started_at.map(Moment),
            completed_at: prediction.completed_at.map(Moment),
            output: prediction.output.iter().flatten().next().map(|file| server.file(&file.key)),
        }
    }
}

/// Some of the list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Executions)]
pub struct Executions<'a> {
    /// Newest first.
    pub executions: Vec<Execution<'a>>,
    /// How many there are, as far as they were counted.
    pub total_count: u64,
    /// Whether there are more than were counted.
    pub total_capped: bool,
    /// How many were left out from the start.
    pub offset: u32,
    /// How many there are at most in an answer.
    pub limit: u32,
}
