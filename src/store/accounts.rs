//! Accounts: who owns predictions and pays for them.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Error, Result, Store};
use crate::domain::{AccountMode, AccountRecord, NanoUsd};

#[derive(Debug, FromRow)]
struct Row {
    name: String,
    mode: String,
    balance_nano: i64,
    held_nano: i64,
    max_in_flight: Option<i32>,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for AccountRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            name: row.name,
            mode: row.mode.parse()?,
            balance: NanoUsd::new(row.balance_nano),
            held: NanoUsd::new(row.held_nano),
            max_in_flight: row.max_in_flight.map(i32::unsigned_abs),
            created_at: row.created_at,
        })
    }
}

impl Store {
    /// Makes an account. `false` if there is one of that name.
    pub async fn create_account(&self, name: &str, mode: AccountMode, max_in_flight: Option<u32>) -> Result<bool> {
        let created = sqlx::query(
            "insert into accounts (name, mode, max_in_flight) values ($1, $2, $3) on conflict (name) do nothing",
        )
        .bind(name)
        .bind(mode.as_str())
        .bind(max_in_flight.map(places))
        .execute(&self.pool)
        .await?;
        Ok(created.rows_affected() > 0)
    }

    /// Every account, oldest first.
    pub async fn list_accounts(&self) -> Result<Vec<AccountRecord>> {
        let rows: Vec<Row> = sqlx::query_as(
            "select name, mode, balance_nano, held_nano, max_in_flight, created_at from accounts order by id",
        )
        .fetch_all(&self.pool)
        .await?;
        // What they spent may not be on the disk yet.
        self.until_durable().await?;
        rows.into_iter().map(AccountRecord::try_from).collect()
    }

    /// Changes what an account may spend. Predictions that have not ended are settled as they were created. Returns
    /// whether there is such an account.
    pub async fn set_account_mode(&self, name: &str, mode: AccountMode) -> Result<bool> {
        let set = sqlx::query("update accounts set mode = $2 where name = $1")
            .bind(name)
            .bind(mode.as_str())
            .execute(&self.pool)
            .await?;
        Ok(set.rows_affected() > 0)
    }

    /// Changes how many predictions an account may have queued and running; those it has from before there was a limit
    /// are not counted. Returns whether there is such an account.
    pub async fn set_max_in_flight(&self, name: &str, most: Option<u32>) -> Result<bool> {
        let set = sqlx::query("update accounts set max_in_flight = $2 where name = $1")
            .bind(name)
            .bind(most.map(places))
            .execute(&self.pool)
            .await?;
        Ok(set.rows_affected() > 0)
    }

    /// The row id of the account of this name.
    pub async fn find_account(&self, name: &str) -> Result<Option<i64>> {
        Ok(sqlx::query_scalar("select id from accounts where name = $1").bind(name).fetch_optional(&self.pool).await?)
    }

    /// The name of an account.
    pub async fn account_name(&self, account_id: i64) -> Result<Option<String>> {
        Ok(sqlx::query_scalar("select name from accounts where id = $1")
            .bind(account_id)
            .fetch_optional(&self.pool)
            .await?)
    }
}

fn places(most: u32) -> i32 {
    i32::try_from(most).unwrap_or(i32::MAX)
}
