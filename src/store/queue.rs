//! The queue: how a worker takes a prediction, keeps it, and gives it back or ends it.
//!
//! Every statement is safe to run from many workers at once. A row is claimed with `skip locked`, kept by a lease, and
//! written only by the attempt and worker that claimed it; whoever comes late updates no row and is told
//! [`Error::LeaseLost`]. No transaction is open while a device works.

use std::time::Duration;

use sqlx::{FromRow as _, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    Error, Result, Store,
    durable::{Milestone, without_waiting},
    ended::{DEADLINE_MESSAGE, ended_columns, when_ended},
    outbox::{post_logs, post_started},
    predictions::{Row, columns, microseconds},
};
use crate::domain::{Dialect, FailureCode, Input, NanoUsd, Outcome, Prediction, PredictionId, PricePerSecond};
use crate::metrics;

/// How far from its head the queue is searched for what can be drawn side by side.
const NEAR: i64 = 32;

/// So many predictions that it cannot read a worker leaves to others at a time: there may be thousands, and those who can read
/// them shall have them.
const MOST_LEFT: usize = 8;

/// Whether a prediction that is canceled is so for its deadline, and not because somebody asked for it by hand before.
macro_rules! is_by_deadline {
    () => {
        "deadline <= coalesce(cancel_requested_at, now())"
    };
}
pub(super) use is_by_deadline;

/// The rest of a statement that claims: gives what `next` found to worker `$2`, for `$3` microseconds, tells of it where a
/// webhook asks for that, and answers with what [`Store::claimed`] reads.
macro_rules! claiming {
    () => {
        concat!(
            ",
             claimed as (
                 update predictions set
                     status = 'processing',
                     attempt = attempt + 1,
                     worker_id = $2,
                     lease_until = now() + $3::bigint * interval '1 microsecond',
                     started_at = coalesce(started_at, now())
                 from next
                 where id = next_id
                 returning ",
            columns!(),
            ")",
            post_started!(),
            "select ",
            columns!(),
            ", exists (select from posted) as is_posted, ",
            without_waiting!(),
            " from claimed"
        )
    };
}

/// A prediction in the hands of a worker, and the proof that it is.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Which prediction.
    pub id: PredictionId,
    /// The number this claim was given; later claims have greater ones.
    pub attempt: i32,
    /// Who holds it.
    pub worker_id: Uuid,
    /// The key it was created with.
    pub key_id: i64,
    /// The request that created it.
    pub request_id: Option<String>,
    /// Where its trace goes on.
    pub trace_parent: Option<String>,
    /// How long it had waited when a worker first took it.
    pub waited: Duration,
    /// What to run.
    pub model: String,
    /// What to run it on.
    pub input: Input,
    /// Lines so far.
    pub logs: String,
    /// How long the device may work on it.
    pub time_limit: Option<Duration>,
    price: PricePerSecond,
    dialect: Dialect,
}

impl Claim {
    /// How long the device may work on it; without a limit, for ever.
    pub(super) fn longest(&self) -> Duration {
        self.time_limit.unwrap_or(Duration::MAX)
    }

    /// Whether its owner may cancel it for nothing while it runs.
    pub fn cancel_is_free(&self) -> bool {
        self.dialect.cancels_are_free()
    }

    /// What it costs if it ends like this.
    pub(super) fn cost(&self, outcome: &Outcome) -> NanoUsd {
        outcome.cost(self.price, self.dialect, self.longest())
    }
}

/// What renewing told about a claim that is still held.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// Which prediction.
    pub id: PredictionId,
    /// Whether to stop: its owner asked for it, or its deadline passed.
    pub cancel_requested: bool,
}

impl Store {
    /// Takes the next queued prediction of a model, if there is one, under a lease. One whose deadline has passed is left
    /// to the sweep.
    ///
    /// One that this version cannot read, whose words are a newer one's, is left to others, and the next is taken; after some of
    /// these nothing, until it is asked for again.
    ///
    /// The choice is made in a materialized CTE: without that fence the planner may run the locking subquery more than
    /// once and claim more rows than one.
    ///
    /// A crash of the database may forget the claim: then the row is queued again, as if the worker had been lost. The next
    /// claim may have the same number, but not the same worker; if it has, either run may finish it, and only one does.
    pub async fn claim(&self, model: &str, worker_id: Uuid, lease: Duration) -> Result<Option<Claim>> {
        for _ in 0..MOST_LEFT {
            let Some(row) = self.claim_next(model, worker_id, lease).await? else { return Ok(None) };
            if let Some(claim) = self.claimed(&row, worker_id).await {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    async fn claim_next(&self, model: &str, worker_id: Uuid, lease: Duration) -> Result<Option<PgRow>> {
        Ok(sqlx::query(concat!(
            "with next as materialized (
                 select id as next_id from predictions
                 where model = $1 and status = 'queued' and (run_after is null or run_after <= now())
                   and (deadline is null or deadline > now())
                 order by priority, turn, created_at, id
                 limit 1
                 for update skip locked
             )",
            claiming!(),
        ))
        .bind(model)
        .bind(worker_id)
        .bind(microseconds(lease))
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Takes, for the worker that holds a claim, more of what is queued and can be drawn beside it: at most so many, of
    /// those whose turn is near, and no more than the worker's share among all that take them.
    pub async fn claim_beside(&self, claim: &Claim, most: usize, lease: Duration) -> Result<Vec<Claim>> {
        let near: Vec<(Uuid, serde_json::Value)> = sqlx::query_as(
            "select id, input from predictions
             where model = $1 and status = 'queued' and (run_after is null or run_after <= now())
               and (deadline is null or deadline > now())
             order by priority, turn, created_at, id
             limit $2",
        )
        .bind(&claim.model)
        .bind(NEAR)
        .fetch_all(&self.pool)
        .await?;
        let goes_with = |input| serde_json::from_value(input).is_ok_and(|input: Input| input.goes_with(&claim.input));
        let fitting: Vec<Uuid> = near.into_iter().filter_map(|(id, input)| goes_with(input).then_some(id)).collect();
        if fitting.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(concat!(
            "with next as materialized (
                 select id as next_id from predictions
                 where id = any ($1) and status = 'queued' and (deadline is null or deadline > now())
                 order by priority, turn, created_at, id
                 -- With the one that is claimed, its share rounded up.
                 limit least($4, (select (cardinality($1) + greatest(count(*), 1)) / greatest(count(*), 1) - 1
                                  from workers where $5 = any (models) and phase = 'ready'))
                 for update skip locked
             )",
            claiming!(),
        ))
        .bind(fitting)
        .bind(claim.worker_id)
        .bind(microseconds(lease))
        .bind(most as i64)
        .bind(&claim.model)
        .fetch_all(&self.pool)
        .await?;
        let mut claims = Vec::with_capacity(rows.len());
        for row in &rows {
            claims.extend(self.claimed(row, claim.worker_id).await);
        }
        Ok(claims)
    }

    /// The claim that a row of a claiming statement is; `None` of one that cannot be read, which goes back to the
    /// queue.
    async fn claimed(&self, row: &PgRow, worker_id: Uuid) -> Option<Claim> {
        if row.try_get("is_posted").unwrap_or_default() {
            self.changes.announce_posted();
        }
        let read = Self::read_claim(row, worker_id);
        if let Err(error) = &read {
            tracing::warn!(%error, "A prediction cannot be read by this version, and is left to another");
            if let Err(error) = self.leave(row, worker_id).await {
                tracing::warn!(%error, "It could not be left; its lease will run out");
            }
        }
        read.ok()
    }

    /// Puts what was claimed back in the queue for somebody else, which counts as no loss. One that is to be canceled by
    /// now is ended by the sweep.
    async fn leave(&self, row: &PgRow, worker_id: Uuid) -> Result<()> {
        sqlx::query(
            "update predictions set status = 'queued', lease_until = null, run_after = now() + interval '5 s'
             where id = $1 and attempt = $2 and worker_id = $3 and status = 'processing'
               and cancel_requested_at is null",
        )
        .bind(row.try_get::<Uuid, _>("id")?)
        .bind(row.try_get::<i32, _>("attempt")?)
        .bind(worker_id)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    fn read_claim(row: &PgRow, worker_id: Uuid) -> Result<Claim> {
        let mut row = Row::from_row(row)?;
        let (request_id, trace_parent) = (row.request_id.take(), row.trace_parent.take());
        let (attempt, key_id, price, time_limit) = (row.attempt, row.key_id, row.price(), row.time_limit());
        let Prediction { id, model, input, logs, dialect, created_at, started_at, .. } = row.try_into()?;
        let waited = started_at.and_then(|started| (started - created_at).to_std().ok()).unwrap_or_default();
        Ok(Claim {
            id,
            attempt,
            worker_id,
            key_id,
            request_id,
            trace_parent,
            waited,
            model,
            input,
            logs,
            time_limit,
            price,
            dialect,
        })
    }

    /// How many predictions of a model are queued, and how many workers take them.
    pub async fn queue_depth(&self, model: &str) -> Result<(u64, u64)> {
        let (queued, workers): (i64, i64) = sqlx::query_as(
            "select (select count(*) from predictions where model = $1 and status = 'queued'),
                    (select count(*) from workers where $1 = any (models) and phase = 'ready')",
        )
        .bind(model)
        .fetch_one(&self.pool)
        .await?;
        Ok((queued.unsigned_abs(), workers.unsigned_abs()))
    }

    /// Extends the lease of a worker's claims and learns which of them to stop. A claim that does not come back has been
    /// taken away.
    pub async fn renew(
        &self,
        worker_id: Uuid,
        claims: &[(PredictionId, i32)],
        lease: Duration,
    ) -> Result<Vec<Renewal>> {
        let (ids, attempts): (Vec<Uuid>, Vec<i32>) =
            claims.iter().map(|(id, attempt)| (id.as_uuid(), *attempt)).unzip();
        let renewed: Vec<(Uuid, bool)> = sqlx::query_as(concat!(
            "with locked as materialized (
                 -- In the order in which ends lock them.
                 select id from predictions where id = any ($2) and status = 'processing' order by id for no key update
             )
             update predictions set lease_until = now() + $4::bigint * interval '1 microsecond'
             from unnest($2::uuid[], $3::int[]) as claim (claimed_id, claimed_attempt)
             where id = claimed_id and attempt = claimed_attempt and worker_id = $1 and status = 'processing'
               -- Not one that was given up; one that only ran out may go on.
               and lease_until > 'epoch' and (select count(*) from locked) >= 0
             returning id, cancel_requested_at is not null, ",
            without_waiting!()
        ))
        .bind(worker_id)
        .bind(ids)
        .bind(attempts)
        .bind(microseconds(lease))
        .fetch_all(&self.pool)
        .await?;
        Ok(renewed.into_iter().map(|(id, cancel_requested)| Renewal { id: id.into(), cancel_requested }).collect())
    }

    /// Replaces the logs of a running prediction.
    pub async fn record_logs(&self, claim: &Claim, logs: &str) -> Result<()> {
        let (recorded, posted): (i64, i64) = sqlx::query_as(concat!(
            "with recorded as (
                 update predictions set logs = $4
                 where id = $1 and attempt = $2 and worker_id = $3 and status = 'processing'
                 returning id
             )",
            post_logs!(),
            "select (select count(*) from recorded), (select count(*) from posted), ",
            without_waiting!()
        ))
        .bind(claim.id.as_uuid())
        .bind(claim.attempt)
        .bind(claim.worker_id)
        .bind(logs)
        .fetch_one(&self.pool)
        .await?;
        if posted > 0 {
            self.changes.announce_posted();
        }
        if recorded == 0 { Err(Error::LeaseLost) } else { Ok(()) }
    }

    /// Puts a claimed prediction back in the queue because its worker is shutting down; it is nobody's fault and does
    /// not count as a loss. One that was to be canceled ends there, free of charge: nobody would stop the next run of it.
    /// Returns whether it is queued again.
    pub async fn hand_back(&self, claim: &Claim) -> Result<bool> {
        let row = sqlx::query(concat!(
            "with handed_back as (
                 update predictions set
                     status = case when cancel_requested_at is null then 'queued' else 'canceled' end,
                     lease_until = null,
                     completed_at = case when cancel_requested_at is not null then now() end,
                     device_us    = case when cancel_requested_at is not null then 0 end,
                     cost_nano    = case when cancel_requested_at is not null then 0 end,
                     failure_code = case when cancel_requested_at is not null and ",
            is_by_deadline!(),
            " then $4 end,
                     failure_message = case when cancel_requested_at is not null and ",
            is_by_deadline!(),
            " then $5 end
                 where id = $1 and attempt = $2 and worker_id = $3 and status = 'processing'
                 returning *
             ),
             ended as (select ",
            ended_columns!(),
            " from handed_back where completed_at is not null)",
            when_ended!(),
            "select status = 'queued' as is_queued, ",
            without_waiting!(),
            " from handed_back",
        ))
        .bind(claim.id.as_uuid())
        .bind(claim.attempt)
        .bind(claim.worker_id)
        .bind(FailureCode::DeadlineExceeded.as_str())
        .bind(DEADLINE_MESSAGE)
        .fetch_optional(&self.pool)
        .await?;
        let is_queued = row.ok_or(Error::LeaseLost)?.try_get("is_queued")?;
        match is_queued {
            true => self.changes.announce_queued(),
            false => {
                self.until_safe(claim.id, Milestone::Ended).await?;
                metrics::prediction_ended("canceled", claim.input.mode());
                self.changes.announce_changed(claim.id);
            }
        }
        Ok(is_queued)
    }

    /// Lets a claim go whose worker cannot run it: the next sweep takes it for lost, and counts it.
    pub async fn give_up(&self, claim: &Claim) -> Result<()> {
        let given_up = sqlx::query(
            // Out of reach of a renewal that is under way.
            "update predictions set lease_until = 'epoch'
             where id = $1 and attempt = $2 and worker_id = $3 and status = 'processing'",
        )
        .bind(claim.id.as_uuid())
        .bind(claim.attempt)
        .bind(claim.worker_id)
        .execute(&self.pool)
        .await?;
        if given_up.rows_affected() == 0 { Err(Error::LeaseLost) } else { Ok(()) }
    }
}
