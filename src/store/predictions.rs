//! Predictions as their owners meet them: read, listed, canceled; `create` has how they are made. Every statement names
//! the account, so that one owner's predictions do not exist for another.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

use super::{
    Error, Result, Store,
    durable::{Milestone, without_waiting},
    ended::{ended_columns, when_ended},
    per_key::PerKey,
    single_flight::SingleFlight,
};
use crate::domain::{
    Artifact, Failure, FailureCode, Idempotency, Input, NanoUsd, NewPrediction, Prediction, PredictionId,
    PricePerSecond, QueuePlace, Status, queue_wait,
};
use crate::metrics;

/// One row takes no time. A database that takes longer to find it is as good as away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads of a prediction by its account, which those who want the same one share.
pub(super) type Reads = PerKey<(i64, PredictionId), SingleFlight<Option<Arc<Prediction>>>>;

/// The columns of [`Row`]. Spelled out, because `*` in a prepared statement breaks when a newer version adds a column.
macro_rules! columns {
    () => {
        "id, account_id, dialect, model, version, raw_input, input, status, attempt, cancel_requested_at, price_nano, \
         device_us, cost_nano, output, failure_code, failure_message, logs, created_at, started_at, completed_at, \
         deadline, data_removed_at, time_limit_us, key_id, request_id, trace_parent, \
         created_at > now() - interval '1 minute' as created_lately, \
         coalesce(completed_at > now() - interval '1 minute', false) as ended_lately"
    };
}
pub(super) use columns;

/// Which rows a [`ListFilter`] lets through.
macro_rules! listed {
    () => {
        listed!("($2::text[] is null or status = any ($2))")
    };
    ($status:literal) => {
        concat!(
            " where account_id = $1
            and ",
            $status,
            "
            and ($3::text is null or model = $3)
            and ($4::timestamptz is null or created_at >= $4)
            and ($5::timestamptz is null or created_at < $5)
            and ($6::text[] is null or failure_code = any ($6))"
        )
    };
}

/// The rows of a list in their order, as far as they are wanted, of those in a status that is like this.
macro_rules! in_order {
    ($status:literal, $wanted:literal) => {
        concat!(
            "select * from predictions",
            listed!($status),
            " and ($7::timestamptz is null or (created_at, id) < ($7, $8))
             order by created_at desc, id desc ",
            $wanted
        )
    };
}

/// A row as the database returns it.
#[derive(Debug, FromRow)]
pub(super) struct Row {
    pub(super) id: Uuid,
    account_id: i64,
    dialect: String,
    model: String,
    version: String,
    raw_input: serde_json::Value,
    input: Json<Input>,
    status: String,
    pub(super) attempt: i32,
    cancel_requested_at: Option<DateTime<Utc>>,
    price_nano: i64,
    device_us: Option<i64>,
    cost_nano: Option<i64>,
    output: Option<Json<Vec<Artifact>>>,
    failure_code: Option<String>,
    failure_message: Option<String>,
    logs: String,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    deadline: Option<DateTime<Utc>>,
    data_removed_at: Option<DateTime<Utc>>,
    time_limit_us: Option<i64>,
    pub(super) key_id: i64,
    pub(super) request_id: Option<String>,
    pub(super) trace_parent: Option<String>,
    /// So lately that it may not be on the disk: the database saves within seconds what nobody waits for.
    created_lately: bool,
    ended_lately: bool,
}

impl Row {
    pub(super) fn time_limit(&self) -> Option<Duration> {
        self.time_limit_us.map(|microseconds| Duration::from_micros(microseconds.unsigned_abs()))
    }

    pub(super) const fn price(&self) -> PricePerSecond {
        PricePerSecond::new(self.price_nano)
    }

    /// What became of it so lately that it may not be on the disk.
    pub(super) fn lately(&self) -> Option<Milestone> {
        let created = self.created_lately.then_some(Milestone::Created);
        self.ended_lately.then_some(Milestone::Ended).or(created)
    }
}

impl TryFrom<Row> for Prediction {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let failure = match (row.failure_code, row.failure_message) {
            (Some(code), Some(message)) => Some(Failure { code: code.parse()?, message }),
            _ => None,
        };
        Ok(Self {
            id: row.id.into(),
            account_id: row.account_id,
            dialect: row.dialect.parse()?,
            model: row.model,
            version: row.version,
            raw_input: row.raw_input,
            input: row.input.0,
            status: row.status.parse()?,
            output: row.output.map(|output| output.0),
            failure,
            logs: row.logs,
            attempt: row.attempt,
            cancel_requested: row.cancel_requested_at.is_some(),
            device_time: row.device_us.map(|microseconds| Duration::from_micros(microseconds.unsigned_abs())),
            cost: row.cost_nano.map(NanoUsd::new),
            created_at: row.created_at,
            started_at: row.started_at,
            completed_at: row.completed_at,
            deadline: row.deadline,
            data_removed: row.data_removed_at.is_some(),
        })
    }
}

/// Which predictions to list.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only those in one of these statuses.
    pub statuses: Option<Vec<Status>>,
    /// Only those that failed, or were canceled by other than their owner, for one of these reasons.
    pub failures: Option<Vec<FailureCode>>,
    /// Only those of the model with this slug.
    pub model: Option<String>,
    /// Only those created at this moment or later.
    pub from: Option<DateTime<Utc>>,
    /// Only those created before this moment.
    pub until: Option<DateTime<Utc>>,
    /// Only those after this one in the list, which is newest first.
    pub after: Option<Cursor>,
    /// Leaves out so many from the start.
    pub offset: u32,
    /// At most this many.
    pub limit: u32,
}

/// A place in the list: the prediction it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Its creation.
    pub created_at: DateTime<Utc>,
    /// Its id, for those created in the same microsecond.
    pub id: PredictionId,
}

impl Store {
    /// Whether the id or the idempotency key of a new prediction belongs to an earlier one.
    pub(super) async fn is_taken(&self, new: &NewPrediction) -> Result<bool> {
        Ok(sqlx::query_scalar(
            "select exists (select from predictions where id = $1)
                 or exists (select from predictions where account_id = $2 and idempotency_key = $3)",
        )
        .bind(new.id.as_uuid())
        .bind(new.account_id)
        .bind(new.idempotency.as_ref().map(|idempotency| idempotency.key.as_str()))
        .fetch_one(&self.pool)
        .await?)
    }

    /// The account's prediction that was made by this request under this key; none if another request used it.
    pub async fn find_repeated(&self, account_id: i64, idempotency: &Idempotency) -> Result<Option<Prediction>> {
        let row: Option<Row> = sqlx::query_as(concat!(
            "select ",
            columns!(),
            " from predictions where account_id = $1 and idempotency_key = $2 and request_hash = $3"
        ))
        .bind(account_id)
        .bind(&idempotency.key)
        .bind(&idempotency.request_hash[..])
        .fetch_optional(&self.pool)
        .await?;
        // Whoever makes it may be waiting for the disk yet.
        if row.is_some() {
            self.until_durable().await?;
        }
        row.map(Prediction::try_from).transpose()
    }

    /// One prediction of the account, as it is at some moment after this call. Those who ask for the same one at once share
    /// an answer, so that it does not matter how many wait for it.
    pub async fn get(&self, account_id: i64, id: PredictionId) -> Result<Option<Prediction>> {
        let reads = self.reads.guard((account_id, id));
        // In a box of its own, which only the one who reads needs.
        let read = reads.result(async { Box::pin(self.read(account_id, id)).await });
        // Whoever comes is let go by itself, as from `until_durable`; and all of them when the database falls silent.
        let read = self.pulse.unless_silent(PATIENCE, read).await?;
        Ok(read.map(Arc::unwrap_or_clone))
    }

    async fn read(&self, account_id: i64, id: PredictionId) -> Result<Option<Arc<Prediction>>> {
        let row: Option<Row> =
            sqlx::query_as(concat!("select ", columns!(), " from predictions where id = $1 and account_id = $2"))
                .bind(id.as_uuid())
                .bind(account_id)
                .fetch_optional(&self.pool)
                .await?;
        self.until_safe_to_tell(row.as_ref()).await?;
        Ok(row.map(Prediction::try_from).transpose()?.map(Arc::new))
    }

    /// The account's predictions, newest first. Of some statuses: the first ones of each, which an index has in order, so that
    /// a few among many are found without reading these.
    pub async fn list(&self, account_id: i64, filter: &ListFilter) -> Result<Vec<Prediction>> {
        let of_all = concat!(
            "select ",
            columns!(),
            " from (",
            in_order!("$2::text[] is null", "limit $9 offset $10"),
            ") as wanted order by created_at desc, id desc"
        );
        let of_some = concat!(
            "select ",
            columns!(),
            " from (select distinct unnest($2::text[]) as word) as asked cross join lateral (",
            in_order!("status = word", "limit $9::bigint + $10::bigint"),
            ") as first order by created_at desc, id desc limit $9 offset $10"
        );
        let statuses = status_words(filter);
        let rows: Vec<Row> = sqlx::query_as(if statuses.is_some() { of_some } else { of_all })
            .bind(account_id)
            .bind(statuses)
            .bind(&filter.model)
            .bind(filter.from)
            .bind(filter.until)
            .bind(failure_codes(filter))
            .bind(filter.after.map(|cursor| cursor.created_at))
            .bind(filter.after.map(|cursor| cursor.id.as_uuid()))
            .bind(i64::from(filter.limit))
            .bind(i64::from(filter.offset))
            .fetch_all(&self.pool)
            .await?;
        // Those who make or end some of them may be waiting for the disk yet.
        if !rows.is_empty() {
            self.until_durable().await?;
        }
        rows.into_iter().map(Prediction::try_from).collect()
    }

    /// How many predictions of the account a filter lets through, from whatever place and however many are listed at a
    /// time. Counts no further than `most`.
    pub async fn count(&self, account_id: i64, filter: &ListFilter, most: u32) -> Result<u64> {
        let count: i64 = sqlx::query_scalar(concat!(
            "select count(*) from (select from predictions",
            listed!(),
            " limit $7) as counted"
        ))
        .bind(account_id)
        .bind(status_words(filter))
        .bind(&filter.model)
        .bind(filter.from)
        .bind(filter.until)
        .bind(failure_codes(filter))
        .bind(i64::from(most))
        .fetch_one(&self.pool)
        .await?;
        Ok(count.unsigned_abs())
    }

    /// Cancels a prediction: a queued one at once and free of charge, a running one as soon as its worker hears of it.
    /// A terminal one stays as it is. Returns the prediction as it is now.
    ///
    /// Racing with a claim is safe: whichever locks the row first is seen by the other.
    pub async fn request_cancel(&self, account_id: i64, id: PredictionId) -> Result<Option<Prediction>> {
        let row: Option<Row> = sqlx::query_as(concat!(
            "with canceled as (
                 update predictions set
                     cancel_requested_at = coalesce(cancel_requested_at, now()),
                     status       = case status when 'queued' then 'canceled' else status end,
                     completed_at = case status when 'queued' then now() end,
                     device_us    = case status when 'queued' then 0 end,
                     cost_nano    = case status when 'queued' then 0 end
                 where id = $1 and account_id = $2 and status in ('queued', 'processing')
                 returning *
             ),
             ended as (select ",
            ended_columns!(),
            " from canceled where completed_at is not null)",
            when_ended!(),
            "select ",
            columns!(),
            ", ",
            without_waiting!(),
            " from canceled"
        ))
        .bind(id.as_uuid())
        .bind(account_id)
        .fetch_optional(&self.pool)
        .await?;
        match row {
            Some(row) => {
                // One that goes on has its end yet to be saved by whoever writes it.
                let milestone = if row.ended_lately { Milestone::Ended } else { Milestone::Created };
                self.until_safe(id, milestone).await?;
                self.changes.announce_changed(id);
                let prediction = Prediction::try_from(row)?;
                if prediction.status.is_terminal() {
                    metrics::prediction_ended(prediction.status.as_str(), prediction.input.mode());
                }
                Ok(Some(prediction))
            }
            None => self.get(account_id, id).await,
        }
    }

    /// Where a queued prediction stands: how many are ahead of it, and when it should be done given the time a run
    /// takes and the workers that are ready. Counts no further than a thousand.
    pub async fn queue_place(&self, prediction: &Prediction, run: Duration) -> Result<QueuePlace> {
        let (ahead, workers): (i64, i64) = sqlx::query_as(
            "select
                 (select count(*) from (
                      select from predictions
                      where model = $1 and status = 'queued'
                        and (priority, turn, created_at, id)
                            < (select priority, turn, created_at, id from predictions where id = $2)
                      limit 1000
                  ) as ahead),
                 (select count(*) from workers where $1 = any (models) and phase = 'ready')",
        )
        .bind(&prediction.model)
        .bind(prediction.id.as_uuid())
        .fetch_one(&self.pool)
        .await?;
        let (ahead, workers) = (ahead.unsigned_abs(), workers.unsigned_abs());
        Ok(QueuePlace { ahead, eta: queue_wait(ahead, workers, run).saturating_add(run) })
    }
}

/// The statuses of what a filter may let through. Where it asks for failures, those that have any: they are found
/// without reading the whole history, most of which succeeded.
fn status_words(filter: &ListFilter) -> Option<Vec<&'static str>> {
    let ListFilter { statuses, failures, .. } = filter;
    let is_asked_for = |status: &Status| statuses.as_ref().is_none_or(|statuses| statuses.contains(status));
    let may_have_failed = |status: &Status| match failures {
        Some(failures) => !failures.is_empty() && matches!(status, Status::Failed | Status::Canceled),
        None => true,
    };
    let words = Status::ALL.into_iter().filter(is_asked_for).filter(may_have_failed).map(Status::as_str);
    (statuses.is_some() || failures.is_some()).then(|| words.collect())
}

fn failure_codes(filter: &ListFilter) -> Option<Vec<&'static str>> {
    filter.failures.as_ref().map(|failures| failures.iter().map(|failure| failure.as_str()).collect())
}

/// A duration for a `bigint` of microseconds.
pub(super) fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{FailureCode, ListFilter, Status, status_words};

    #[test]
    fn failures_are_looked_for_only_where_there_are_any() {
        let words = |statuses: Option<&[Status]>, failures: Option<&[FailureCode]>| {
            let (statuses, failures) = (statuses.map(<[Status]>::to_vec), failures.map(<[FailureCode]>::to_vec));
            status_words(&ListFilter { statuses, failures, ..ListFilter::default() })
        };
        assert_eq!(words(None, None), None);
        assert_eq!(words(Some(&[Status::Queued]), None).unwrap(), ["queued"]);
        let internal = Some(&[FailureCode::Internal][..]);
        assert_eq!(words(None, internal).unwrap(), ["failed", "canceled"]);
        assert_eq!(words(Some(&[Status::Failed, Status::Succeeded]), internal).unwrap(), ["failed"]);
        assert!(words(Some(&[Status::Succeeded]), internal).unwrap().is_empty());
        // The vendor has words for what does not happen here.
        assert!(words(None, Some(&[])).unwrap().is_empty());
    }
}
