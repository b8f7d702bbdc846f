//! Webhooks that were given up, as an operator sees them, of every account: which they are, and telling them again.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::PredictionId;

/// How many are told again by one statement: those who settle others wait no longer for it.
const REDELIVERED_AT_ONCE: i64 = 1000;

/// A delivery that was given up.
#[derive(Clone, Debug, FromRow)]
pub struct GivenUp {
    /// Of which prediction.
    pub prediction_id: Uuid,
    /// Whose, by name.
    pub account: String,
    /// Host and port it was for.
    pub receiver: String,
    /// What was to be told.
    pub event: String,
    /// Attempts that were made.
    pub attempts: i32,
    /// When the last one was.
    pub tried_at: DateTime<Utc>,
    /// How it went.
    pub error: Option<String>,
}

impl Store {
    /// What was given up, of one account or of all, the latest first, at most `limit`.
    pub async fn given_up_webhooks(&self, account: Option<&str>, limit: u32) -> Result<Vec<GivenUp>> {
        Ok(sqlx::query_as(
            "select delivery.prediction_id, name as account, delivery.receiver, event, delivery.attempt as attempts,
                    made_at as tried_at, error
             from webhook_deliveries as delivery
             join webhooks using (prediction_id)
             join accounts on accounts.id = webhooks.account_id
             join webhook_attempts as made on delivery_id = delivery.id and made.attempt = delivery.attempt
             where state = 'failed' and ($1::text is null or name = $1)
             order by made_at desc limit $2",
        )
        .bind(account)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?)
    }

    /// Tells the end of a prediction again, whosever it is, whether it was received or not. Returns whether there was
    /// something to tell.
    pub async fn redeliver_any_webhook(&self, id: PredictionId) -> Result<bool> {
        let owner = sqlx::query_scalar("select account_id from webhooks where prediction_id = $1");
        match owner.bind(id.as_uuid()).fetch_optional(&self.pool).await? {
            Some(owner) => self.redeliver_webhook(owner, id).await,
            None => Ok(false),
        }
    }

    /// Tells every end that was given up again, of one account or of all, from the first attempt on. Returns how many.
    pub async fn redeliver_given_up_webhooks(&self, account: Option<&str>) -> Result<u64> {
        let mut posted = 0;
        let mut after = Uuid::nil();
        // Each is come to once, also if it is given up again meanwhile.
        while let (count, Some(last)) = self.redeliver_some(account, after).await? {
            posted += count.unsigned_abs();
            after = last;
            self.changes.announce_posted();
        }
        Ok(posted)
    }

    /// The same of the next few after this prediction. Returns how many, and the last that was looked at, if there was one.
    async fn redeliver_some(&self, account: Option<&str>, after: Uuid) -> Result<(i64, Option<Uuid>)> {
        Ok(sqlx::query_as(
            "with found as materialized (
                 select delivery.id as found_id, prediction_id
                 from webhook_deliveries as delivery
                 join webhooks using (prediction_id)
                 join accounts on accounts.id = webhooks.account_id
                 where state = 'failed' and event = 'completed' and prediction_id > $2
                   and ($1::text is null or name = $1)
                 order by prediction_id limit $3
             ),
             asked as (
                 update webhooks set gone_at = null from found
                 where webhooks.prediction_id = found.prediction_id and gone_at is not null
             ),
             posted as (
                 update webhook_deliveries set state = 'pending', failures = 0, due_at = now()
                 from found where id = found_id and state = 'failed'
                 returning id
             )
             select (select count(*) from posted),
                    (select prediction_id from found order by prediction_id desc limit 1)",
        )
        .bind(account)
        .bind(after)
        .bind(REDELIVERED_AT_ONCE)
        .fetch_one(&self.pool)
        .await?)
    }
}
