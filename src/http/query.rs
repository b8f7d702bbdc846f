//! The query of a URL: no parameter is ignored, for a misspelled filter would answer a different question.

use axum::{
    extract::{FromRequestParts, Query},
    http::request::Parts,
};

use chrono::{DateTime, Utc};

use super::{Api, Error};
use crate::{
    domain::{InvalidField, InvalidInput, Status},
    service::Cursor,
    wire::{cursor, native},
};

/// Predictions on a page unless the client says otherwise.
const DEFAULT_LIMIT: u32 = 20;
/// Predictions on a page at most.
const MAX_LIMIT: u32 = 100;

/// The parameters of a query, each known and given once.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query that may have these parameters.
    pub(super) fn read(parts: &Parts, known: &[&str]) -> Result<Self, InvalidInput> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = pairs.map_err(|error| InvalidInput::one("query", error.to_string()))?;
        let mut invalid = Vec::new();
        for (position, (name, _)) in pairs.iter().enumerate() {
            let reason = if !known.contains(&name.as_str()) {
                "is not a parameter of this URL"
            } else if pairs[..position].iter().any(|(earlier, _)| earlier == name) {
                "must be given only once"
            } else {
                continue;
            };
            invalid.push(InvalidField { field: name.clone(), reason: reason.to_owned() });
        }
        if invalid.is_empty() { Ok(Self(pairs)) } else { Err(InvalidInput { fields: invalid }) }
    }

    /// A parameter that is a time, as `2026-01-31T12:00:00Z` or with an offset.
    pub(super) fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, InvalidInput> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // A plus that was not escaped has become a space.
        let time = DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
        let malformed = |_| InvalidInput::one(name, "must be a time like 2026-01-31T12:00:00Z");
        time.map(|time| Some(time.to_utc())).map_err(malformed)
    }

    /// A parameter's value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Which predictions to list: `?status=&cursor=&limit=`.
pub(super) struct ListQuery {
    pub(super) status: Option<Status>,
    pub(super) after: Option<Cursor>,
    pub(super) limit: u32,
}

impl FromRequestParts<Api> for ListQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let parameters = Parameters::read(parts, &["status", "cursor", "limit"])?;
        let mut invalid = Vec::new();
        let mut refuse = |field: &str, reason: String| invalid.push(InvalidField { field: field.to_owned(), reason });

        let status = parameters.get("status").map(native::parse_status);
        if status == Some(None) {
            let words = Status::ALL.map(native::status_word).join(", ");
            refuse("status", format!("must be one of {words}"));
        }
        let after = parameters.get("cursor").map(cursor::parse);
        if after == Some(None) {
            refuse("cursor", "must be one that a list has returned".to_owned());
        }
        let limit = parameters.get("limit").map(|limit| limit.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n)));
        if limit == Some(None) {
            refuse("limit", format!("must be an integer between 1 and {MAX_LIMIT}"));
        }
        if !invalid.is_empty() {
            return Err(InvalidInput { fields: invalid }.into());
        }
        Ok(Self {
            status: status.flatten(),
            after: after.flatten().map(|(created_at, id)| Cursor { created_at, id }),
            limit: limit.flatten().unwrap_or(DEFAULT_LIMIT),
        })
    }
}

impl ListQuery {
    /// The query of the page that starts at this cursor.
    pub(super) fn next(&self, cursor: &str) -> String {
        let status = self.status.map(|status| format!("&status={}", native::status_word(status))).unwrap_or_default();
        format!("cursor={cursor}&limit={}{status}", self.limit)
    }
}
