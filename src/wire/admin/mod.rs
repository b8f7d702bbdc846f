//! Keys and accounts as their operator reads and writes them.

pub mod body;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::exact::{Dollars, Moment};
use crate::domain::{
    AccountMode, AccountRecord, ApiKey, Budget, InvalidField, InvalidInput, KeyRecord, NanoUsd, NewKey, Period, Scope,
    Scopes,
};

/// How long the secret before a rotation still opens, unless the request says otherwise.
const OVERLAP_SECONDS: u64 = 24 * 60 * 60;
/// The longest overlap.
const LONGEST_OVERLAP_SECONDS: u64 = 90 * OVERLAP_SECONDS;

/// Some of a list; all of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = admin::Page)]
pub struct Page<T> {
    /// In order.
    pub results: Vec<T>,
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = admin::Key)]
pub struct Key<'a> {
    /// Its public part.
    key: String,
    /// Whose it is.
    account: &'a str,
    /// What it is for.
    name: &'a str,
    /// What it may do.
    scopes: Vec<&'static str>,
    /// What it may spend.
    budget: Option<KeyBudget>,
    /// When it was made.
    created_at: Moment,
    /// When it stops working.
    expires_at: Option<Moment>,
    /// When it was revoked.
    revoked_at: Option<Moment>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = admin::KeyBudget)]
struct KeyBudget {
    /// In a period.
    amount: Dollars,
    /// `day` or `month`.
    period: &'static str,
    /// In this period.
    spent: Dollars,
    /// What unfinished predictions may still cost.
    held: Dollars,
}

impl<'a> Key<'a> {
    /// The document of a key.
    pub fn new(key: &'a KeyRecord) -> Self {
        let budget = |Budget { amount, period }| KeyBudget {
            amount: Dollars(amount),
            period: Period::as_str(period),
            spent: Dollars(key.spent),
            held: Dollars(key.held),
        };
        Self {
            key: format!("fs_{}", key.lookup),
            account: &key.account,
            name: &key.name,
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            budget: key.budget.map(budget),
            created_at: Moment(key.created_at),
            expires_at: key.expires_at.map(Moment),
            revoked_at: key.revoked_at.map(Moment),
        }
    }
}

/// A new secret, shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = admin::Secret)]
pub struct Secret<'a> {
    /// Its public part.
    key: String,
    /// All of it, this once.
    secret: &'a str,
}

impl<'a> Secret<'a> {
    /// The document of a key that was just made.
    pub fn new(key: &'a ApiKey) -> Self {
        Self { key: format!("fs_{}", key.lookup()), secret: key.expose() }
    }
}

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = admin::Account)]
pub struct Account<'a> {
    /// What it is called.
    name: &'a str,
    /// `unlimited` or `prepaid`.
    mode: &'static str,
    /// What is left of its credits.
    balance: Dollars,
    /// Of the balance, what unfinished predictions may still cost.
    held: Dollars,
    /// Predictions at the same time; null for any number.
    max_in_flight: Option<u32>,
    /// When it was made.
    created_at: Moment,
}

impl<'a> Account<'a> {
    /// The document of an account.
    pub fn new(account: &'a AccountRecord) -> Self {
        Self {
            name: &account.name,
            mode: account.mode.as_str(),
            balance: Dollars(account.balance),
            held: Dollars(account.held),
            max_in_flight: account.max_in_flight,
            created_at: Moment(account.created_at),
        }
    }
}

/// Reads the body that makes a key: `name`, and perhaps `account`, `scopes`, `budget`, `budget_period`, `expires_at`.
pub fn new_key(body: Value) -> Result<NewKey, InvalidInput> {
    let mut fields = Fields::of(body)?;
    let new = NewKey {
        account: fields.text("account").unwrap_or_else(|| "default".to_owned()),
        name: fields.text("name").unwrap_or_default(),
        scopes: fields.scopes().unwrap_or(Scopes::USUAL),
        budget: fields.budget(),
        expires_at: fields.read("expires_at", "must be a time like 2026-01-31T12:00:00Z", |value| {
            DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|time| time.with_timezone(&Utc))
        }),
    };
    fields.need("name", !new.name.is_empty());
    fields.need("account", !new.account.is_empty());
    fields.end(new)
}

/// Reads the body that rotates a key: how long the secret before still opens, `overlap_seconds`.
pub fn overlap(body: Value) -> Result<Duration, InvalidInput> {
    let mut fields = Fields::of(body)?;
    let reason = format!("must be an integer between 0 and {LONGEST_OVERLAP_SECONDS}");
    let seconds = fields
        .read("overlap_seconds", &reason, |value| value.as_u64().filter(|seconds| *seconds <= LONGEST_OVERLAP_SECONDS));
    fields.end(Duration::from_secs(seconds.unwrap_or(OVERLAP_SECONDS)))
}

/// Reads the body that sets a key's budget: `budget`, which may be null for none, and perhaps `budget_period`.
pub fn budget(body: Value) -> Result<Option<Budget>, InvalidInput> {
    let mut fields = Fields::of(body)?;
    let given = fields.0.contains_key("budget");
    let budget = fields.budget();
    fields.need("budget", given);
    fields.end(budget)
}

/// An account to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// What it is called.
    pub name: String,
    /// What it may spend.
    pub mode: AccountMode,
    /// How many predictions it may have in flight.
    pub max_in_flight: Option<u32>,
}

impl NewAccount {
    /// Reads the body that makes an account: `name`, and perhaps `mode` and `max_in_flight`.
    pub fn parse(body: Value) -> Result<Self, InvalidInput> {
        let mut fields = Fields::of(body)?;
        let new = Self {
            name: fields.text("name").unwrap_or_default(),
            mode: fields.mode().unwrap_or(AccountMode::Unlimited),
            max_in_flight: fields.max_in_flight(),
        };
        fields.need("name", !new.name.is_empty());
        fields.end(new)
    }
}

/// What to change about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountChange {
    /// What it may spend.
    pub mode: Option<AccountMode>,
    /// How many predictions it may have in flight; `Some(None)` is any number.
    pub max_in_flight: Option<Option<u32>>,
}

impl AccountChange {
    /// Reads the body that changes an account: `mode`, `max_in_flight`.
    pub fn parse(body: Value) -> Result<Self, InvalidInput> {
        let mut fields = Fields::of(body)?;
        let limits = fields.0.contains_key("max_in_flight");
        let (mode, most) = (fields.mode(), fields.max_in_flight());
        fields.need("mode", mode.is_some() || limits);
        fields.end(Self { mode, max_in_flight: limits.then_some(most) })
    }
}

/// Reads the body that credits an account: `amount`, and perhaps a `note`.
pub fn credit(body: Value) -> Result<(NanoUsd, Option<String>), InvalidInput> {
    let mut fields = Fields::of(body)?;
    let (amount, note) = (fields.dollars("amount"), fields.text("note"));
    fields.need("amount", amount.is_some_and(|amount| amount != NanoUsd::ZERO));
    fields.end((amount.unwrap_or_default(), note))
}

/// The fields of a body that are not read yet, and what was wrong with those that are.
struct Fields(Map<String, Value>, Vec<InvalidField>);

impl Fields {
    fn of(body: Value) -> Result<Self, InvalidInput> {
        match body {
            Value::Object(fields) => Ok(Self(fields, Vec::new())),
            _ => Err(InvalidInput::one("body", "must be a JSON object")),
        }
    }

    fn read<T>(&mut self, name: &str, must: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.0.remove(name).filter(|value| !value.is_null())?;
        let read = read(&value);
        if read.is_none() {
            self.refuse(name, must);
        }
        read
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let must = "must be a text of 1 to 200 characters";
        self.read(name, must, |value| {
            let text = value.as_str()?.trim();
            ((1..=200).contains(&text.chars().count()) && !text.contains('\0')).then(|| text.to_owned())
        })
    }

    /// A float would not be exact.
    fn dollars(&mut self, name: &str) -> Option<NanoUsd> {
        self.read(name, "must be dollars in a text, like \"0.25\", or a whole number of them", |value| match value {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64()?.to_string().parse().ok(),
        })
    }

    fn scopes(&mut self) -> Option<Scopes> {
        let must = format!("must be a list of scopes; there are {}", Scopes::ALL);
        self.read("scopes", &must, |value| value.as_array()?.iter().map(|word| word.as_str()?.parse().ok()).collect())
    }

    fn budget(&mut self) -> Option<Budget> {
        let amount = self.dollars("budget");
        let period = self.read("budget_period", "must be day or month", |value| value.as_str()?.parse().ok());
        amount.map(|amount| Budget { amount, period: period.unwrap_or(Period::Month) })
    }

    fn mode(&mut self) -> Option<AccountMode> {
        self.read("mode", "must be unlimited or prepaid", |value| value.as_str()?.parse().ok())
    }

    fn max_in_flight(&mut self) -> Option<u32> {
        self.read("max_in_flight", "must be an integer between 1 and 1000000, or null for any number", |value| {
            value.as_u64().filter(|most| (1..=1_000_000).contains(most))?.try_into().ok()
        })
    }

    fn need(&mut self, name: &str, is_there: bool) {
        if !is_there && !self.1.iter().any(|InvalidField { field, .. }| field == name) {
            self.refuse(name, "is required");
        }
    }

    fn refuse(&mut self, name: &str, reason: &str) {
        self.1.push(InvalidField { field: name.to_owned(), reason: reason.to_owned() });
    }

    fn end<T>(mut self, read: T) -> Result<T, InvalidInput> {
        let unknown = std::mem::take(&mut self.0);
        let named = unknown.keys().take(InvalidInput::MOST_UNKNOWN);
        named.for_each(|name| self.refuse(name, "is not a field of this request"));
        if self.1.is_empty() { Ok(read) } else { Err(InvalidInput { fields: self.1 }) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_read_whole_and_everything_wrong_is_named() {
        let new = new_key(json!({"name": "ci", "scopes": ["admin"], "budget": "0.25", "budget_period": "day"}))
            .expect("valid");
        assert_eq!(new.scopes, Scopes::from_iter([Scope::Admin]));
        assert_eq!(new.budget, Some(Budget { amount: NanoUsd::new(250_000_000), period: Period::Day }));
        let refused = new_key(json!({"scopes": ["root"], "budget": 0.1, "expires": 1})).expect_err("all wrong");
        let named: Vec<&str> = refused.fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(named, ["scopes", "budget", "name", "expires"]);
    }
}
