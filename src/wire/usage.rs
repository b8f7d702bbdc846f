//! Usage as JSON and as CSV.

use chrono::NaiveDate;
use serde::Serialize;
use utoipa::ToSchema;

use super::exact::{Dollars, Seconds};
use crate::domain::{self, UsageQuery};

/// The answer to a question for usage.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = usage::Report)]
pub struct Report<'a> {
    /// The first day.
    from: NaiveDate,
    /// The last day.
    to: NaiveDate,
    /// `day`, `key` or `model`.
    group_by: &'static str,
    /// One for each group.
    results: Vec<Line<'a>>,
    /// All of them.
    total: Figures,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = usage::Line)]
struct Line<'a> {
    /// The day, the key or the model.
    group: &'a str,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = usage::Figures)]
struct Figures {
    /// Predictions that did.
    succeeded: u64,
    /// Predictions that did.
    failed: u64,
    /// Predictions that were.
    canceled: u64,
    /// On the device.
    predict_time: Seconds,
    /// What was paid.
    cost: Dollars,
}

impl Figures {
    fn of<'a>(usage: impl Iterator<Item = &'a domain::Usage> + Clone) -> Self {
        let sum = |of: fn(&domain::Usage) -> u64| usage.clone().map(of).sum();
        Self {
            succeeded: sum(|usage| usage.succeeded),
            failed: sum(|usage| usage.failed),
            canceled: sum(|usage| usage.canceled),
            predict_time: Seconds(usage.clone().map(|usage| usage.device_time).sum()),
            cost: Dollars(usage.map(|usage| usage.cost).sum()),
        }
    }
}

impl<'a> Report<'a> {
    /// The document of what was found.
    pub fn new(query: &UsageQuery, usage: &'a [domain::Usage]) -> Self {
        let line = |usage: &'a domain::Usage| Line { group: &usage.group, figures: Figures::of([usage].into_iter()) };
        Self {
            from: query.from,
            to: query.to,
            group_by: query.group_by.as_str(),
            results: usage.iter().map(line).collect(),
            total: Figures::of(usage.iter()),
        }
    }
}

/// What was found as a table, RFC 4180, with a line of names and none of totals: spreadsheets add for themselves.
pub fn csv(query: &UsageQuery, usage: &[domain::Usage]) -> String {
    let mut table = format!("{},succeeded,failed,canceled,predict_time_seconds,cost_usd\r\n", query.group_by);
    for domain::Usage { group, succeeded, failed, canceled, device_time, cost } in usage {
        let seconds = format!("{}.{:06}", device_time.as_secs(), device_time.subsec_micros());
        table += &format!("{},{succeeded},{failed},{canceled},{seconds},{cost}\r\n", field(group));
    }
    table
}

/// In quotes where it has to be. A name that a spreadsheet would take for a formula is made a text.
fn field(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
    match text.contains([',', '"', '\r', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{NanoUsd, Usage, UsageGroup};

    fn query() -> UsageQuery {
        let day = |day| NaiveDate::from_ymd_opt(2026, 1, day).expect("a day");
        UsageQuery { from: day(1), to: day(31), group_by: UsageGroup::Key }
    }

    fn usage(group: &str, cost: i64) -> Usage {
        let device_time = Duration::from_micros(1_500_001);
        Usage { group: group.to_owned(), succeeded: 1, failed: 2, canceled: 3, device_time, cost: NanoUsd::new(cost) }
    }

    #[test]
    fn totals_are_exact_sums() {
        let report = serde_json::to_string(&Report::new(&query(), &[usage("a", 100_000_001), usage("b", 200_000_002)]));
        let report = report.expect("serializable");
        assert!(
            report.contains(
                r#""total":{"succeeded":2,"failed":4,"canceled":6,"predict_time":3.000002,"cost":0.300000003}"#
            )
        );
    }

    #[test]
    fn a_table_survives_the_names_people_give() {
        let table = csv(&query(), &[usage("fs_1 a, \"b\"", 1), usage("=1+1", 0)]);
        let lines: Vec<&str> = table.split("\r\n").collect();
        assert_eq!(lines[0], "key,succeeded,failed,canceled,predict_time_seconds,cost_usd");
        assert_eq!(lines[1], "\"fs_1 a, \"\"b\"\"\",1,2,3,1.500001,0.000000001");
        assert_eq!(lines[2], "'=1+1,1,2,3,1.500001,0.00");
    }
}
