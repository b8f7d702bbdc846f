//! What was used, added up.

use std::time::Duration;

use chrono::NaiveDate;

use super::{NanoUsd, words::words};

/// By what usage is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageGroup {
    /// The day on which predictions ended, in UTC.
    Day,
    /// The key they were created with.
    Key,
    /// Their model.
    Model,
}

words! {
    /// The word on the command line and in URLs.
    UsageGroup { Day = "day", Key = "key", Model = "model" }
}

/// Which usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageQuery {
    /// From this day on.
    pub from: NaiveDate,
    /// To this day, with it.
    pub to: NaiveDate,
    /// Added up by this.
    pub group_by: UsageGroup,
}

/// The usage of one day, key or model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The day, as `2026-01-31`; the key's public part and name, as `fs_1a2b3c4d laptop`; or the model's slug.
    pub group: String,
    /// How many predictions succeeded.
    pub succeeded: u64,
    /// How many failed.
    pub failed: u64,
    /// How many were canceled.
    pub canceled: u64,
    /// The time on the device that was charged.
    pub device_time: Duration,
    /// What it cost.
    pub cost: NanoUsd,
}
