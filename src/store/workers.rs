//! What workers say of themselves, and the lock that says they live.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{ConnectOptions, FromRow, PgConnection, Row as _};
use uuid::Uuid;

use super::{Error, Result, Store, connections::Connections, promptly};

/// How far a worker has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reads its weights.
    Loading,
    /// Runs its first prediction, for nobody.
    WarmingUp,
    /// Takes predictions.
    Ready,
    /// Finishes what it holds and takes nothing more.
    Draining,
}

impl Phase {
    /// The word used in the database and in readiness answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::WarmingUp => "warming_up",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// A worker's own row.
#[derive(Clone, Debug)]
pub struct WorkerRecord {
    /// Chosen at its start.
    pub id: Uuid,
    /// Slugs of the models it runs.
    pub models: Vec<String>,
    /// The device in words.
    pub device: String,
    /// The machine's name.
    pub host: String,
    /// How far it is.
    pub phase: Phase,
    /// Of the phase, 0 to 100.
    pub percent: i16,
    /// How long a picture takes on its device, if it has made one.
    pub picture: Option<Duration>,
}

/// A worker as the others see it.
#[derive(Clone, Debug, FromRow)]
pub struct SeenWorker {
    /// Chosen at its start.
    pub id: Uuid,
    /// Slugs of the models it takes predictions for.
    pub models: Vec<String>,
    /// The device in words.
    pub device: String,
    /// The machine's name.
    pub host: String,
    /// The word of its phase.
    pub phase: String,
    /// Of the phase, 0 to 100.
    pub percent: i16,
    /// When it came.
    pub started_at: DateTime<Utc>,
    /// How long it has said nothing.
    pub silent_seconds: i64,
    /// How many predictions it holds now.
    pub running: i64,
    /// How long a picture takes on its device, microseconds, if it has made one.
    pub picture_us: Option<i64>,
}

/// Whether the server only reads: a standby, or one that was told to.
macro_rules! reads_only {
    () => {
        "(pg_is_in_recovery() or current_setting('transaction_read_only')::bool)"
    };
}

/// The connection whose life is the workers' life: it holds their advisory locks and the database drops them with it.
#[derive(Debug)]
pub struct WorkerSession {
    connection: PgConnection,
    /// What sweeps use.
    pool: Connections,
}

impl WorkerSession {
    /// Takes the lock that says this worker lives, if it is not taken yet. Only a session of this worker's own can have it,
    /// one that the database does not know to be dead: that is ended, and its lock handed over in the same moment, so that
    /// nobody finds the worker without. [`Error::Unavailable`] of a server that only reads, where no sweep looks for
    /// it.
    pub async fn hold(&mut self, worker_id: Uuid) -> Result<()> {
        self.started().await?;
        let held = sqlx::query(
            "with ghost as materialized (
                 select pg_terminate_backend(pid) from pg_locks
                 where locktype = 'advisory' and objsubid = 1 and granted and pid <> pg_backend_pid()
                   and database = (select oid from pg_database where datname = current_database())
                   and classid::bigint << 32 | objid::bigint = hashtextextended($1::text, 0)
             )
             select pg_advisory_lock(hashtextextended($1::text, 0)) from (select count(*) from ghost) as ended",
        )
        .bind(worker_id.to_string())
        .execute(&mut self.connection);
        promptly(held).await?;
        Ok(())
    }

    /// Whether the session, and with it every lock, is still there, and where sweeps see it: after a failover a name may
    /// lead to the old server for a while, which gives its locks to anybody.
    pub async fn check(&mut self) -> Result<()> {
        let started = self.started().await?;
        let elsewhere = sqlx::query_scalar(concat!("select pg_postmaster_start_time() <> $1 and not ", reads_only!()));
        match promptly(elsewhere.bind(started).fetch_one(&self.pool)).await {
            Ok(true) => {
                Err(Error::unknown("the workers' session is not on the server that the other connections lead to"))
            }
            // A pool that is exhausted says nothing about the session, nor does a connection of it that only reads.
            Ok(false) | Err(_) => Ok(()),
        }
    }

    /// When its server was started, which no two were in the same microsecond. Fails if that one only reads.
    async fn started(&mut self) -> Result<DateTime<Utc>> {
        let server = sqlx::query_as(concat!("select pg_postmaster_start_time(), ", reads_only!()));
        let (started, reads_only): (DateTime<Utc>, bool) = promptly(server.fetch_one(&mut self.connection)).await?;
        match reads_only {
            true => Err(Error::unknown("the workers' session is on a server that only reads")),
            false => Ok(started),
        }
    }
}

impl Store {
    /// Opens a session for workers' locks, outside the pool.
    pub async fn worker_session(&self) -> Result<WorkerSession> {
        Ok(WorkerSession { connection: promptly(self.options.connect()).await?, pool: self.pool.clone() })
    }

    /// Writes a worker's row as it is now, and how long it has had its device: the audit compares that with what was billed.
    pub async fn report_worker(&self, worker: &WorkerRecord) -> Result<()> {
        sqlx::query(
            "with session as (
                 insert into device_sessions (worker_id) values ($1)
                 on conflict (worker_id) do update set seen_at = now()
             )
             insert into workers (id, models, device, phase, percent, host, picture_us) values ($1, $2, $3, $4, $5, $6, $7)
             on conflict (id) do update set
                 phase = excluded.phase, percent = excluded.percent, picture_us = excluded.picture_us, seen_at = now()",
        )
        .bind(worker.id)
        .bind(&worker.models)
        .bind(&worker.device)
        .bind(worker.phase.as_str())
        .bind(worker.percent)
        .bind(&worker.host)
        .bind(worker.picture.map(super::predictions::microseconds))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Removes a worker that says goodbye.
    pub async fn forget_worker(&self, worker_id: Uuid) -> Result<()> {
        sqlx::query("delete from workers where id = $1").bind(worker_id).execute(&self.pool).await?;
        Ok(())
    }

    /// Removes workers that went without a goodbye.
    pub async fn forget_silent_workers(&self, silence: Duration) -> Result<u64> {
        let forgotten =
            sqlx::query("delete from workers where seen_at < now() - $1::bigint * interval '1 microsecond'")
                .bind(super::predictions::microseconds(silence))
                .execute(&self.pool)
                .await?;
        Ok(forgotten.rows_affected())
    }

    /// Every worker that has said something lately, by machine and then by age.
    pub async fn list_workers(&self) -> Result<Vec<SeenWorker>> {
        Ok(sqlx::query_as(
            "select id, models, device, host, phase, percent, started_at, picture_us,
                    greatest(0, extract(epoch from now() - seen_at))::bigint as silent_seconds,
                    (select count(*) from predictions where worker_id = workers.id and status = 'processing') as running
             from workers order by host, started_at, id",
        )
        .fetch_all(&self.pool)
        .await?)
    }

    /// The furthest any worker has got: its phase's word and percent. `None` when there is no worker.
    pub async fn readiest_worker(&self) -> Result<Option<(String, i16)>> {
        let row = sqlx::query(
            "select phase, percent from workers
             order by array_position(array['draining', 'loading', 'warming_up', 'ready'], phase) desc, percent desc
             limit 1",
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok((row.try_get("phase")?, row.try_get("percent")?))).transpose()
    }
}
