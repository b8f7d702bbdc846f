//! Places for work that is done for a few at a time, shared between accounts: whoever has the fewest is given the next one, and
//! some are kept for accounts that have less than their share. So what takes long for one account makes that one wait, and an
//! account that is alone has nearly all of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use super::{Error, Result};

/// Of all places one in so many is kept, at least one where there are several, and an account's share is as many, or one.
const SHARE: usize = 4;

/// A number of places.
#[derive(Debug)]
pub(super) struct Places {
    line: Arc<Mutex<Line>>,
    patience: Duration,
}

#[derive(Debug)]
struct Line {
    free: usize,
    /// Free ones that nobody has who has a share already.
    kept: usize,
    /// How many each account has that has any.
    taken: HashMap<i64, usize>,
    /// In the order they came; some may have gone.
    waiting: Vec<(i64, oneshot::Sender<Place>)>,
}

/// A place, given up on drop.
#[derive(Debug)]
pub(super) struct Place {
    line: Arc<Mutex<Line>>,
    account_id: i64,
}

impl Places {
    /// So many, for which nobody waits longer than this.
    pub(super) fn new(all: usize, patience: Duration) -> Self {
        let kept = if all < 2 { 0 } else { (all / SHARE).max(1) };
        let line = Line { free: all, kept, taken: HashMap::new(), waiting: Vec::new() };
        Self { line: Arc::new(Mutex::new(line)), patience }
    }

    /// A place, as soon as it is this account's turn.
    pub(super) async fn take(&self, account_id: i64) -> Result<Place> {
        let (sender, place) = oneshot::channel();
        lock(&self.line).waiting.push((account_id, sender));
        hand_out(&self.line);
        let crowded = || Error::Crowded { retry_after: self.patience.as_secs().max(1) };
        timeout(self.patience, place).await.ok().and_then(|place| place.ok()).ok_or_else(crowded)
    }
}

impl Line {
    /// Who is given a place now, and is counted as having it.
    fn next(&mut self) -> Option<(i64, oneshot::Sender<Place>)> {
        if self.free == 0 {
            // However many wait: whoever comes looks at none of them.
            return None;
        }
        self.waiting.retain(|(_, sender)| !sender.is_closed());
        let taken = |account_id: &i64| self.taken.get(account_id).copied().unwrap_or(0);
        let (first, (account_id, _)) =
            self.waiting.iter().enumerate().min_by_key(|(_, (account_id, _))| taken(account_id))?;
        // Of those who wait nobody has fewer.
        let needed = if taken(account_id) < self.kept.max(1) { 0 } else { self.kept };
        if self.free <= needed {
            return None;
        }
        let next = self.waiting.remove(first);
        self.free -= 1;
        *self.taken.entry(next.0).or_default() += 1;
        Some(next)
    }

    fn give_back(&mut self, account_id: i64) {
        self.free += 1;
        if let Some(taken) = self.taken.get_mut(&account_id) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(&account_id);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.line).give_back(self.account_id);
        hand_out(&self.line);
    }
}

/// Gives what is free to those who wait.
fn hand_out(line: &Arc<Mutex<Line>>) {
    loop {
        let next = lock(line).next();
        let Some((account_id, sender)) = next else { return };
        // Should it have gone meanwhile, the place is dropped, and handed on by that.
        drop(sender.send(Place { line: Arc::clone(line), account_id }));
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    // Nothing under the lock can leave it half changed.
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many places as an account is given at once.
    async fn all_of(places: &Places, account_id: i64) -> Vec<Place> {
        let mut taken = Vec::new();
        while let Ok(place) = places.take(account_id).await {
            taken.push(place);
        }
        taken
    }

    #[tokio::test]
    async fn an_account_alone_has_nearly_all_and_the_others_find_some_kept_for_them() {
        let places = Places::new(8, Duration::ZERO);
        let first = all_of(&places, 1).await;
        assert_eq!(first.len(), 6);
        assert!(matches!(places.take(1).await, Err(Error::Crowded { retry_after: 1 })));
        assert_eq!(all_of(&places, 2).await.len(), 2, "these were kept");
        drop(first);
        let all: Vec<_> = [all_of(&places, 3).await, all_of(&places, 4).await].into_iter().flatten().collect();
        assert_eq!(all.len(), 8);
        drop(all);
        let line = lock(&places.line);
        assert!(line.free == 8 && line.taken.is_empty(), "{line:?}");
    }

    #[tokio::test]
    async fn of_two_places_one_is_kept_for_others_and_of_one_none() {
        let places = Places::new(2, Duration::ZERO);
        let first = all_of(&places, 1).await;
        assert_eq!((first.len(), all_of(&places, 2).await.len()), (1, 1));
        assert_eq!(all_of(&Places::new(1, Duration::ZERO), 1).await.len(), 1);
    }

    #[tokio::test]
    async fn whoever_has_the_fewest_is_next_and_who_has_gone_is_passed_by() {
        let places = Places::new(3, Duration::from_secs(20));
        let mut first = vec![places.take(1).await.expect("free"), places.take(1).await.expect("free")];
        let _kept = places.take(4).await.expect("kept");
        let own = places.take(1);
        let gone = places.take(2);
        let other = places.take(3);
        let (mut own, mut gone, mut other) = (Box::pin(own), Box::pin(gone), Box::pin(other));
        for waiting in [&mut own, &mut gone, &mut other] {
            assert!(futures_util::poll!(waiting).is_pending());
        }
        drop(gone);
        first.pop();
        let _other = other.await.expect("before the account that has one");
        assert!(futures_util::poll!(&mut own).is_pending());
        first.pop();
        assert!(own.await.is_ok());
    }
}
