//! `GET /usage`: what the caller's account used and what it cost.

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{
        HeaderValue,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, VARY},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use chrono::{Datelike, NaiveDate, Utc};

use super::{Api, Error, caller::Auditor, query::Parameters};
use crate::{
    domain::{InvalidInput, UsageGroup, UsageQuery},
    wire::usage::{Report, csv},
};

/// `GET /usage?from&to&group_by&format`
#[utoipa::path(
    get,
    path = "/usage",
    summary = "Get what was used and what it cost",
    tag = "Usage",
    params(
        ("from" = Option<chrono::NaiveDate>, Query, description = "The first day (UTC); that of this month if left out."),
        ("to" = Option<chrono::NaiveDate>, Query, description = "The last day; today if left out."),
        ("group_by" = Option<String>, Query, description = "`day`, `key` or `model`."),
        ("format" = Option<String>, Query, description = "`json` or `csv`."),
    ),
    responses(
        (status = 200, description = "What was used and what it cost.", content((Report = "application/json"), (String = "text/csv"))),
    ),
    security(("key" = ["usage:read"])),
)]
pub(super) async fn get(State(api): State<Api>, Auditor(caller): Auditor, wanted: Wanted) -> Result<Response, Error> {
    let usage = api.service.usage(caller, &wanted.query).await?;
    let headers = [
        (CACHE_CONTROL, HeaderValue::from_static("private, no-store")),
        (VARY, HeaderValue::from_static("Accept, Authorization")),
    ];
    Ok(match wanted.as_csv {
        true => (headers, [(CONTENT_TYPE, "text/csv; charset=utf-8")], csv(&wanted.query, &usage)).into_response(),
        false => (headers, Json(Report::new(&wanted.query, &usage))).into_response(),
    })
}

/// What is asked for: this month by day, unless the query says otherwise.
pub(super) struct Wanted {
    query: UsageQuery,
    as_csv: bool,
}

impl FromRequestParts<Api> for Wanted {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        let parameters = Parameters::read(parts, &["from", "to", "group_by", "format"])?;
        let day = |name| {
            let Some(day) = parameters.get(name) else { return Ok(None) };
            // Years of fewer and of more digits are read as well, and the database has not all of them.
            let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok().filter(|day| (1..=9999).contains(&day.year()));
            day.map(Some).ok_or_else(|| InvalidInput::one(name, "must be a day like 2026-01-31"))
        };
        let to = day("to")?.unwrap_or_else(|| Utc::now().date_naive());
        let from = day("from")?.unwrap_or_else(|| to.with_day(1).unwrap_or(to));
        if from > to {
            return Err(InvalidInput::one("from", "must not be after to").into());
        }
        let group_by = match parameters.get("group_by") {
            None => UsageGroup::Day,
            Some(word) => word.parse().map_err(|_| InvalidInput::one("group_by", "must be day, key or model"))?,
        };
        let accept = parts.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let as_csv = match parameters.get("format") {
            None => accept.split(',').any(|offer| offer.split(';').next().unwrap_or_default().trim() == "text/csv"),
            Some("csv") => true,
            Some("json") => false,
            Some(_) => return Err(InvalidInput::one("format", "must be json or csv").into()),
        };
        Ok(Self { query: UsageQuery { from, to, group_by }, as_csv })
    }
}
