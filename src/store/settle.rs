//! What came of telling a webhook's receiver: an attempt, and what follows from it.

use std::{collections::HashSet, time::Duration};

use uuid::Uuid;

use super::{DueWebhook, Result, Store, durable::without_waiting, predictions::microseconds};

/// Of a delivery so many attempts are kept, the last ones: it may be asked for again and again.
pub(super) const KEPT_ATTEMPTS: i32 = 50;

/// How an attempt went.
#[derive(Clone, Debug, Default)]
pub struct WebhookAttempt {
    /// How long it took.
    pub took: Duration,
    /// The receiver's HTTP status, if it answered.
    pub status_code: Option<u16>,
    /// The beginning of its answer.
    pub response: Option<String>,
    /// Why it did not answer.
    pub error: Option<String>,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookVerdict {
    /// It was received.
    Delivered,
    /// It was not, and is tried again after this time.
    Again(Duration),
    /// It was not, and that is all.
    Failed,
    /// Its receiver is gone for good: neither this nor anything else of the prediction is told.
    Gone,
}

impl WebhookVerdict {
    const fn state(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Again(_) => "pending",
            Self::Failed | Self::Gone => "failed",
        }
    }

    /// Until it is due again, where that matters.
    const fn pause(self) -> Duration {
        match self {
            Self::Again(pause) => pause,
            Self::Delivered | Self::Failed | Self::Gone => Duration::ZERO,
        }
    }
}

/// An attempt of a delivery that is held under a lease, and what follows.
#[derive(Debug)]
pub(super) struct Settlement {
    id: Uuid,
    number: i32,
    attempt: WebhookAttempt,
    verdict: WebhookVerdict,
}

impl Store {
    /// Notes how an attempt went and what follows, in one statement, which does so for all that this process has to note by
    /// then. Returns `false`, and has changed nothing, if the lease was lost to another process meanwhile. A note that a
    /// crash of the database takes away is a receiver told twice.
    pub async fn settle_webhook(
        &self,
        due: &DueWebhook,
        attempt: &WebhookAttempt,
        verdict: WebhookVerdict,
    ) -> Result<bool> {
        let settlement = Settlement { id: due.id, number: due.attempt, attempt: attempt.clone(), verdict };
        self.settlements.done(settlement, async |settlements: &[Settlement]| self.settle(settlements).await).await
    }

    /// Whether each of them was still held.
    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<bool>> {
        let attempts = || settlements.iter().map(|one| &one.attempt);
        let settled: HashSet<Uuid> = sqlx::query_scalar(concat!(
            "with told as materialized (
                 select * from unnest($1::uuid[], $2::int[], $3::text[], $4::bigint[], $5::bigint[], $6::smallint[],
                                      $7::text[], $8::text[], $9::bool[])
                     as told (told_id, told_attempt, told_state, told_pause_us, told_took_us, told_status, told_response,
                              told_error, told_gone)
                 -- There are no more, which the planner does not know of an array.
                 limit $10
             ),
             settled as (
                 update webhook_deliveries set
                     state = told_state,
                     failures = failures + case when told_state = 'delivered' then 0 else 1 end,
                     due_at = now() + told_pause_us * interval '1 microsecond',
                     lease_until = null
                 from told
                 where id = told_id and attempt = told_attempt and state = 'pending' and lease_until is not null
                 returning id, prediction_id, told.*
             ),
             noted as (
                 insert into webhook_attempts (delivery_id, attempt, took_us, succeeded, status_code, response, error)
                 select id, told_attempt, told_took_us, told_state = 'delivered', told_status, told_response, told_error
                 from settled
             ),
             forgotten as (
                 delete from webhook_attempts as made using settled
                 where made.delivery_id = settled.id and made.attempt <= told_attempt - $11
             ),
             gone as (
                 update webhooks set gone_at = now() from settled
                 where told_gone and webhooks.prediction_id = settled.prediction_id
             ),
             untold as (
                 update webhook_deliveries as other set state = 'failed', lease_until = null from settled
                 where told_gone and other.prediction_id = settled.prediction_id and other.state = 'pending'
                   and other.id not in (select id from settled)
             )
             select id, ",
            without_waiting!(),
            " from settled",
        ))
        .bind(settlements.iter().map(|one| one.id).collect::<Vec<_>>())
        .bind(settlements.iter().map(|one| one.number).collect::<Vec<_>>())
        .bind(settlements.iter().map(|one| one.verdict.state()).collect::<Vec<_>>())
        .bind(settlements.iter().map(|one| microseconds(one.verdict.pause())).collect::<Vec<_>>())
        .bind(attempts().map(|attempt| microseconds(attempt.took)).collect::<Vec<_>>())
        .bind(attempts().map(|attempt| attempt.status_code.and_then(|code| code.try_into().ok())).collect::<Vec<Option<i16>>>())
        .bind(attempts().map(|attempt| attempt.response.as_deref()).collect::<Vec<_>>())
        .bind(attempts().map(|attempt| attempt.error.as_deref()).collect::<Vec<_>>())
        .bind(settlements.iter().map(|one| one.verdict == WebhookVerdict::Gone).collect::<Vec<_>>())
        .bind(settlements.len() as i64)
        .bind(KEPT_ATTEMPTS)
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .collect();
        Ok(settlements.iter().map(|one| settled.contains(&one.id)).collect())
    }
}
