//! What was told to the receivers of webhooks, and how it went.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{PredictionId, WebhookEvent, words::words};

/// A webhook and everything that was told, or is to be.
#[derive(Clone, Debug)]
pub struct WebhookLog {
    /// Of which prediction.
    pub prediction_id: PredictionId,
    /// Where it is told.
    pub url: String,
    /// Whether the request brought a secret of its own.
    pub has_secret: bool,
    /// For the URLs in what is told.
    pub server_url: String,
    /// For the URLs in what is told.
    pub mount: String,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// In the order they were posted.
    pub deliveries: Vec<WebhookDelivery>,
}

/// Something told, or to be told.
#[derive(Clone, Debug)]
pub struct WebhookDelivery {
    /// What the receiver knows it by.
    pub id: Uuid,
    /// What is told.
    pub event: WebhookEvent,
    /// Where that stands.
    pub state: DeliveryState,
    /// When it was posted.
    pub created_at: DateTime<Utc>,
    /// When it is tried next, while it is pending.
    pub due_at: DateTime<Utc>,
    /// In order.
    pub attempts: Vec<MadeAttempt>,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// It is tried, or will be.
    Pending,
    /// It was received.
    Delivered,
    /// It was given up.
    Failed,
}

words! {
    /// The word used in the database and on the native face.
    DeliveryState { Pending = "pending", Delivered = "delivered", Failed = "failed" }
}

/// An attempt that was made.
#[derive(Clone, Debug)]
pub struct MadeAttempt {
    /// When it was over.
    pub made_at: DateTime<Utc>,
    /// How long it took.
    pub took: Duration,
    /// Whether it was received.
    pub succeeded: bool,
    /// The receiver's HTTP status, if it answered.
    pub status_code: Option<u16>,
    /// The beginning of its answer.
    pub response: Option<String>,
    /// Why it did not answer.
    pub error: Option<String>,
}
