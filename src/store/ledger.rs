//! The ledger's own statements: what an account or a key still may spend, and credits. Charges are made where predictions
//! end, in `ended`.

use chrono::{DateTime, Utc};

use super::{Error, Result, Store};
use crate::domain::{NanoUsd, NewPrediction, Period, Shortage};

#[derive(sqlx::FromRow)]
struct Means {
    mode: String,
    balance_nano: i64,
    held_nano: i64,
    max_in_flight: Option<i32>,
    in_flight: i32,
    budget_nano: Option<i64>,
    budget_period: Option<String>,
    /// Spent and held of the budget in this period.
    used_nano: i64,
    resets: Option<DateTime<Utc>>,
}

impl Store {
    /// What a new prediction's account or key has too little of, if anything. Money before places: waiting helps only with
    /// the latter.
    pub(super) async fn shortage(&self, new: &NewPrediction) -> Result<Option<Shortage>> {
        let means: Means = sqlx::query_as(
            "select mode, balance_nano, accounts.held_nano, max_in_flight, in_flight, budget_nano, budget_period,
                    case when period_start >= date_trunc(budget_period, now(), 'UTC')
                         then spent_nano + api_keys.held_nano else 0 end as used_nano,
                    (date_trunc(budget_period, greatest(now(), period_start) at time zone 'UTC')
                        + ('1 ' || budget_period)::interval) at time zone 'UTC' as resets
             from accounts join api_keys on account_id = accounts.id
             where accounts.id = $1 and api_keys.id = $2",
        )
        .bind(new.account_id)
        .bind(new.key_id)
        .fetch_one(&self.pool)
        .await?;
        let needed = new.hold();
        let (available, held) = (NanoUsd::new(means.balance_nano - means.held_nano), NanoUsd::new(means.held_nano));
        if means.mode == "prepaid" && available < needed {
            return Ok(Some(Shortage::Balance { needed, available, held }));
        }
        if let (Some(budget), Some(period), Some(resets)) = (means.budget_nano, means.budget_period, means.resets) {
            // As the statement that creates compares it: what was overspent leaves no room for what is free either.
            let left = budget - means.used_nano;
            if left < needed.get() {
                let available = NanoUsd::new(left.max(0));
                let period: Period = period.parse().map_err(|_| Error::Unreadable(format!("period {period:?}")))?;
                let budget = NanoUsd::new(budget);
                return Ok(Some(Shortage::Budget { needed, available, budget, period, resets }));
            }
        }
        let most = means.max_in_flight.filter(|most| means.in_flight >= *most);
        Ok(most.map(|most| Shortage::InFlight { most: most.unsigned_abs() }))
    }

    /// Adds to an account's balance, or takes from it, with an entry in the ledger. `false` if there is no such account.
    /// Fails with [`Error::OverLimit`] when it would take what the account does not have.
    pub async fn credit(&self, account: &str, amount: NanoUsd, note: Option<&str>) -> Result<bool> {
        let credited: Option<i64> = sqlx::query_scalar(
            "with credited as (
                 update accounts set balance_nano = balance_nano + $2 where name = $1 returning id
             )
             insert into ledger (account_id, kind, device_us, amount_nano, note)
             select id, 'credit', 0, $2, $3 from credited
             returning account_id",
        )
        .bind(account)
        .bind(amount.get())
        .bind(note)
        .fetch_optional(&self.pool)
        .await?;
        Ok(credited.is_some())
    }
}
