//! Places for work that is done for a few at a time, of which no account has more than its share: what takes long for one
//! account makes that one wait, and not the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{Error, Result};

/// Of all places an account may have one in so many.
const SHARE: usize = 4;

/// A number of places.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    of_each: usize,
    /// Of those who have a place or wait for one, and perhaps of some who did.
    accounts: Mutex<HashMap<i64, Weak<Semaphore>>>,
    patience: Duration,
}

/// A place, given up on drop.
#[derive(Debug)]
pub(super) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_account: OwnedSemaphorePermit,
}

impl Places {
    /// So many, for which nobody waits longer than this.
    pub(super) fn new(all: usize, patience: Duration) -> Self {
        let of_each = (all / SHARE).max(1);
        Self { all: Arc::new(Semaphore::new(all)), of_each, accounts: Mutex::default(), patience }
    }

    /// A place, as soon as one is free for this account.
    pub(super) async fn take(&self, account_id: i64) -> Result<Place> {
        let own = self.of_account(account_id);
        // The semaphores are never closed.
        let both = async {
            // Its own first, so that in the line for all of them each account stands with its share alone.
            let _of_account = own.acquire_owned().await.ok()?;
            Some(Place { _of_all: Arc::clone(&self.all).acquire_owned().await.ok()?, _of_account })
        };
        let crowded = || Error::Crowded { retry_after: self.patience.as_secs().max(1) };
        timeout(self.patience, both).await.ok().flatten().ok_or_else(crowded)
    }

    fn of_account(&self, account_id: i64) -> Arc<Semaphore> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = accounts.get(&account_id).and_then(Weak::upgrade) {
            return own;
        }
        accounts.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.of_each));
        accounts.insert(account_id, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_has_its_share_and_the_others_have_theirs() {
        let places = Places::new(8, Duration::ZERO);
        let first = [places.take(1).await.expect("free"), places.take(1).await.expect("free")];
        assert!(matches!(places.take(1).await, Err(Error::Crowded { retry_after: 1 })));
        let mut others = Vec::new();
        for account in 2..5 {
            others.extend([places.take(account).await.expect("free"), places.take(account).await.expect("free")]);
        }
        assert!(places.take(5).await.is_err(), "there were only eight");
        drop(first);
        others.push(places.take(5).await.expect("free again"));
        drop(others);
        let _one = places.take(1).await.expect("free");
        assert_eq!(places.accounts.lock().expect("whole").len(), 1, "those who are gone are kept");
    }

    #[tokio::test]
    async fn whoever_waits_has_the_next_place_that_is_free() {
        let places = Places::new(2, Duration::from_secs(20));
        let place = places.take(1).await.expect("free");
        let (next, ()) = tokio::join!(places.take(1), async { drop(place) });
        assert!(next.is_ok());
    }
}
