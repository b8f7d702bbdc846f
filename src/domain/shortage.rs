//! Why a prediction may not be created: what its account or its key has too little of.

use chrono::{DateTime, Utc};

use super::{NanoUsd, words::words};

/// What is missing, in words that its owner may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The account's balance, less what its unfinished predictions may cost.
    #[error(
        "the account's balance is too low: this prediction may cost ${needed}, and ${available} is left (${held} is held \
         for predictions that have not ended)"
    )]
    Balance {
        /// The most the prediction can cost.
        needed: NanoUsd,
        /// What may still be held.
        available: NanoUsd,
        /// What is held already.
        held: NanoUsd,
    },
    /// The key's budget of the day or the month.
    #[error(
        "the budget of this API key is used up: this prediction may cost ${needed}, and ${available} of ${budget} a \
         {period} is left until {resets:?}"
    )]
    Budget {
        /// The most the prediction can cost.
        needed: NanoUsd,
        /// What is neither spent nor held.
        available: NanoUsd,
        /// All of it.
        budget: NanoUsd,
        /// How long it has to last.
        period: Period,
        /// When the next period begins.
        resets: DateTime<Utc>,
    },
    /// Places for predictions that are queued or running.
    #[error("the account has {most} predictions in flight, as many as it may have; wait until one ends")]
    InFlight {
        /// As many as there may be.
        most: u32,
    },
}

/// How long a budget lasts; periods begin at midnight, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// A day.
    Day,
    /// A calendar month.
    Month,
}

words! {
    /// The word in the database, on the command line and for people.
    Period { Day = "day", Month = "month" }
}
