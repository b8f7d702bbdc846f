//! When what was written is safe: statements that do not wait for the disk, and those who do before they tell anybody.
//!
//! A statement that waits for the disk at its commit keeps its locks meanwhile, and all creates and ends of an account with
//! limits lock the account's row: they would be made one after the other, as fast as the disk is. So these statements
//! commit without waiting ([`without_waiting`]), and before their effect is told to anybody [`Store::until_durable`] waits,
//! once for everybody who has come meanwhile.
//!
//! The database's log is one sequence, and a crash takes away its unsaved end: with a transaction go all that came after it
//! and may have seen it. So the books add up after a crash as well, and what was told stays true.
//!
//! Who waited through such a crash is told of it: a database that has started again saves with success what came after, and
//! knows nothing of what was lost. So a flush says since when the database it saved has run without losing its memory, and
//! vouches only for what was written later.
//!
//! What is told to nobody as done needs no wait at all: a claim, a renewed lease, logs, that a webhook was tried. Losing
//! one in a crash of the database has the same effect as losing the worker or the deliverer who made it.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Result, Store, predictions::Row, together::Together};
use crate::domain::PredictionId;

/// So many ends of this process's own are known to be safe. Whoever waits for one reads it at once.
const REMEMBERED: usize = 512;

/// A disk that takes longer is as good as away.
const PATIENCE: Duration = Duration::from_secs(10);

/// A column of a statement's last `select` or `returning`, which makes its transaction, and no other, commit without
/// waiting for the disk. In a statement that yields no row it does nothing.
macro_rules! without_waiting {
    () => {
        "set_config('synchronous_commit', 'off', true)"
    };
}
pub(super) use without_waiting;

/// Those of this process that wait for the disk. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Durability {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    flushes: Together<Flush>,
    /// Predictions whose end is safe, the latest last.
    safe: Mutex<VecDeque<PredictionId>>,
}

/// A flush that succeeded.
#[derive(Clone, Copy, Debug)]
struct Flush {
    /// When we heard of it.
    at: Instant,
    /// For how long, at least, the database has run by then without losing its memory.
    runs_for: Duration,
}

impl Flush {
    /// Whether what was written by then, and before this flush, is saved.
    fn vouches_for(self, written: Instant) -> bool {
        self.at.saturating_duration_since(written) < self.runs_for
    }
}

impl Durability {
    fn safe(&self) -> MutexGuard<'_, VecDeque<PredictionId>> {
        // Nothing under the lock can leave it half changed.
        self.shared.safe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, id: PredictionId) {
        let mut safe = self.safe();
        if safe.len() == REMEMBERED {
            safe.pop_front();
        }
        safe.push_back(id);
    }

    fn remembers(&self, id: PredictionId) -> bool {
        self.safe().iter().rev().any(|safe| *safe == id)
    }
}

impl Store {
    /// Returns when everything is on the disk whose statement had returned, in whatever process, before this was called;
    /// and, if the database has a synchronous standby, there as well. Fails if the database may have crashed meanwhile.
    pub(super) async fn until_durable(&self) -> Result<()> {
        let written = Instant::now();
        // Whoever comes is let go by itself: behind one who waits for a database that has fallen silent come others, who would
        // wait for it one after the other.
        let saved = tokio::time::timeout(PATIENCE, self.durability.shared.flushes.result(self.flush())).await;
        let flush = saved.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()))?;
        if !flush.vouches_for(written) {
            // Who asks again may be told, also where nobody sweeps.
            self.note_timeline().await?;
            let restarted = io::Error::new(io::ErrorKind::ConnectionReset, "the database has started again meanwhile");
            return Err(sqlx::Error::Io(restarted).into());
        }
        Ok(())
    }

    /// Saves all that was written.
    ///
    /// A crash ends every connection, so one that was there before is proof enough. If it is young, the database is asked when
    /// it started, and when it last started again after one of its processes had crashed: its checkpointer is as old as that.
    /// (Roles without `pg_read_all_stats` do not see the latter.) A replica that was promoted has no memory of its own of what
    /// came before, whatever its connections saw of it: it counts from when that was noticed, and vouches for nothing until then.
    async fn flush(&self) -> Result<Flush> {
        // The least that can be written. Its own commit waits, and with it everything that was written before.
        let age: f64 = sqlx::query_scalar(
            "select extract(epoch from clock_timestamp() - greatest(case
                 when backend_start < clock_timestamp() - interval '1 minute' then backend_start
                 else least(backend_start, greatest(
                     pg_postmaster_start_time(),
                     (select max(backend_start) from pg_stat_get_activity(null) where backend_type = 'checkpointer')))
             end, coalesce((select begun_at from chores where name = 'timeline ' || timeline()), clock_timestamp())))::float8
             from pg_stat_get_activity(pg_backend_pid()), pg_logical_emit_message(true, 'fourstep', '')",
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Flush { at: Instant::now(), runs_for: Duration::from_secs_f64(age.max(0.0)) })
    }

    /// Returns when the end of a prediction, whose statement has returned, may be told to anybody.
    pub(super) async fn until_end_is_safe(&self, id: PredictionId) -> Result<()> {
        self.until_durable().await?;
        self.durability.remember(id);
        Ok(())
    }

    /// Returns when what is read of a prediction by its id may be told to anybody. An end can be read a moment before it is
    /// safe; that it was made cannot, since nobody knows the id before.
    pub(super) async fn until_safe_to_tell(&self, row: Option<&Row>) -> Result<()> {
        if row.is_some_and(|row| row.ended_lately && !self.durability.remembers(row.id.into())) {
            self.until_durable().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_vouches_for_what_was_written_since_the_database_has_run() {
        let written = Instant::now();
        let at = written + Duration::from_secs(2);
        assert!(Flush { at, runs_for: Duration::from_secs(3) }.vouches_for(written));
        assert!(!Flush { at, runs_for: Duration::from_secs(1) }.vouches_for(written), "it started again in between");
    }
}
