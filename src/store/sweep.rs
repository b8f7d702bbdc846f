//! The sweep: takes predictions from workers that are gone, and ends what has passed its deadline.

use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Error, Result, Store,
    ended::{DEADLINE_MESSAGE, ended_columns, when_ended},
    queue::is_by_deadline,
};
use crate::{
    domain::{FailureCode, Input, PredictionId, Status},
    metrics,
};

/// What a sweep did.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Lost by their workers and queued again.
    pub requeued: Vec<PredictionId>,
    /// Lost once too often, canceled while lost, or past their deadline: terminal now.
    pub ended: Vec<PredictionId>,
    /// Of those that ended before any worker had them: where the images are that they were to start from.
    pub unused_images: Vec<String>,
}

/// A prediction that was swept, as it is now.
#[derive(FromRow)]
struct Found {
    id: Uuid,
    #[sqlx(try_from = "String")]
    status: Status,
    /// Where the image is that it begins with.
    image: Option<String>,
    /// Whether a worker ever had it.
    has_begun: bool,
}

/// The columns of [`Found`].
macro_rules! found {
    () => {
        "id, status, input ->> 'image' as image, attempt > 0 as has_begun"
    };
}

/// Begins a statement that asks `is_lost!`.
macro_rules! with_alive {
    () => {
        "with alive as materialized (
             -- A lock on one bigint shows as its two halves.
             select classid::bigint << 32 | objid::bigint as key from pg_locks
             where locktype = 'advisory' and objsubid = 1 and granted
               and database = (select oid from pg_database where datname = current_database())
         ),
         settled as materialized (
             select from chores
             where name = 'timeline ' || timeline()
               and greatest(begun_at, pg_postmaster_start_time(), coalesce(
                       -- After the crash of one process all others begin anew: these first and when it is over. A
                       -- role that may not see them sees its own connection, which is no older.
                       (select max(backend_start) from pg_stat_get_activity(null)
                        where backend_type in ('checkpointer', 'walwriter')),
                       (select backend_start from pg_stat_get_activity(pg_backend_pid())))) < now() - interval '5 s'
         )"
    };
}

/// Whether a prediction's worker is gone.
macro_rules! is_lost {
    () => {
        "status = 'processing'
         and (lease_until < now()
              or (exists (select from settled)
                  and hashtextextended(worker_id::text, 0) not in (select key from alive)))"
    };
}

/// Whether a prediction has passed its deadline and nobody has been told.
macro_rules! is_late {
    () => {
        "deadline <= now() and status in ('queued', 'processing')
         and (status = 'queued' or cancel_requested_at is null)"
    };
}

/// Ends a statement that lists predictions, waiting for their row locks. `skip locked` would miss rows of a statement that
/// was just refused: its error arrives a moment before its locks are released.
macro_rules! when_free {
    () => {
        " order by id for update"
    };
}

impl Store {
    /// Takes predictions from workers that are gone, and ends what has passed its deadline. One that the database refuses to
    /// end stays as it is, is warned of, and keeps no other from being swept.
    ///
    /// A worker is gone when its session no longer holds its advisory lock, which the database notices in milliseconds,
    /// or, should its connection only hang, when its lease has run out. Just after a restart of the database, be it that of a
    /// single crashed process, or the promotion of its replica, nobody holds a lock yet, so for a few seconds only leases count. Being wrong is safe: the
    /// worker that was taken for dead is fenced.
    pub async fn sweep(&self, max_losses: i16) -> Result<Swept> {
        self.note_timeline().await?;
        let lost = match self.take_lost(max_losses, None).await {
            Err(Error::Database(_)) => self.take_each_lost(max_losses).await,
            taken => taken,
        };
        let late = match self.stop_late(None).await {
            Err(Error::Database(_)) => self.stop_each_late().await,
            stopped => stopped,
        };
        metrics::leases_expired(lost.as_ref().map_or(0, Vec::len) as u64);
        let mut swept = Swept::default();
        for Found { id, status, image, has_begun } in lost.iter().chain(&late).flatten() {
            let id = PredictionId::from(*id);
            match status {
                Status::Queued => swept.requeued.push(id),
                // Still running: its worker hears of the cancel below.
                Status::Processing => {}
                Status::Succeeded | Status::Failed | Status::Canceled => {
                    metrics::prediction_ended(status.as_str(), Input::mode_of(image.is_some()));
                    swept.ended.push(id);
                    swept.unused_images.extend(image.clone().filter(|_| !has_begun));
                }
            }
            self.changes.announce_changed(id);
        }
        swept.requeued.iter().for_each(|_| self.changes.announce_queued());
        lost.and(late).map(|_| swept)
    }

    /// Notes since when the database is what it is, if it was another the last time: a replica that was promoted since. Others
    /// are forgotten, since their numbers come again: an upgrade of Postgres begins anew.
    pub(super) async fn note_timeline(&self) -> Result<()> {
        sqlx::query(
            "with noted as (
                 insert into chores (name, begun_at) values ('timeline ' || timeline(), clock_timestamp())
                 on conflict do nothing
                 returning name
             )
             delete from chores using noted where chores.name like 'timeline %' and chores.name <> noted.name",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Takes all whose workers are gone, or only this one of them.
    async fn take_lost(&self, max_losses: i16, only: Option<Uuid>) -> Result<Vec<Found>> {
        Ok(sqlx::query_as(concat!(
            with_alive!(),
            ", lost as materialized (
                 select id as lost_id from predictions
                 where ",
            is_lost!(),
            " and ($4::uuid is null or id = $4)
                 for update skip locked
             ),
             judged as (
                 select lost_id, case
                     when cancel_requested_at is not null or deadline <= now() then 'canceled'
                     when losses + 1 >= $1 then 'failed'
                     else 'queued'
                 end as verdict
                 from lost join predictions on id = lost_id
             ),
             taken as (
                 update predictions set
                     status = verdict,
                     losses = losses + 1,
                     lease_until = null,
                     completed_at = case when verdict <> 'queued' then now() end,
                     device_us = case when verdict <> 'queued' then 0 end,
                     cost_nano = case when verdict <> 'queued' then 0 end,
                     failure_code = case when verdict = 'failed' then $2 when verdict = 'canceled' and ",
            is_by_deadline!(),
            " then $5 end,
                     failure_message = case when verdict = 'failed' then $3 when verdict = 'canceled' and ",
            is_by_deadline!(),
            " then $6 end
                 from judged
                 where id = lost_id
                 returning input, attempt, ",
            ended_columns!(),
            "),
             ended as (select * from taken where status <> 'queued')",
            when_ended!(),
            "select ",
            found!(),
            " from taken",
        ))
        .bind(max_losses)
        .bind(FailureCode::WorkerLost.as_str())
        .bind("every worker that ran this prediction was lost")
        .bind(only)
        .bind(FailureCode::DeadlineExceeded.as_str())
        .bind(DEADLINE_MESSAGE)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Takes each alone, when the database has refused all together.
    async fn take_each_lost(&self, max_losses: i16) -> Result<Vec<Found>> {
        let lost =
            sqlx::query_scalar(concat!(with_alive!(), "select id from predictions where ", is_lost!(), when_free!()));
        let lost: Vec<Uuid> = lost.fetch_all(&self.pool).await?;
        let mut taken = Vec::new();
        for id in lost {
            taken.extend(or_warn(id, self.take_lost(max_losses, Some(id)).await));
        }
        Ok(taken)
    }

    /// Ends all that are late and queued and stops those that run, or only this one of them.
    async fn stop_late(&self, only: Option<Uuid>) -> Result<Vec<Found>> {
        Ok(sqlx::query_as(concat!(
            "with overdue as materialized (
                 select id as late_id from predictions
                 where ",
            is_late!(),
            " and ($3::uuid is null or id = $3)
                 -- Who is at one has its turn; the next sweep comes soon.
                 for update skip locked
             ),
             late as (
                 update predictions set
                     cancel_requested_at = coalesce(cancel_requested_at, now()),
                     status          = case status when 'queued' then 'canceled' else status end,
                     completed_at    = case status when 'queued' then now() end,
                     device_us       = case status when 'queued' then 0 end,
                     cost_nano       = case status when 'queued' then 0 end,
                     failure_code    = case status when 'queued' then $1 end,
                     failure_message = case status when 'queued' then $2 end
                 from overdue where id = late_id
                 returning input, attempt, ",
            ended_columns!(),
            "),
             ended as (select * from late where status <> 'processing')",
            when_ended!(),
            "select ",
            found!(),
            " from late",
        ))
        .bind(FailureCode::DeadlineExceeded.as_str())
        .bind(DEADLINE_MESSAGE)
        .bind(only)
        .fetch_all(&self.pool)
        .await?)
    }

    /// Stops each alone, when the database has refused all together.
    async fn stop_each_late(&self) -> Result<Vec<Found>> {
        let late = sqlx::query_scalar(concat!("select id from predictions where ", is_late!(), when_free!()));
        let late: Vec<Uuid> = late.fetch_all(&self.pool).await?;
        let mut stopped = Vec::new();
        for id in late {
            stopped.extend(or_warn(id, self.stop_late(Some(id)).await));
        }
        Ok(stopped)
    }
}

/// What came of one, if the database let it.
fn or_warn(id: Uuid, found: Result<Vec<Found>>) -> Vec<Found> {
    found.inspect_err(|error| tracing::warn!(%error, "Could not sweep prediction {id}")).unwrap_or_default()
}
