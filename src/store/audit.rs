//! The audit: whether the books add up. Each check is one statement, so that it sees one moment, also of a busy database.

use sqlx::Connection;

use super::{Result, Store};

/// What the checks found, in order.
#[derive(Clone, Debug)]
pub struct Audit {
    /// One for each check.
    pub findings: Vec<Finding>,
}

impl Audit {
    /// Whether everything adds up.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.wrong == 0)
    }
}

/// What one check found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What must hold.
    pub law: &'static str,
    /// How many were looked at.
    pub checked: u64,
    /// For how many it does not hold.
    pub wrong: u64,
    /// Some of those, each with what it should be and what it is.
    pub examples: Vec<String>,
}

/// `compared` is a query of what was looked at: subject, what it should be, what it is, whether that is wrong.
macro_rules! check {
    ($compared:literal) => {
        concat!(
            "with compared (subject, expected, found, is_wrong) as (",
            $compared,
            ")
             select (select count(*) from compared),
                    (select count(*) from compared where is_wrong),
                    array(select format('%s: %s expected, %s found', subject, expected, found)
                          from compared where is_wrong limit 20)"
        )
    };
}

/// Each law and how it is checked.
const CHECKS: [(&str, &str); 8] = [
    (
        "a balance is its account's credits less the charges it paid",
        check!(
            "select 'account ' || name, booked, balance_nano, booked <> balance_nano from (
                 select name, balance_nano, coalesce((
                     select sum(case when kind = 'credit' then amount_nano when from_balance then -amount_nano else 0 end)
                     from ledger where account_id = accounts.id), 0) as booked
                 from accounts) as books"
        ),
    ),
    (
        "an account's holds are those of its unfinished predictions",
        check!(
            "select 'account ' || name, due, held_nano, due <> held_nano from (
                 select name, held_nano, coalesce((
                     select sum(hold_nano) from predictions
                     where account_id = accounts.id and completed_at is null and held_balance), 0) as due
                 from accounts) as holds"
        ),
    ),
    (
        "an account's places in flight are those of its unfinished predictions",
        check!(
            "select 'account ' || name, due, in_flight, due <> in_flight from (
                 select name, in_flight, (
                     select count(*) from predictions
                     where account_id = accounts.id and completed_at is null and held_place) as due
                 from accounts) as places"
        ),
    ),
    (
        "what a key's budget holds is for its unfinished predictions of the period",
        check!(
            "select 'key fs_' || lookup, due, held_nano, due <> held_nano from (
                 select lookup, held_nano, coalesce((
                     select sum(hold_nano) from predictions
                     where key_id = api_keys.id and completed_at is null and held_budget = period_start), 0) as due
                 from api_keys where period_start is not null) as holds"
        ),
    ),
    (
        "what is spent of a key's budget is what its predictions of the period cost",
        check!(
            "select 'key fs_' || lookup, due, spent_nano, due <> spent_nano from (
                 select lookup, spent_nano, coalesce((
                     select sum(cost_nano) from predictions
                     where key_id = api_keys.id and held_budget = period_start), 0) as due
                 from api_keys where period_start is not null) as budgets"
        ),
    ),
    (
        "every cost is charged, once and exactly, and nothing else is",
        check!(
            "select 'prediction ' || coalesce(predictions.id, prediction_id), coalesce(cost_nano, 0), coalesce(amount_nano, 0),
                    coalesce(cost_nano, 0) <> coalesce(amount_nano, 0)
             from predictions full join (select * from ledger where kind = 'charge') as charges
                  on prediction_id = predictions.id"
        ),
    ),
    (
        "an account's usage is what it was charged",
        check!(
            "select 'account ' || name, charged, used, charged <> used from (
                 select name,
                        coalesce((select sum(amount_nano) from ledger
                                  where account_id = accounts.id and kind = 'charge'), 0) as charged,
                        coalesce((select sum(cost_nano) from usage where account_id = accounts.id), 0) as used
                 from accounts) as sums"
        ),
    ),
    (
        "no worker's device is billed for longer than the worker had it (microseconds)",
        check!(
            "select 'worker ' || worker_id, there, billed, billed > there from (
                 select worker_id, billed, extract(epoch from greatest(seen_at, last) - started_at) * 1000000 as there
                 from device_sessions join (
                     select worker_id, sum(device_us) as billed, max(created_at) as last from ledger
                     where worker_id is not null group by worker_id) as bills using (worker_id)) as devices"
        ),
    ),
];

impl Store {
    /// Looks whether the books add up, for as long as it takes, unless the database falls silent. Changes nothing.
    pub async fn audit(&self) -> Result<Audit> {
        self.as_long_as_it_takes(self.look_through()).await
    }

    async fn look_through(&self) -> Result<Audit> {
        let mut connection = self.patient_connection().await?;
        let mut findings = Vec::new();
        for (law, check) in CHECKS {
            let (checked, wrong, examples): (i64, i64, Vec<String>) =
                sqlx::query_as(check).fetch_one(&mut connection).await?;
            findings.push(Finding { law, checked: checked.unsigned_abs(), wrong: wrong.unsigned_abs(), examples });
        }
        connection.close().await?;
        Ok(Audit { findings })
    }
}
