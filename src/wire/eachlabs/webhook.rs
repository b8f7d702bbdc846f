//! Webhooks as Eachlabs has them: what a receiver is told, and the log of it.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{super::exact::Moment, BaseUrl, urls};
use crate::domain::{DeliveryState, Prediction, PredictionId, Status, WebhookLog};

/// What a receiver is told when a prediction has ended, in words of its own: not those of the prediction when it is read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Told)]
pub struct Told {
    /// The prediction's id.
    #[schema(value_type = uuid::Uuid)]
    exec_id: PredictionId,
    /// No prediction belongs to a workflow.
    flow_id: Option<String>,
    /// How it ended.
    status: &'static str,
    /// The pictures' URLs, or why there are none.
    output: Output,
    /// Empty, also for a failure: its reason is in the output.
    error: &'static str,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = eachlabs::ToldOutput)]
enum Output {
    Images(Vec<String>),
    Failure([Failed; 1]),
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Failed)]
struct Failed {
    /// Always empty.
    id: &'static str,
    /// Always empty.
    status: &'static str,
    /// Always empty.
    output: &'static str,
    /// Why.
    error: String,
}

impl Told {
    /// What is told of a prediction that has ended.
    pub fn new(prediction: &Prediction, server: &BaseUrl) -> Self {
        let failure = prediction.failure.as_ref();
        let (status, output) = match (prediction.status, failure) {
            (Status::Failed, Some(failure)) => {
                let error = format!("Error: {}", failure.message);
                ("failed", Output::Failure([Failed { id: "", status: "", output: "", error }]))
            }
            _ => ("succeeded", Output::Images(urls(prediction.output.as_deref().unwrap_or_default(), server))),
        };
        Self { exec_id: prediction.id, flow_id: None, status, output, error: "" }
    }
}

/// Some of the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Webhooks)]
pub struct Webhooks<'a> {
    /// Newest first.
    pub webhooks: Vec<Webhook<'a>>,
    /// How many there are at most in an answer.
    pub limit: u32,
    /// How many were left out from the start.
    pub offset: u32,
}

/// A webhook in the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Webhook)]
pub struct Webhook<'a> {
    /// The prediction's id.
    #[schema(value_type = uuid::Uuid)]
    execution_id: PredictionId,
    /// Where it is told.
    url: &'a str,
    /// What was sent, or will be.
    request: String,
    /// Sent along.
    headers: BTreeMap<&'static str, &'static str>,
    /// Always `prediction`.
    source: &'static str,
    /// When there was something to tell.
    created_at: Moment,
    /// The latest last; only where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<Attempt<'a>>>,
}

/// How an attempt went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = eachlabs::Attempt)]
struct Attempt<'a> {
    /// Whether it was received.
    status: &'static str,
    /// The receiver's.
    status_code: Option<u16>,
    /// The start of what it answered.
    response: Option<&'a str>,
    /// Why there was no answer.
    error_message: Option<&'a str>,
    /// When.
    created_at: Moment,
}

impl<'a> Webhook<'a> {
    /// An entry of the log; `request` is the body that is sent.
    pub fn new(log: &'a WebhookLog, request: String) -> Self {
        let mut headers = BTreeMap::from([("Content-Type", "application/json")]);
        if log.has_secret {
            // That it is sent, and not what it is: whoever may read the log need not know it.
            headers.insert("X-Webhook-Secret", "***");
        }
        Self {
            execution_id: log.prediction_id,
            url: &log.url,
            request,
            headers,
            source: "prediction",
            created_at: Moment(log.created_at),
            attempts: None,
        }
    }

    /// The same with every attempt made, and the one that is to come.
    pub fn with_attempts(self, log: &'a WebhookLog) -> Self {
        let mut attempts = Vec::new();
        for delivery in &log.deliveries {
            attempts.extend(delivery.attempts.iter().map(|made| Attempt {
                status: if made.succeeded { "SUCCESS" } else { "FAILED" },
                status_code: made.status_code,
                response: made.response.as_deref(),
                error_message: made.error.as_deref(),
                created_at: Moment(made.made_at),
            }));
            if delivery.state == DeliveryState::Pending {
                let created_at = Moment(delivery.due_at);
                attempts.push(Attempt {
                    status: "PENDING",
                    status_code: None,
                    response: None,
                    error_message: None,
                    created_at,
                });
            }
        }
        Self { attempts: Some(attempts), ..self }
    }
}
