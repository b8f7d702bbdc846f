//! Who is turned away at the door: a key that asks too often, and anybody while the queue is too long.
//!
//! Nothing here waits for the database. Rates are counted in this process; the queue's length is read by a task beside
//! the requests, and counted on here until the next reading.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use tokio::time::Instant;

use super::{Error, Result};
use crate::{
    domain::{Caller, Scope, queue_wait},
    store::Store,
};

/// How old a reading of the queue may be before there is another.
const READ_AGAIN: Duration = Duration::from_millis(250);
/// After how many requests keys that have long been silent are forgotten.
const FORGET_AFTER: u32 = 10_000;
/// A client is never told to come back later than this.
const LONGEST_RETRY: u64 = 60;

/// How much is let in. Zero is without a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Creates of a key, in a minute.
    pub creates_per_minute: u32,
    /// Other requests of a key, in a minute.
    pub requests_per_minute: u32,
    /// Requests of a key that are held at a time.
    pub max_held: u32,
    /// Predictions of a model that wait.
    pub max_queued: u32,
    /// How long a new prediction may have to wait.
    pub max_wait: Duration,
}

impl Limits {
    /// Everything is let in.
    pub const NONE: Self =
        Self { creates_per_minute: 0, requests_per_minute: 0, max_held: 0, max_queued: 0, max_wait: Duration::ZERO };
}

/// The two kinds of requests, which are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Makes a prediction.
    Create,
    /// Does not.
    Other,
}

/// The door.
#[derive(Debug)]
pub(super) struct Admission {
    limits: Limits,
    creates: Option<DefaultKeyedRateLimiter<i64>>,
    others: Option<DefaultKeyedRateLimiter<i64>>,
    clock: DefaultClock,
    checked: AtomicU32,
    queues: Arc<Mutex<HashMap<String, Reading>>>,
}

/// What is known of a model's queue.
#[derive(Clone, Copy, Debug)]
struct Reading {
    queued: u64,
    workers: u64,
    read_at: Option<Instant>,
    being_read: bool,
    /// Let in since the reading began, and perhaps not in it.
    let_in: u64,
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Self {
        let limiter =
            |per_minute| NonZeroU32::new(per_minute).map(|number| RateLimiter::keyed(Quota::per_minute(number)));
        Self {
            limits,
            creates: limiter(limits.creates_per_minute),
            others: limiter(limits.requests_per_minute),
            clock: DefaultClock::default(),
            checked: AtomicU32::new(0),
            queues: Arc::default(),
        }
    }

    /// Counts a request of this key and lets it in, or says when to come back.
    pub(super) fn check_rate(&self, caller: Caller, kind: Kind) -> Result<()> {
        let limiter = match kind {
            Kind::Create => &self.creates,
            Kind::Other => &self.others,
        };
        let Some(limiter) = limiter.as_ref().filter(|_| !caller.scopes.contains(Scope::Admin)) else {
            return Ok(());
        };
        if self.checked.fetch_add(1, Relaxed) % FORGET_AFTER == FORGET_AFTER - 1 {
            limiter.retain_recent();
        }
        limiter.check_key(&caller.key_id).map_err(|refusal| Error::TooManyRequests {
            retry_after: whole_seconds(refusal.wait_time_from(self.clock.now())),
        })
    }

    /// Lets a new prediction of a model in if the queue is short enough, and counts it.
    pub(super) fn check_queue(&self, store: &Store, model: &str, run: Duration) -> Result<()> {
        let Limits { max_queued, max_wait, .. } = self.limits;
        if max_queued == 0 && max_wait.is_zero() {
            return Ok(());
        }
        let Reading { queued, workers, .. } = self.reading(store, model);
        let wait = queue_wait(queued, workers, run);
        let too_long = max_queued > 0 && queued >= max_queued.into();
        let too_slow = !max_wait.is_zero() && wait > max_wait;
        if too_long || too_slow {
            // By then about one place for each worker is free.
            return Err(Error::Overloaded { retry_after: whole_seconds(run.max(wait.saturating_sub(max_wait) / 2)) });
        }
        if let Some(reading) = self.lock().get_mut(model) {
            reading.queued += 1;
            reading.let_in += 1;
        }
        Ok(())
    }

    /// What is known of a model's queue. A reading that is too old is used all the same, and another one begun.
    fn reading(&self, store: &Store, model: &str) -> Reading {
        let mut queues = self.lock();
        let unknown = Reading { queued: 0, workers: 0, read_at: None, being_read: false, let_in: 0 };
        let reading = queues.entry(model.to_owned()).or_insert(unknown);
        let is_old = reading.read_at.is_none_or(|read_at| read_at.elapsed() >= READ_AGAIN);
        if is_old && !reading.being_read {
            (reading.being_read, reading.let_in) = (true, 0);
            let (store, queues, model) = (store.clone(), Arc::clone(&self.queues), model.to_owned());
            tokio::spawn(async move {
                let read = store.queue_depth(&model).await;
                let mut queues = queues.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(reading) = queues.get_mut(&model) else { return };
                (reading.being_read, reading.read_at) = (false, Some(Instant::now()));
                match read {
                    Ok((queued, workers)) => (reading.queued, reading.workers) = (queued + reading.let_in, workers),
                    Err(error) => tracing::debug!(%error, "The queue's length could not be read"),
                }
            });
        }
        *reading
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Reading>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At least one, at most a minute.
fn whole_seconds(duration: Duration) -> u64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    seconds.clamp(1, LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Scopes;

    #[test]
    fn a_retry_is_in_whole_seconds_between_one_and_a_minute() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (3_600_000, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own_and_the_operators_has_none() {
        let door = Admission::new(Limits { creates_per_minute: 2, ..Limits::NONE });
        let caller = |key_id, scopes| Caller { account_id: 1, key_id, scopes };
        let create = |caller| door.check_rate(caller, Kind::Create).is_ok();
        assert_eq!([1, 2, 3].map(|_| create(caller(1, Scopes::USUAL))), [true, true, false]);
        assert!(create(caller(2, Scopes::USUAL)));
        assert!(door.check_rate(caller(1, Scopes::USUAL), Kind::Other).is_ok());
        assert!((0..100).all(|_| create(caller(3, Scopes::ALL))));
    }
}
