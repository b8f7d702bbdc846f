//! What bodies may say, for documentation: they are read field by field, and tests hold these to what is read.

use chrono::{DateTime, Utc};
use utoipa::ToSchema;

/// A key to be made.
#[derive(ToSchema)]
#[schema(as = admin::NewKey)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct NewKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// Whose; `default` if left out.
    #[schema(min_length = 1, max_length = 200)]
    account: Option<String>,
    /// What it may do.
    scopes: Option<Vec<String>>,
    /// Dollars it may spend in a period, in a text.
    budget: Option<String>,
    /// `day` or `month`.
    budget_period: Option<String>,
    /// When it stops working.
    expires_at: Option<DateTime<Utc>>,
}

/// How to change a key's secret.
#[derive(ToSchema)]
#[schema(as = admin::Rotation)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct Rotation {
    /// How long the secret before still opens; a day if left out.
    #[schema(minimum = 0, maximum = 7_776_000)]
    overlap_seconds: Option<u64>,
}

/// What a key may spend.
#[derive(ToSchema)]
#[schema(as = admin::SetBudget)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct KeyBudget {
    /// Dollars in a period, in a text; null for any number.
    #[schema(required)]
    budget: Option<String>,
    /// `day` or `month`.
    budget_period: Option<String>,
}

/// An account to be made.
#[derive(ToSchema)]
#[schema(as = admin::NewAccount)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct NewAccount {
    /// What it is called.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// `unlimited` or `prepaid`.
    mode: Option<String>,
    /// Predictions it may have in flight; null for any number.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_in_flight: Option<u32>,
}

/// What to change about an account.
#[derive(ToSchema)]
#[schema(as = admin::AccountChange)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct AccountChange {
    /// `unlimited` or `prepaid`.
    mode: Option<String>,
    /// Predictions it may have in flight; null for any number.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_in_flight: Option<u32>,
}

/// Money for an account.
#[derive(ToSchema)]
#[schema(as = admin::Credit)]
#[expect(dead_code, reason = "it is read field by field")]
pub struct Credit {
    /// Dollars in a text, not zero.
    amount: String,
    /// Why.
    #[schema(min_length = 1, max_length = 200)]
    note: Option<String>,
}
