//! What a prediction is: pure values and their laws.
//!
//! Nothing here does I/O, waits, or knows a database, a socket or a tensor. Every other module speaks in these
//! types; they are built from untrusted data only through `parse` functions that say what is wrong with it.

mod account;
mod api_key;
mod cost;
mod fields;
mod input;
mod model;
mod prediction;
mod progress;
mod raw_input;
mod retry;
mod run_times;
mod scope;
mod shortage;
mod start_image;
mod upload;
mod usage;
mod webhook;
mod webhook_log;
mod words;
mod work;

pub use account::{AccountMode, AccountRecord, Budget, KeyRecord, NewKey};
pub use api_key::{ApiKey, Caller, MalformedKey};
pub use cost::{NanoUsd, PricePerSecond, split};
pub use input::{FaceDefaults, Input, InvalidField, InvalidInput, OutputFormat, Scheduler, UnknownFields};
pub use model::{Catalog, CatalogError, InputLimits, Model, WeightFile};
pub use prediction::{
    Artifact, Dialect, Failure, FailureCode, Idempotency, NewPrediction, Outcome, Prediction, PredictionId, QueuePlace,
    Safety, Status,
};
pub use progress::Progress;
pub use raw_input::check_raw_input;
pub use retry::{chance, retry_after};
pub use run_times::{median, queue_wait};
pub use scope::{CHECKER_KEPT, Scope, Scopes};
pub use shortage::{Period, Shortage};
pub use start_image::{ImageSource, size_from_image};
pub use upload::{Checksums, NewFile, NewUpload, OwnFile, Upload, UploadId};
pub use usage::{Usage, UsageGroup, UsageQuery};
pub use webhook::{NewWebhook, SigningSecret, Webhook, WebhookEvent, WebhookRequest, WebhookSecret, parse_events};
pub use webhook_log::{DeliveryState, MadeAttempt, WebhookDelivery, WebhookLog};
pub use words::UnknownWord;
