//! What was used, added up from the rollup that every ending prediction adds to. It is kept when predictions' data is not.

use std::time::Duration;

use super::{Result, Store};
use crate::domain::{NanoUsd, Usage, UsageGroup, UsageQuery};

/// Group, succeeded, failed, canceled, microseconds, nano-dollars.
type Row = (String, i64, i64, i64, i64, i64);

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
