//! Look-ups for whoever has no key, a few at a time: they wait for each other, and the other connections to the database are
//! left to those who have one.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{Error, Result};

/// Of the connections, one in so many, or one.
const SHARE: u32 = 4;
/// How long a look-up waits for its turn.
const PATIENCE: Duration = Duration::from_secs(3);

/// The places of those who have no key.
#[derive(Debug)]
pub(super) struct Strangers(Semaphore);

impl Strangers {
    /// Of so many connections.
    pub(super) fn new(connections: u32) -> Self {
        Self(Semaphore::new((connections / SHARE).max(1) as usize))
    }

    /// A place for one look-up, given up on drop.
    pub(super) async fn take(&self) -> Result<SemaphorePermit<'_>> {
        let crowded = || Error::TooManyStrangers { retry_after: PATIENCE.as_secs() };
        timeout(PATIENCE, self.0.acquire()).await.ok().and_then(|place| place.ok()).ok_or_else(crowded)
    }
}
