//! API keys. The secret of a key is never stored, only its hash.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{Connection, Executor, FromRow, Postgres};

use super::{Error, Result, Store, predictions::microseconds};
use crate::domain::{ApiKey, Budget, Caller, KeyRecord, NanoUsd, NewKey, Period, Scope, Scopes};

/// Held by who makes the first key.
const FIRST_KEY: i64 = 0x66697273746b6579;

/// What the database knows of a key that can still be used.
#[derive(Clone, Debug, FromRow)]
pub struct StoredKey {
    /// The public part it was asked for by.
    asked: String,
    account_id: i64,
    id: i64,
    hash: Vec<u8>,
    scopes: Vec<String>,
}

impl StoredKey {
    /// Who the bearer of `key` is, if it is this key. Takes the same time for any wrong secret.
    pub fn caller(&self, key: &ApiKey) -> Option<Caller> {
        use subtle::ConstantTimeEq;
        let equal: bool = self.hash.ct_eq(&key.hash()).into();
        let caller = || Caller { account_id: self.account_id, key_id: self.id, scopes: scopes(&self.scopes) };
        equal.then(caller)
    }
}

/// A key's row in a list.
#[derive(Debug, FromRow)]
struct Row {
    account: String,
    name: String,
    lookup: String,
    scopes: Vec<String>,
    budget_nano: Option<i64>,
    budget_period: Option<String>,
    spent_nano: i64,
    held_nano: i64,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for KeyRecord {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let period: Option<Period> = row.budget_period.map(|period| period.parse()).transpose()?;
        let budget = row.budget_nano.zip(period);
        Ok(Self {
            account: row.account,
            name: row.name,
            lookup: row.lookup,
            scopes: scopes(&row.scopes),
            budget: budget.map(|(amount, period)| Budget { amount: NanoUsd::new(amount), period }),
            spent: NanoUsd::new(row.spent_nano),
            held: NanoUsd::new(row.held_nano),
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        })
    }
}

/// A word of a newer version allows nothing here.
fn scopes(words: &[String]) -> Scopes {
    words.iter().filter_map(|word| word.parse::<Scope>().ok()).collect()
}

/// One that may do everything and has no limits.
fn unlimited(account: &str, name: &str) -> NewKey {
    let (account, name) = (account.to_owned(), name.to_owned());
    NewKey { account, name, scopes: Scopes::ALL, budget: None, expires_at: None }
}

async fn insert_key<'d>(
    database: impl Executor<'d, Database = Postgres>,
    new: &NewKey,
    key: &ApiKey,
) -> Result<Caller> {
    let (account_id, key_id) = sqlx::query_as(
        "with account as (
             -- An update that changes nothing, so that an existing account is returned as well.
             insert into accounts (name) values ($1)
             on conflict (name) do update set name = excluded.name
             returning id
         )
         insert into api_keys (account_id, name, lookup, hash, scopes, budget_nano, budget_period, expires_at)
         select id, $2, $3, $4, $5, $6, $7, $8 from account
         returning account_id, id",
    )
    .bind(&new.account)
    .bind(&new.name)
    .bind(key.lookup())
    .bind(&key.hash()[..])
    .bind(new.scopes.iter().map(Scope::as_str).collect::<Vec<_>>())
    .bind(new.budget.map(|budget| budget.amount.get()))
    .bind(new.budget.map(|budget| budget.period.as_str()))
    .bind(new.expires_at)
    .fetch_one(database)
    .await?;
    Ok(Caller { account_id, key_id, scopes: new.scopes })
}

impl Store {
    /// Stores a key that may do everything and has no limits, as the first one.
    pub async fn create_key(&self, account: &str, name: &str, key: &ApiKey) -> Result<Caller> {
        self.issue_key(&unlimited(account, name), key).await
    }

    /// The same if there is no key at all, usable or not; and only then is asked which. Of any number who come at once the first
    /// one makes it, and the others wait and find it.
    pub async fn create_first_key<E>(
        &self,
        account: &str,
        name: &str,
        key: impl FnOnce() -> Result<ApiKey, E>,
    ) -> Result<(), E>
    where
        E: From<Error> + From<sqlx::Error>,
    {
        let mut lent = self.pool.lend().await?;
        let creating = async {
            let mut transaction = lent.begin().await?;
            // In a statement of its own: the next one sees what was committed before the lock was had.
            sqlx::query("select pg_advisory_xact_lock($1)").bind(FIRST_KEY).execute(&mut *transaction).await?;
            let any: bool =
                sqlx::query_scalar("select exists (select from api_keys)").fetch_one(&mut *transaction).await?;
            if !any {
                insert_key(&mut *transaction, &unlimited(account, name), &key()?).await?;
            }
            Ok(transaction.commit().await?)
        };
        self.pool.awaited::<_, E>(creating).await?;
        lent.answered();
        Ok(())
    }

    /// Stores a key under an account, which is created if it is new.
    pub async fn issue_key(&self, new: &NewKey, key: &ApiKey) -> Result<Caller> {
        insert_key(&self.pool, new, key).await
    }

    /// The usable key of this public part; none when it is unknown, revoked or expired. After a rotation a key has two
    /// secrets for a while, each with a public part of its own.
    ///
    /// Anybody may make up keys, so all who ask at a time share a statement: however many they are, the rest of the
    /// connections are for those who were let in. To be asked to the end: what is given up is lost to all who share it.
    pub async fn find_key(&self, lookup: &str) -> Result<Option<StoredKey>> {
        self.key_finds.done(lookup.to_owned(), async |lookups: &[String]| self.find_keys(lookups).await).await
    }

    async fn find_keys(&self, lookups: &[String]) -> Result<Vec<Option<StoredKey>>> {
        let keys: Vec<StoredKey> = sqlx::query_as(
            "select lookup as asked, account_id, id, hash, scopes
             from api_keys
             where lookup = any($1) and revoked_at is null and (expires_at is null or expires_at > now())
             union all
             select previous_lookup, account_id, id, previous_hash, scopes
             from api_keys
             where previous_lookup = any($1) and previous_expires_at > now()
               and revoked_at is null and (expires_at is null or expires_at > now())",
        )
        .bind(lookups)
        .fetch_all(&self.pool)
        .await?;
        let keys: HashMap<_, _> = keys.into_iter().map(|key| (key.asked.clone(), key)).collect();
        Ok(lookups.iter().map(|lookup| keys.get(lookup).cloned()).collect())
    }

    /// Every key, oldest first.
    pub async fn list_keys(&self) -> Result<Vec<KeyRecord>> {
        let rows: Vec<Row> = sqlx::query_as(
            "select accounts.name as account, api_keys.name, lookup, scopes, budget_nano, budget_period,
                    case when period_start >= date_trunc(budget_period, now(), 'UTC') then spent_nano else 0 end
                        as spent_nano,
                    case when period_start >= date_trunc(budget_period, now(), 'UTC') then api_keys.held_nano else 0 end
                        as held_nano,
                    api_keys.created_at, expires_at, revoked_at
             from api_keys join accounts on accounts.id = account_id
             order by api_keys.id",
        )
        .fetch_all(&self.pool)
        .await?;
        // What they spent may not be on the disk yet.
        self.until_durable().await?;
        rows.into_iter().map(KeyRecord::try_from).collect()
    }

    /// Ends a key, with whatever secrets it has. Returns whether there was one to end.
    pub async fn revoke_key(&self, lookup: &str) -> Result<bool> {
        let revoked = sqlx::query("update api_keys set revoked_at = now() where lookup = $1 and revoked_at is null")
            .bind(lookup)
            .execute(&self.pool)
            .await?;
        Ok(revoked.rows_affected() > 0)
    }

    /// Gives a key a new secret; the one before still opens until `overlap` is over, and the one before that no more.
    /// Returns whether there was such a key.
    pub async fn rotate_key(&self, lookup: &str, key: &ApiKey, overlap: std::time::Duration) -> Result<bool> {
        let rotated = sqlx::query(
            "update api_keys set
                 lookup = $2, hash = $3, previous_lookup = lookup, previous_hash = hash,
                 previous_expires_at = now() + $4::bigint * interval '1 microsecond'
             where lookup = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
        )
        .bind(lookup)
        .bind(key.lookup())
        .bind(&key.hash()[..])
        .bind(microseconds(overlap))
        .execute(&self.pool)
        .await?;
        Ok(rotated.rows_affected() > 0)
    }

    /// Sets or takes away what a key may spend. What it has spent in the period stays spent, unless that is one that only a
    /// wrong clock can have begun: then it is over. Returns whether there was such a key.
    pub async fn set_budget(&self, lookup: &str, budget: Option<Budget>) -> Result<bool> {
        let set = sqlx::query(
            "update api_keys set
                 budget_nano = $2, budget_period = $3,
                 period_start = case when period_start <= now() then period_start end
             where lookup = $1 and revoked_at is null",
        )
        .bind(lookup)
        .bind(budget.map(|budget| budget.amount.get()))
        .bind(budget.map(|budget| budget.period.as_str()))
        .execute(&self.pool)
        .await?;
        Ok(set.rows_affected() > 0)
    }
}
