//! Webhooks as their owners meet them: what was told and how it went, telling it again, and the secrets that sign. Every
//! statement names the account.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Error, Result, Store, predictions::microseconds, settle::KEPT_ATTEMPTS};
use crate::domain::{MadeAttempt, NewWebhook, PredictionId, SigningSecret, WebhookDelivery, WebhookLog, WebhookSecret};

/// How long a replaced secret signs beside its successor.
const SIGNS_ON: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, FromRow)]
struct LogRow {
    prediction_id: Uuid,
    url: String,
    has_secret: bool,
    server_url: String,
    mount: String,
    created_at: DateTime<Utc>,
    id: Option<Uuid>,
    event: Option<String>,
    state: Option<String>,
    posted_at: Option<DateTime<Utc>>,
    due_at: Option<DateTime<Utc>>,
    made_at: Option<DateTime<Utc>>,
    took_us: Option<i64>,
    succeeded: Option<bool>,
    status_code: Option<i16>,
    response: Option<String>,
    error: Option<String>,
}

impl Store {
    /// The account's webhooks, newest first, each with what was told.
    pub async fn webhook_log(&self, account_id: i64, offset: u32, limit: u32) -> Result<Vec<WebhookLog>> {
        self.webhook_rows(account_id, None, offset, limit).await
    }

    /// The webhook of one prediction, with what was told. `None` if it has none, or its log is forgotten.
    pub async fn webhook_of(&self, account_id: i64, id: PredictionId) -> Result<Option<WebhookLog>> {
        Ok(self.webhook_rows(account_id, Some(id), 0, 1).await?.pop())
    }

    async fn webhook_rows(
        &self,
        account_id: i64,
        id: Option<PredictionId>,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<WebhookLog>> {
        let rows: Vec<LogRow> = sqlx::query_as(
            "with listed as (
                 select * from webhooks
                 where account_id = $1 and ($2::uuid is null or prediction_id = $2)
                 order by created_at desc, prediction_id limit $3 offset $4
             )
             select listed.prediction_id, url, secret is not null as has_secret, server_url, mount, listed.created_at,
                    delivery.id, event, state, delivery.created_at as posted_at, due_at,
                    made_at, took_us, succeeded, status_code, response, error
             from listed
             left join webhook_deliveries as delivery on delivery.prediction_id = listed.prediction_id
             -- Versions before this one kept all.
             left join lateral (
                 select * from webhook_attempts where delivery_id = delivery.id order by attempt desc limit $5
             ) as made on true
             order by listed.created_at desc, listed.prediction_id, delivery.created_at, delivery.event desc, delivery.id,
                      made.attempt",
        )
        .bind(account_id)
        .bind(id.map(PredictionId::as_uuid))
        .bind(i64::from(limit))
        .bind(i64::from(offset))
        .bind(KEPT_ATTEMPTS)
        .fetch_all(&self.pool)
        .await?;
        let mut log: Vec<WebhookLog> = Vec::new();
        for row in rows {
            row.add_to(&mut log)?;
        }
        Ok(log)
    }

    /// Tells the end of a prediction again, from the first attempt on. Returns whether there was something to tell.
    pub async fn redeliver_webhook(&self, account_id: i64, id: PredictionId) -> Result<bool> {
        let posted = sqlx::query(
            "with asked as (
                 update webhooks set gone_at = null where prediction_id = $1 and account_id = $2 returning prediction_id
             )
             update webhook_deliveries set state = 'pending', failures = 0, due_at = now(), lease_until = null
             from asked
             where webhook_deliveries.prediction_id = asked.prediction_id and event = 'completed'
               -- One that is under way is told anyhow.
               and (lease_until is null or lease_until < now())",
        )
        .bind(id.as_uuid())
        .bind(account_id)
        .execute(&self.pool)
        .await?;
        if posted.rows_affected() > 0 {
            self.changes.announce_posted();
        }
        Ok(posted.rows_affected() > 0)
    }

    /// The secrets that sign for an account: the current one first, made if there is none, then those it has replaced not
    /// long ago.
    pub async fn signing_secrets(&self, account_id: i64) -> Result<Vec<SigningSecret>> {
        let kept = self.kept_secrets(account_id).await?;
        let kept = match kept.first() {
            Some((_, true)) => kept,
            _ => {
                self.keep_secret(account_id, &fresh()?).await?;
                self.kept_secrets(account_id).await?
            }
        };
        kept.iter().map(|(kept, _)| self.open_signing_secret(kept)).collect()
    }

    /// The account of this name and the secrets that sign for it. None is made: whoever asks may be anybody.
    pub async fn find_signing_secrets(&self, name: &str) -> Result<Option<(i64, Vec<SigningSecret>)>> {
        let kept: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(
            "select accounts.id, secret
             from accounts
             left join webhook_secrets on account_id = accounts.id and (signs_until is null or signs_until > now())
             where name = $1",
        )
        .bind(name)
        .fetch_all(&self.pool)
        .await?;
        let Some((account_id, _)) = kept.first() else { return Ok(None) };
        let secrets = kept.iter().filter_map(|(_, kept)| kept.as_ref());
        Ok(Some((*account_id, secrets.map(|kept| self.open_signing_secret(kept)).collect::<Result<_>>()?)))
    }

    /// An account's secret as it signs.
    pub(super) fn open_signing_secret(&self, kept: &[u8]) -> Result<SigningSecret> {
        let unreadable = || Error::Unreadable("a webhook secret of the wrong length".to_owned());
        SigningSecret::from_bytes(self.seal.open(kept)?).ok_or_else(unreadable)
    }

    /// What signs, and whether it is the current one, which is the first.
    async fn kept_secrets(&self, account_id: i64) -> Result<Vec<(Vec<u8>, bool)>> {
        Ok(sqlx::query_as(
            "select secret, signs_until is null from webhook_secrets
             where account_id = $1 and (signs_until is null or signs_until > now())
             order by signs_until desc nulls first",
        )
        .bind(account_id)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Keeps the account's first secret. Of several at once one is kept.
    async fn keep_secret(&self, account_id: i64, secret: &SigningSecret) -> Result<()> {
        sqlx::query("insert into webhook_secrets (account_id, secret) values ($1, $2) on conflict do nothing")
            .bind(account_id)
            .bind(self.seal.seal(secret.as_bytes())?)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Replaces the account's secret, which signs beside the new one for another day. Returns the new one.
    pub async fn rotate_signing_secret(&self, account_id: i64) -> Result<SigningSecret> {
        let secret = fresh()?;
        sqlx::query(
            "with replaced as (
                 update webhook_secrets set signs_until = now() + $3::bigint * interval '1 microsecond'
                 where account_id = $1 and signs_until is null
                 returning id
             )
             insert into webhook_secrets (account_id, secret)
             -- Counted only to have it replaced first.
             select $1, $2 where (select count(*) from replaced) >= 0",
        )
        .bind(account_id)
        .bind(self.seal.seal(secret.as_bytes())?)
        .bind(microseconds(SIGNS_ON))
        .execute(&self.pool)
        .await?;
        Ok(secret)
    }

    /// The secret of a new webhook as it is kept.
    pub(super) fn seal_secret(&self, webhook: &NewWebhook) -> Result<Option<Vec<u8>>> {
        match &webhook.webhook.request.secret {
            None => Ok(None),
            Some(WebhookSecret::Signing(secret)) => self.seal.seal(secret.as_bytes()).map(Some),
            Some(WebhookSecret::Verbatim(text)) => self.seal.seal(text.as_bytes()).map(Some),
        }
    }

    /// The secret of a kept webhook.
    pub(super) fn open_secret(&self, kept: &[u8], verbatim: bool) -> Result<WebhookSecret> {
        let unreadable = || Error::Unreadable("the secret of a webhook".to_owned());
        let opened = self.seal.open(kept)?;
        match verbatim {
            true => String::from_utf8(opened).map(WebhookSecret::Verbatim).map_err(|_| unreadable()),
            false => SigningSecret::from_bytes(opened).map(WebhookSecret::Signing).ok_or_else(unreadable),
        }
    }
}

impl LogRow {
    /// Rows come in order: one for each attempt, with what it belongs to.
    fn add_to(self, log: &mut Vec<WebhookLog>) -> Result<()> {
        let prediction_id = PredictionId::from(self.prediction_id);
        if log.last().is_none_or(|webhook| webhook.prediction_id != prediction_id) {
            log.push(WebhookLog {
                prediction_id,
                url: self.url,
                has_secret: self.has_secret,
                server_url: self.server_url,
                mount: self.mount,
                created_at: self.created_at,
                deliveries: Vec::new(),
            });
        }
        let (Some(webhook), Some(id), Some(event), Some(state), Some(created_at), Some(due_at)) =
            (log.last_mut(), self.id, self.event, self.state, self.posted_at, self.due_at)
        else {
            return Ok(());
        };
        if webhook.deliveries.last().is_none_or(|delivery| delivery.id != id) {
            let (event, state) = (event.parse()?, state.parse()?);
            webhook.deliveries.push(WebhookDelivery { id, event, state, created_at, due_at, attempts: Vec::new() });
        }
        let (Some(delivery), Some(made_at)) = (webhook.deliveries.last_mut(), self.made_at) else {
            return Ok(());
        };
        delivery.attempts.push(MadeAttempt {
            made_at,
            took: Duration::from_micros(self.took_us.unwrap_or_default().unsigned_abs()),
            succeeded: self.succeeded.unwrap_or_default(),
            status_code: self.status_code.map(i16::unsigned_abs),
            response: self.response,
            error: self.error,
        });
        Ok(())
    }
}

fn fresh() -> Result<SigningSecret> {
    SigningSecret::generate().map_err(|_| Error::Unsealable("there were no random bytes for it"))
}
