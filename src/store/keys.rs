//! Accounts and their API keys. The secret of a key is never stored, only its hash.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Result, Store};
use crate::domain::{ApiKey, Caller};

/// What the database knows of a key that can still be used.
#[derive(Clone, Debug, FromRow)]
pub struct StoredKey {
    account_id: i64,
    id: i64,
    hash: Vec<u8>,
}

impl StoredKey {
    /// Who the bearer of `key` is, if it is this key. Takes the same time for any wrong secret.
    pub fn caller(&self, key: &ApiKey) -> Option<Caller> {
        use subtle::ConstantTimeEq;
        let equal: bool = self.hash.ct_eq(&key.hash()).into();
        equal.then_some(Caller { account_id: self.account_id, key_id: self.id })
    }
}

/// A key as its owner sees it in a list.
#[derive(Clone, Debug, FromRow)]
pub struct KeyRecord {
    /// Row id.
    pub id: i64,
    /// Account it belongs to.
    pub account: String,
    /// Given by its owner.
    pub name: String,
    /// Public part.
    pub lookup: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it stops to work by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Stores a key under an account, which is created if it is new.
    pub async fn create_key(&self, account: &str, name: &str, key: &ApiKey) -> Result<Caller> {
        let (account_id, key_id) = sqlx::query_as(
            "with account as (
                 -- An update that changes nothing, so that an existing account is returned as well.
                 insert into accounts (name) values ($1)
                 on conflict (name) do update set name = excluded.name
                 returning id
             )
             insert into api_keys (account_id, name, lookup, hash)
             select id, $2, $3, $4 from account
             returning account_id, id",
        )
        .bind(account)
        .bind(name)
        .bind(key.lookup())
        .bind(&key.hash()[..])
        .fetch_one(&self.pool)
        .await?;
        Ok(Caller { account_id, key_id })
    }

    /// The usable key of this public part; none when it is unknown, revoked or expired.
    pub async fn find_key(&self, lookup: &str) -> Result<Option<StoredKey>> {
        Ok(sqlx::query_as(
            "select account_id, id, hash from api_keys
             where lookup = $1 and revoked_at is null and (expires_at is null or expires_at > now())",
        )
        .bind(lookup)
        .fetch_optional(&self.pool)
        .await?)
    }

    /// The name of an account.
    pub async fn account_name(&self, account_id: i64) -> Result<Option<String>> {
        Ok(sqlx::query_scalar("select name from accounts where id = $1")
            .bind(account_id)
            .fetch_optional(&self.pool)
            .await?)
    }

    /// Whether there is any key, usable or not.
    pub async fn has_keys(&self) -> Result<bool> {
        Ok(sqlx::query_scalar("select exists (select from api_keys)").fetch_one(&self.pool).await?)
    }

    /// Every key, oldest first.
    pub async fn list_keys(&self) -> Result<Vec<KeyRecord>> {
        Ok(sqlx::query_as(
            "select api_keys.id, accounts.name as account, api_keys.name, lookup, api_keys.created_at, expires_at, revoked_at
             from api_keys join accounts on accounts.id = account_id
             order by api_keys.id",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// Ends a key. Returns whether there was one to end.
    pub async fn revoke_key(&self, lookup: &str) -> Result<bool> {
        let revoked = sqlx::query("update api_keys set revoked_at = now() where lookup = $1 and revoked_at is null")
            .bind(lookup)
            .execute(&self.pool)
            .await?;
        Ok(revoked.rows_affected() > 0)
    }
}
