//! The end that a worker brings a prediction to.

use sqlx::{FromRow as _, Row as _, postgres::PgRow, types::Json};
use uuid::Uuid;

use super::{
    Error, Result, Store,
    durable::{Milestone, without_waiting},
    ended::{DEADLINE_MESSAGE, when_ended},
    predictions::{Row, columns, microseconds},
    queue::{Claim, is_by_deadline},
};
use crate::{
    domain::{Artifact, FailureCode, NanoUsd, Outcome, Prediction},
    metrics,
};

/// How a claim ended, as it will be in the row.
#[derive(Debug)]
pub(super) struct End {
    id: Uuid,
    attempt: i32,
    worker_id: Uuid,
    status: &'static str,
    output: Option<Json<Vec<Artifact>>>,
    failure_code: Option<&'static str>,
    failure_message: Option<String>,
    device_us: i64,
    cost: NanoUsd,
    logs: String,
}

/// The row of a prediction that was ended, or nothing if it was not to be ended by this claim.
pub(super) type Ended = Option<PgRow>;

impl End {
    /// Time beyond the prediction's limit is not billed, so that it costs no more than was held.
    fn of(claim: &Claim, outcome: &Outcome, logs: &str) -> Self {
        let limit = claim.longest();
        let (output, failure) = match outcome {
            Outcome::Succeeded { output, .. } => (Some(Json(output.clone())), None),
            Outcome::Failed { failure, .. } => (None, Some(failure)),
            Outcome::Canceled { .. } => (None, None),
        };
        Self {
            id: claim.id.as_uuid(),
            attempt: claim.attempt,
            worker_id: claim.worker_id,
            status: outcome.status().as_str(),
            output,
            failure_code: failure.map(|failure| failure.code.as_str()),
            failure_message: failure.map(|failure| failure.message.clone()),
            device_us: microseconds(outcome.device_time().min(limit)),
            cost: claim.cost(outcome),
            logs: logs.to_owned(),
        }
    }
}

impl Store {
    /// Ends a prediction, charges for it and gives back what was held of it beyond its cost, in one statement, which ends
    /// all that this process has to end by then. Returns what it cost.
    ///
    /// Exactly one of all attempts can do this; the others get [`Error::LeaseLost`] and have changed nothing.
    pub async fn finish(&self, claim: &Claim, outcome: &Outcome, logs: &str) -> Result<NanoUsd> {
        let end = End::of(claim, outcome, logs);
        let row = self.ends.done(end, async |ends: &[End]| self.end(ends).await).await?;
        self.tell_end(claim, outcome, &row.ok_or(Error::LeaseLost)?).await
    }

    /// What [`Self::finish`] does, after one that failed as [`Error::Unavailable`] and may have ended the prediction all
    /// the same: the end is there, it may only have to be saved. [`Error::LeaseLost`] if it is not, or another's.
    pub async fn confirm_finish(&self, claim: &Claim, outcome: &Outcome) -> Result<NanoUsd> {
        let end = End::of(claim, outcome, "");
        let row = sqlx::query(concat!(
            "select ",
            columns!(),
            " from predictions
             where id = $1 and attempt = $2 and worker_id = $3 and status = $4 and device_us = $5 and cost_nano = $6"
        ))
        .bind(end.id)
        .bind(end.attempt)
        .bind(end.worker_id)
        .bind(end.status)
        .bind(end.device_us)
        .bind(end.cost.get())
        .fetch_optional(&self.pool)
        .await?;
        self.tell_end(claim, outcome, &row.ok_or(Error::LeaseLost)?).await
    }

    /// Tells of the end of a claim, when it is safe. Returns what it cost.
    async fn tell_end(&self, claim: &Claim, outcome: &Outcome, row: &PgRow) -> Result<NanoUsd> {
        let cost = claim.cost(outcome);
        self.until_safe(claim.id, Milestone::Ended).await?;
        metrics::prediction_ended(outcome.status().as_str(), claim.input.mode());
        metrics::charged(&claim.model, claim.key_id, cost.get());
        self.changes.announce_ended(claim.id, || {
            let prediction = Row::from_row(row).map_err(Error::from).and_then(Prediction::try_from);
            // Whoever waits reads it then, and learns why.
            prediction.inspect_err(|error| tracing::debug!(%error, "An end cannot be read")).ok()
        });
        Ok(cost)
    }

    /// The row of each that was still in the hands of who held it. They are locked in the order of their ids first: leases
    /// are renewed for several at a time, too.
    async fn end(&self, ends: &[End]) -> Result<Vec<Ended>> {
        let rows = sqlx::query(concat!(
            "with told as materialized (
                 select * from unnest($1::uuid[], $2::int[], $3::uuid[], $4::text[], $5::jsonb[], $6::text[], $7::text[],
                                      $8::bigint[], $9::bigint[], $10::text[]) with ordinality
                     as told (told_id, told_attempt, told_worker, told_status, told_output, told_code, told_message,
                              told_device_us, told_cost, told_logs, told_place)
                 -- There are no more. But of an array whose length it does not know the planner expects ten, for which it
                 -- would rather read a whole small table, and go on doing so when that has grown.
                 limit $13
             ),
             locked as materialized (
                 select id from predictions where id in (select told_id from told) and status = 'processing'
                 order by id for no key update
             ),
             ended as (
                 update predictions set
                     status = told_status,
                     output = told_output,
                     failure_code = case when told_status = 'canceled' and ",
            is_by_deadline!(),
            " then $11 else told_code end,
                     failure_message = case when told_status = 'canceled' and ",
            is_by_deadline!(),
            " then $12 else told_message end,
                     device_us = told_device_us,
                     cost_nano = told_cost,
                     logs = told_logs,
                     completed_at = now(),
                     lease_until = null
                 from told
                 where id = told_id and attempt = told_attempt and worker_id = told_worker and status = 'processing'
                   -- Counted only to have them locked first.
                   and (select count(*) from locked) >= 0
                 returning predictions.*, told_place
             )",
            when_ended!(),
            "select ",
            columns!(),
            ", told_place, ",
            without_waiting!(),
            " from ended",
        ))
        .bind(ends.iter().map(|end| end.id).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.attempt).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.worker_id).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.status).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.output.as_ref()).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.failure_code).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.failure_message.as_deref()).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.device_us).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.cost.get()).collect::<Vec<_>>())
        .bind(ends.iter().map(|end| end.logs.as_str()).collect::<Vec<_>>())
        .bind(FailureCode::DeadlineExceeded.as_str())
        .bind(DEADLINE_MESSAGE)
        .bind(ends.len() as i64)
        .fetch_all(&self.pool)
        .await?;
        let mut ended: Vec<Ended> = ends.iter().map(|_| None).collect();
        for row in rows {
            // Of two that hold the same attempt, which only a crash of the database can bring about, this is the one.
            let place: i64 = row.try_get("told_place")?;
            if let Some(ended) = usize::try_from(place - 1).ok().and_then(|index| ended.get_mut(index)) {
                *ended = Some(row);
            }
        }
        Ok(ended)
    }
}
