//! `fourstep usage`: what was used and what it cost.

use anyhow::{Result, bail};
use chrono::{Datelike, NaiveDate, Utc};
use clap::Args;
use fourstep::{
    domain::{NanoUsd, UsageGroup, UsageQuery},
    wire,
};

use super::{accounts::account_id, database::with_store, options::Place, terminal};

#[derive(Clone, Debug, Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    place: Place,
    /// First day, as 2026-01-31, in UTC [default: the first of the month]
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// Last day [default: today]
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
    /// day, key or model
    #[arg(long, value_name = "WORD", default_value = "day")]
    group_by: UsageGroup,
    /// Only this account's
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// As comma-separated values
    #[arg(long)]
    csv: bool,
}

pub(crate) fn run(args: UsageArgs) -> Result<()> {
    let to = args.to.unwrap_or_else(|| Utc::now().date_naive());
    let from = args.from.unwrap_or_else(|| to.with_day(1).unwrap_or(to));
    if from > to {
        bail!("--from must not be after --to");
    }
    let query = UsageQuery { from, to, group_by: args.group_by };
    let usage = with_store(&args.place, async |store| {
        let account = match &args.account {
            None => None,
            Some(name) => Some(account_id(store, name).await?),
        };
        Ok(store.usage(account, &query).await?)
    })?;
    if args.csv {
        return terminal::print(&wire::usage::csv(&query, &usage));
    }
    let names = [query.group_by.as_str(), "succeeded", "failed", "canceled", "device seconds", "cost"];
    let mut rows = vec![names.map(str::to_uppercase)];
    for line in &usage {
        rows.push([
            line.group.clone(),
            line.succeeded.to_string(),
            line.failed.to_string(),
            line.canceled.to_string(),
            format!("{}.{:06}", line.device_time.as_secs(), line.device_time.subsec_micros()),
            format!("${}", line.cost),
        ]);
    }
    let total: NanoUsd = usage.iter().map(|line| line.cost).sum();
    terminal::print(&format!("{}Total: ${total}\n", terminal::table(&rows)))
}
