//! Requests that are held: how many a key may have at a time, and when a shutdown lets them go.
//!
//! Each takes a connection of the server for as long as it is held, a minute for a wait and longer for a stream, so one
//! key must not have them all. Counted in this process; whoever hangs up makes room.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{Error, PredictionService, Result};
use crate::{
    domain::{Caller, Scope},
    metrics,
};

/// All who are held.
#[derive(Debug)]
pub(super) struct Holding {
    /// Of a key; zero is without a limit.
    most: u32,
    by_key: Arc<Mutex<HashMap<i64, u32>>>,
    /// When those are let go who can come back.
    draining: CancellationToken,
    /// Those who cannot, and when they are let go.
    results: TaskTracker,
    given_up: CancellationToken,
}

impl Holding {
    pub(super) fn new(most: u32, draining: CancellationToken) -> Self {
        Self { most, by_key: Arc::default(), draining, results: TaskTracker::new(), given_up: CancellationToken::new() }
    }

    fn place(&self, caller: Caller) -> Result<Option<Place>> {
        if self.most == 0 || caller.scopes.contains(Scope::Admin) {
            return Ok(None);
        }
        let mut by_key = lock(&self.by_key);
        let held = by_key.entry(caller.key_id).or_default();
        if *held >= self.most {
            return Err(Error::TooManyHeld { most: self.most });
        }
        *held += 1;
        Ok(Some(Place { by_key: Arc::clone(&self.by_key), key_id: caller.key_id }))
    }
}

/// A request that is held, until dropped.
#[derive(Debug)]
pub struct Held {
    pub(super) caller: Caller,
    end: CancellationToken,
    /// Of those who are counted.
    _place: Option<Place>,
    /// Of those who are waited for.
    _result: Option<TaskTrackerToken>,
}

impl Held {
    fn new(caller: Caller, end: &CancellationToken, place: Option<Place>, result: Option<TaskTrackerToken>) -> Self {
        metrics::request_held();
        Self { caller, end: end.clone(), _place: place, _result: result }
    }

    /// Returns when the server shuts down and holds it no longer.
    pub(super) async fn let_go(&self) {
        self.end.cancelled().await;
    }

    /// Whether it is so.
    pub(super) fn is_let_go(&self) -> bool {
        self.end.is_cancelled()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        metrics::request_let_go();
    }
}

/// One of those that a key may have.
#[derive(Debug)]
struct Place {
    by_key: Arc<Mutex<HashMap<i64, u32>>>,
    key_id: i64,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut held) = lock(&self.by_key).entry(self.key_id) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

fn lock(by_key: &Mutex<HashMap<i64, u32>>) -> MutexGuard<'_, HashMap<i64, u32>> {
    // Nothing under the lock can leave it half changed.
    by_key.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PredictionService {
    /// Holds a request whose client can come back: until the server shuts down.
    pub fn hold(&self, caller: Caller) -> Result<Held> {
        let holding = &self.shared.holding;
        Ok(Held::new(caller, &holding.draining, holding.place(caller)?, None))
    }

    /// Holds a request whose answer has to have the result, which its client would make again: a shutdown waits for it.
    /// To be asked before anything is made; a server that shuts down begins with none.
    pub fn hold_for_result(&self, caller: Caller) -> Result<Held> {
        let holding = &self.shared.holding;
        let place = holding.place(caller)?;
        let token = holding.results.token();
        if holding.draining.is_cancelled() {
            return Err(Error::Unavailable(anyhow::anyhow!("a request would end with the server")));
        }
        Ok(Held::new(caller, &holding.given_up, place, Some(token)))
    }

    /// Answers everybody who waits: at once those who can come back, and the others when they have what they wait for,
    /// or when nothing more `may_come` for them.
    pub async fn drain(&self, may_come: impl Future<Output = ()>) {
        let Holding { draining, results, given_up, .. } = &self.shared.holding;
        draining.cancel();
        results.close();
        tokio::select! {
            biased;
            () = results.wait() => {}
            () = may_come => {
                tracing::info!("{} requests are answered without their results; their predictions go on", results.len());
            }
        }
        given_up.cancel();
    }
}
