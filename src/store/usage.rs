//! What was used, added up from the rollup that every ending prediction adds to. It is kept when predictions' data is not.

use std::time::Duration;

use super::{Result, Store};
use crate::domain::{NanoUsd, Usage, UsageGroup, UsageQuery};

/// Group, succeeded, failed, canceled, microseconds, nano-dollars.
type Row = (String, i64, i64, i64, i64, i64);

/// Adds what a `select` has, a row for each account, key, model, day and stripe, to the rows there are.
macro_rules! add_usage {
    ($select:literal) => {
        concat!(
            "insert into usage as known
                 (day, account_id, key_id, model, stripe, succeeded, failed, canceled, device_us, cost_nano)
             ",
            $select,
            "
             on conflict (account_id, day, key_id, model, stripe) do update set
                 succeeded = known.succeeded + excluded.succeeded,
                 failed = known.failed + excluded.failed,
                 canceled = known.canceled + excluded.canceled,
                 device_us = known.device_us + excluded.device_us,
                 cost_nano = known.cost_nano + excluded.cost_nano"
        )
    };
}
pub(super) use add_usage;

/// The sums of a grouping, `$1` being the account or null for all, `$2` and `$3` the days.
macro_rules! grouped_by {
    ($group:literal) => {
        concat!(
            "select ",
            $group,
            ", sum(succeeded)::bigint, sum(failed)::bigint, sum(canceled)::bigint, sum(device_us)::bigint, \
             sum(cost_nano)::bigint
             from usage join api_keys on api_keys.id = key_id
             where ($1::bigint is null or usage.account_id = $1) and day between $2 and $3
             group by 1 order by 1"
        )
    };
}

impl Store {
    /// Adds the rows of days that are over up into one each, at most so many at a time; returns how many there were. Who
    /// reads sees them before or after.
    ///
    /// Of the last days nothing is touched: an end belongs to the day on which its statement began, and the clocks of two servers
    /// may differ. One that came later still would find its row, or begin another for the next time.
    pub async fn compact_usage(&self, limit: u64) -> Result<u64> {
        let compacted: i64 = sqlx::query_scalar(concat!(
            "with striped as materialized (
                 select account_id, day, key_id, model, stripe from usage
                 where stripe <> 0 and day < (now() at time zone 'UTC')::date - 2
                 order by day limit $1
                 for update skip locked
             ),
             taken as (
                 delete from usage using striped
                 where (usage.account_id, usage.day, usage.key_id, usage.model, usage.stripe)
                     = (striped.account_id, striped.day, striped.key_id, striped.model, striped.stripe)
                 returning usage.*
             ),
             kept as (
                 ",
            add_usage!(
                "select day, account_id, key_id, model, 0,
                        sum(succeeded), sum(failed), sum(canceled), sum(device_us), sum(cost_nano)
                 from taken group by account_id, key_id, model, day order by account_id, key_id, model, day"
            ),
            "
             )
             select count(*) from taken",
        ))
        .bind(limit.cast_signed())
        .fetch_one(&self.pool)
        .await?;
        Ok(compacted.unsigned_abs())
    }

    /// The usage of an account, or of all, with nothing in it that a crash could still take away.
    pub async fn usage(&self, account_id: Option<i64>, query: &UsageQuery) -> Result<Vec<Usage>> {
        let statement = match query.group_by {
            UsageGroup::Day => grouped_by!("day::text"),
            UsageGroup::Key => grouped_by!("'fs_' || lookup || ' ' || api_keys.name"),
            UsageGroup::Model => grouped_by!("model"),
        };
        let rows: Vec<Row> =
            sqlx::query_as(statement).bind(account_id).bind(query.from).bind(query.to).fetch_all(&self.pool).await?;
        self.until_durable().await?;
        let usage = |(group, succeeded, failed, canceled, device_us, cost): Row| Usage {
            group,
            succeeded: succeeded.unsigned_abs(),
            failed: failed.unsigned_abs(),
            canceled: canceled.unsigned_abs(),
            device_time: Duration::from_micros(device_us.unsigned_abs()),
            cost: NanoUsd::new(cost),
        };
        Ok(rows.into_iter().map(usage).collect())
    }
}
