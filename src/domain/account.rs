//! Accounts and keys as their operator sees and makes them.

use chrono::{DateTime, Utc};

use super::{NanoUsd, Period, Scopes, words::words};

/// What an account may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountMode {
    /// Is charged and never refused.
    Unlimited,
    /// Spends what was credited to it.
    Prepaid,
}

words! {
    /// The word in the database, on the command line and in answers.
    AccountMode { Unlimited = "unlimited", Prepaid = "prepaid" }
}

/// What a key may spend, and how long that has to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// All of it.
    pub amount: NanoUsd,
    /// How long.
    pub period: Period,
}

/// A key about to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The account it is for, which is made if it is new.
    pub account: String,
    /// What the key is for.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// What it may spend; all its account has, without one.
    pub budget: Option<Budget>,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key as its operator sees it in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// Account it belongs to.
    pub account: String,
    /// Given by its owner.
    pub name: String,
    /// Public part.
    pub lookup: String,
    /// What it may do.
    pub scopes: Scopes,
    /// What it may spend.
    pub budget: Option<Budget>,
    /// What it has spent of its budget in this period.
    pub spent: NanoUsd,
    /// What of its budget is held for predictions that have not ended.
    pub held: NanoUsd,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops to work by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// An account as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    /// What it is called.
    pub name: String,
    /// What it may spend.
    pub mode: AccountMode,
    /// What was credited to it, less what that has paid.
    pub balance: NanoUsd,
    /// What of its balance is held for predictions that have not ended.
    pub held: NanoUsd,
    /// How many predictions it may have queued and running.
    pub max_in_flight: Option<u32>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}
