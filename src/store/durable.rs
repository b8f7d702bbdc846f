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
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Result, Store, predictions::Row, single_flight::SingleFlight};
use crate::domain::PredictionId;

/// Of so many predictions a process remembers what is safe: those of a busy minute, in which others wait for the disk.
const REMEMBERED: usize = 4096;

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
    flushes: SingleFlight<Flush>,
    safe: Mutex<Safe>,
}

/// What becomes of a prediction and may be told only when it is safe, in the order of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Milestone {
    Created,
    Ended,
}

/// The predictions of which this process knows what is safe.
#[derive(Debug, Default)]
struct Safe {
    /// The last milestone of each that is on the disk. With it are those before.
    milestones: HashMap<PredictionId, Milestone>,
    /// The same predictions, the latest last.
    order: VecDeque<PredictionId>,
}

impl Safe {
    fn remember(&mut self, id: PredictionId, milestone: Milestone) {
        if let Some(known) = self.milestones.get_mut(&id) {
            *known = milestone.max(*known);
            return;
        }
        if self.order.len() == REMEMBERED {
            self.order.pop_front().and_then(|oldest| self.milestones.remove(&oldest));
        }
        self.order.push_back(id);
        self.milestones.insert(id, milestone);
    }

    fn remembers(&self, id: PredictionId, milestone: Milestone) -> bool {
        self.milestones.get(&id).is_some_and(|known| *known >= milestone)
    }
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
    fn safe(&self) -> MutexGuard<'_, Safe> {
        // Nothing under the lock panics.
        self.shared.safe.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// (Roles without `pg_read_all_stats` do not see the latter.) A promoted replica cannot vouch
    /// for what was written before its promotion, even over connections it kept. It counts from the moment the promotion
    /// was noticed, and until then vouches for nothing.
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

    /// Returns when the create or the end of a prediction, whose statement has returned, may be told to anybody. Whoever
    /// reads it later in this process need not wait.
    pub(super) async fn until_safe(&self, id: PredictionId, milestone: Milestone) -> Result<()> {
        self.until_durable().await?;
        self.durability.safe().remember(id, milestone);
        Ok(())
    }

    /// Returns when what is read of a prediction by its id may be told to anybody. Both its end and that it was made can be
    /// read a moment before they are safe: a client may have chosen the id, and so know it before.
    pub(super) async fn until_safe_to_tell(&self, row: Option<&Row>) -> Result<()> {
        let Some((row, milestone)) = row.and_then(|row| Some((row, row.lately()?))) else { return Ok(()) };
        let id = row.id.into();
        let is_safe = self.durability.safe().remembers(id, milestone);
        if is_safe { Ok(()) } else { self.until_safe(id, milestone).await }
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

    #[test]
    fn an_end_that_is_safe_says_so_of_the_create_and_not_the_other_way_round() {
        let (made, ended) = (PredictionId::generate(), PredictionId::generate());
        let mut safe = Safe::default();
        safe.remember(made, Milestone::Created);
        assert!(safe.remembers(made, Milestone::Created) && !safe.remembers(made, Milestone::Ended));
        safe.remember(ended, Milestone::Ended);
        safe.remember(ended, Milestone::Created);
        assert!(safe.remembers(ended, Milestone::Created) && safe.remembers(ended, Milestone::Ended));
        (1..REMEMBERED).for_each(|_| safe.remember(PredictionId::generate(), Milestone::Created));
        assert!(!safe.remembers(made, Milestone::Created), "there is no room for it");
        assert!(safe.remembers(ended, Milestone::Ended), "there is for those that came later");
        assert_eq!((safe.order.len(), safe.milestones.len()), (REMEMBERED, REMEMBERED));
    }
}
