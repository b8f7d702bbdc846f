//! What was told to a prediction's webhook, and the secret that signs it.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::exact::{Moment, Seconds};
use crate::domain::{DeliveryState, MadeAttempt, PredictionId, SigningSecret, WebhookDelivery, WebhookLog};

/// A webhook and everything told to its receiver.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Webhook)]
pub struct Webhook<'a> {
    /// Whose end is told.
    #[schema(value_type = uuid::Uuid)]
    prediction_id: PredictionId,
    /// Where it is told.
    url: &'a str,
    /// When it was asked for.
    created_at: Moment,
    /// What is told.
    deliveries: Vec<Delivery<'a>>,
}

/// Something told, or to be told: its id is the `webhook-id` of every attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Delivery)]
struct Delivery<'a> {
    /// The message's, as the receiver sees it.
    id: Uuid,
    /// Of what is told.
    event: &'static str,
    /// Whether it was received.
    state: &'static str,
    /// When there was something to tell.
    created_at: Moment,
    /// When it is tried again.
    next_attempt_at: Option<Moment>,
    /// The latest last.
    attempts: Vec<Attempt<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = native::Attempt)]
struct Attempt<'a> {
    /// When.
    made_at: Moment,
    /// How long it took.
    seconds: Seconds,
    /// Whether it was received.
    succeeded: bool,
    /// The receiver's.
    status_code: Option<u16>,
    /// The start of what it answered.
    response: Option<&'a str>,
    /// Why there was no answer.
    error: Option<&'a str>,
}

impl<'a> Webhook<'a> {
    /// The document of a webhook.
    pub fn new(log: &'a WebhookLog) -> Self {
        Self {
            prediction_id: log.prediction_id,
            url: &log.url,
            created_at: Moment(log.created_at),
            deliveries: log.deliveries.iter().map(Delivery::new).collect(),
        }
    }
}

impl<'a> Delivery<'a> {
    fn new(delivery: &'a WebhookDelivery) -> Self {
        Self {
            id: delivery.id,
            event: delivery.event.as_str(),
            state: delivery.state.as_str(),
            created_at: Moment(delivery.created_at),
            next_attempt_at: (delivery.state == DeliveryState::Pending).then_some(Moment(delivery.due_at)),
            attempts: delivery.attempts.iter().map(Attempt::new).collect(),
        }
    }
}

impl<'a> Attempt<'a> {
    fn new(made: &'a MadeAttempt) -> Self {
        Self {
            made_at: Moment(made.made_at),
            seconds: Seconds(made.took),
            succeeded: made.succeeded,
            status_code: made.status_code,
            response: made.response.as_deref(),
            error: made.error.as_deref(),
        }
    }
}

/// The secret that signs an account's webhooks.
#[derive(Serialize, ToSchema)]
#[schema(as = native::Secret)]
pub struct Secret {
    /// `whsec_` and the secret in base64.
    key: String,
}

impl Secret {
    /// As its owner is shown it. Replicate's clients read it in the same form.
    pub fn new(secret: &SigningSecret) -> Self {
        Self { key: secret.expose() }
    }
}
