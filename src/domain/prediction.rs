//! The prediction: one request to run a model, from its creation to the state it ends in.
//!
//! ```text
//!            claim                finish
//!   queued ─────────▶ processing ─────────▶ succeeded | failed | canceled
//!     │  ▲                │
//!     │  └────────────────┘  the worker was lost, or handed it back
//!     └──▶ canceled          asked for, or its deadline passed, before it was claimed
//! ```
//!
//! The three on the right are terminal: no statement of the program changes a row that is in one of them.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Input, NanoUsd, NewWebhook, PricePerSecond, words::words};

/// The public id of a prediction, one string on every face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PredictionId(Uuid);

impl PredictionId {
    /// A new id: time-ordered, so that new rows stay together in the index, with 74 random bits.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id as the database keeps it.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for PredictionId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for PredictionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for PredictionId {
    type Err = uuid::Error;

    /// Only the hyphenated form is an id: one prediction has one URL.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hyphenated: uuid::fmt::Hyphenated = text.parse()?;
        Ok(Self(hyphenated.into_uuid()))
    }
}

/// Where a prediction is in its life. The dialects' words for these are in `wire`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waits to be claimed: new, or given back by a worker that was lost or is shutting down.
    Queued,
    /// Claimed by a worker that holds a lease on it.
    Processing,
    /// The images exist and the device time is charged.
    Succeeded,
    /// It will not be tried again; nothing is charged.
    Failed,
    /// Stopped on request or by its deadline; the device time used, if any, is charged.
    Canceled,
}

words! {
    /// The word used in the database and in logs.
    Status {
        Queued = "queued",
        Processing = "processing",
        Succeeded = "succeeded",
        Failed = "failed",
        Canceled = "canceled",
    }
}

impl Status {
    /// Whether the prediction will never change again.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

/// The language a prediction was created in. Its URLs, webhooks and charging rule follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Ours.
    Native,
    /// Replicate's.
    Replicate,
    /// Eachlabs'.
    Eachlabs,
    /// OpenAI's images API.
    OpenAi,
}

words! {
    /// The word used in the database and in logs.
    Dialect { Native = "native", Replicate = "replicate", Eachlabs = "eachlabs", OpenAi = "openai" }
}

impl Dialect {
    /// Whether a cancel costs nothing even while it runs: Eachlabs' callers are promised that only success is charged.
    pub const fn cancels_are_free(self) -> bool {
        matches!(self, Self::Eachlabs)
    }
}

/// A prediction about to be inserted: everything about it that is fixed at creation.
#[derive(Clone, Debug)]
pub struct NewPrediction {
    /// Chosen by us, or by the client of an idempotent create.
    pub id: PredictionId,
    /// Owner.
    pub account_id: i64,
    /// The key it was created with.
    pub key_id: i64,
    /// The face it was created on.
    pub dialect: Dialect,
    /// Slug of the model that runs it.
    pub model: String,
    /// Version the caller named, else the model's own.
    pub version: String,
    /// The caller's input object as it came, echoed back.
    pub raw_input: serde_json::Value,
    /// What will be run.
    pub input: Input,
    /// Remarks for the caller about the input, first lines of its logs.
    pub notes: Vec<String>,
    /// The model's price at this moment.
    pub price: PricePerSecond,
    /// How long the device may work on it if what that costs is held.
    pub time_limit: Duration,
    /// How long it may if nothing is held.
    pub longest_run: Duration,
    /// Those with a smaller number are run first; usually 0.
    pub priority: i16,
    /// When to give up if it has not finished, counted from creation.
    pub cancel_after: Option<Duration>,
    /// Makes the create repeatable.
    pub idempotency: Option<Idempotency>,
    /// Where its owner is told what becomes of it.
    pub webhook: Option<NewWebhook>,
    /// The request that creates it, by the id that its lines in the log have.
    pub request_id: Option<String>,
    /// Where its trace goes on, as `traceparent` tells it, if traces are collected.
    pub trace_parent: Option<String>,
}

impl NewPrediction {
    /// The most it can cost, which is held until it has ended.
    pub fn hold(&self) -> NanoUsd {
        self.price.cost_of(self.time_limit)
    }
}

/// A client's key for a create, and what it was used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Of the client's choice; unique within its account.
    pub key: String,
    /// SHA-256 of the request, which must be the same whenever the key is.
    pub request_hash: [u8; 32],
}

/// A prediction as stored.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// Public id.
    pub id: PredictionId,
    /// Owner.
    pub account_id: i64,
    /// The face it was created on.
    pub dialect: Dialect,
    /// Slug of the model that runs it.
    pub model: String,
    /// Version the caller named, else the model's own.
    pub version: String,
    /// The caller's input object as it came.
    pub raw_input: serde_json::Value,
    /// What is run.
    pub input: Input,
    /// Where it is in its life.
    pub status: Status,
    /// The images, once succeeded, in order.
    pub output: Option<Vec<Artifact>>,
    /// Why it failed or was canceled by other than its owner.
    pub failure: Option<Failure>,
    /// Lines for its owner: notes, progress, seeds.
    pub logs: String,
    /// How often it has been claimed. Fences writes of earlier claims.
    pub attempt: i32,
    /// Whether a cancel has been asked for.
    pub cancel_requested: bool,
    /// Time on the device of the attempt that ended it, from text encoding to decoded image.
    pub device_time: Option<Duration>,
    /// What it cost, once terminal.
    pub cost: Option<NanoUsd>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it was first claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it became terminal.
    pub completed_at: Option<DateTime<Utc>>,
    /// When it is canceled if not done.
    pub deadline: Option<DateTime<Utc>>,
    /// Its output and logs have been deleted by retention.
    pub data_removed: bool,
}

/// A stored output file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Path in the artifact store. Holds the attempt, so a late worker cannot overwrite, and a random part, so that
    /// knowing it is the permission to read it.
    pub key: String,
    /// Media type, `image/png`.
    pub content_type: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Size of the file.
    pub bytes: u64,
    /// The seed that alone draws this image.
    pub seed: u64,
    /// Whether it was looked at before it was given out. Rows of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<Safety>,
}

/// What the safety checker had to do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Safety {
    /// It looked and saw nothing; what it flags is not given out.
    Checked,
    /// The caller turned it off.
    Disabled,
    /// The model that drew has none here.
    Unavailable,
}

impl Safety {
    /// The word in responses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::Disabled => "disabled",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a prediction did not succeed: data for its owner, not an HTTP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people; never holds internals.
    pub message: String,
}

/// The kinds of failure a program may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCode {
    /// The model could not work with this input.
    InvalidInput,
    /// The safety checker flagged every image.
    ContentModeration,
    /// The device's memory was not enough.
    OutOfMemory,
    /// Every worker that took it was lost.
    WorkerLost,
    /// Its deadline passed.
    DeadlineExceeded,
    /// It took longer on the device than its model may.
    TimeLimit,
    /// Our fault; the logs of the server say more.
    Internal,
}

words! {
    /// The word used in the database, in logs and in responses.
    FailureCode {
        InvalidInput = "invalid_input",
        ContentModeration = "content_moderation",
        OutOfMemory = "out_of_memory",
        WorkerLost = "worker_lost",
        DeadlineExceeded = "deadline_exceeded",
        TimeLimit = "time_limit",
        Internal = "internal",
    }
}

/// How an attempt ended, as the worker that ran it reports.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The images are stored.
    Succeeded {
        /// In order.
        output: Vec<Artifact>,
        /// What was charged for.
        device_time: Duration,
    },
    /// It must not be tried again.
    Failed {
        /// Shown to the owner.
        failure: Failure,
        /// Used, not charged.
        device_time: Duration,
    },
    /// It stopped because a cancel was asked for or the deadline passed.
    Canceled {
        /// Used until it stopped.
        device_time: Duration,
    },
}

impl Outcome {
    /// The terminal status this outcome leads to.
    pub const fn status(&self) -> Status {
        match self {
            Self::Succeeded { .. } => Status::Succeeded,
            Self::Failed { .. } => Status::Failed,
            Self::Canceled { .. } => Status::Canceled,
        }
    }

    /// Time the device was busy with the attempt.
    pub const fn device_time(&self) -> Duration {
        match self {
            Self::Succeeded { device_time, .. }
            | Self::Failed { device_time, .. }
            | Self::Canceled { device_time, .. } => *device_time,
        }
    }

    /// What the attempt costs its owner: success costs the device time; a failure nothing; a cancel the time used, except
    /// where [cancels are free](Dialect::cancels_are_free). No more than the time `limit` is paid for.
    pub fn cost(&self, price: PricePerSecond, dialect: Dialect, limit: Duration) -> NanoUsd {
        match self {
            Self::Failed { .. } => NanoUsd::ZERO,
            Self::Canceled { .. } if dialect.cancels_are_free() => NanoUsd::ZERO,
            Self::Succeeded { device_time, .. } | Self::Canceled { device_time } => {
                price.cost_of((*device_time).min(limit))
            }
        }
    }
}

/// A queued prediction's place in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePlace {
    /// How many will be claimed before it.
    pub ahead: u64,
    /// Expected time until it is done.
    pub eta: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICE: PricePerSecond = PricePerSecond::new(1_540_000);
    const LIMIT: Duration = Duration::from_secs(60);

    #[test]
    fn every_word_reads_back_as_what_it_was_written_for() {
        assert!(Status::ALL.into_iter().all(|status| status.as_str().parse() == Ok(status)));
        assert!(Dialect::ALL.into_iter().all(|dialect| dialect.as_str().parse() == Ok(dialect)));
        assert!(FailureCode::ALL.into_iter().all(|code| code.as_str().parse() == Ok(code)));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = PredictionId::generate();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().replace('-', "").parse::<PredictionId>().is_err());
        assert!(format!("{{{id}}}").parse::<PredictionId>().is_err());
    }

    #[test]
    fn success_costs_the_device_time_and_failure_nothing() {
        let device_time = Duration::from_secs(2);
        let succeeded = Outcome::Succeeded { output: Vec::new(), device_time };
        assert_eq!(succeeded.cost(PRICE, Dialect::Native, LIMIT), NanoUsd::new(3_080_000));
        let failure = Failure { code: FailureCode::Internal, message: String::new() };
        assert_eq!(Outcome::Failed { failure, device_time }.cost(PRICE, Dialect::Native, LIMIT), NanoUsd::ZERO);
    }

    #[test]
    fn time_beyond_the_limit_is_not_paid_for() {
        let late = Outcome::Succeeded { output: Vec::new(), device_time: LIMIT * 2 };
        assert_eq!(late.cost(PRICE, Dialect::Native, LIMIT), PRICE.cost_of(LIMIT));
    }

    #[test]
    fn a_cancel_costs_the_time_used_except_on_eachlabs_face() {
        let canceled = Outcome::Canceled { device_time: Duration::from_millis(500) };
        assert_eq!(canceled.cost(PRICE, Dialect::Replicate, LIMIT), NanoUsd::new(770_000));
        assert_eq!(canceled.cost(PRICE, Dialect::Eachlabs, LIMIT), NanoUsd::ZERO);
    }
}
