//! Work that one does for everybody who came before it began.
//!
//! Ten thousand who are woken in the same moment ask the same question of the database, and those who wait for the disk wait
//! for the same disk. What somebody began after I had come is as good to me as what I begin myself; what was begun before is
//! not, since it may have missed why I came.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use tokio::sync::watch;

/// A piece of work, done over and over.
#[derive(Debug)]
pub(super) struct Together<T> {
    /// How many have come.
    came: AtomicU64,
    /// Whoever holds it works; the others wait for it, or for the result.
    working: tokio::sync::Mutex<()>,
    done: watch::Sender<Done<T>>,
}

/// What was done last with success.
#[derive(Debug)]
struct Done<T> {
    /// How many had come when it began.
    serves: u64,
    /// None before the first.
    result: Option<T>,
}

impl<T> Done<T> {
    /// The result, for whoever came in this place.
    fn serving(&self, place: u64) -> Option<&T> {
        self.result.as_ref().filter(|_| place <= self.serves)
    }
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        let done = Done { serves: 0, result: None };
        Self { came: AtomicU64::default(), working: tokio::sync::Mutex::default(), done: watch::Sender::new(done) }
    }
}

impl<T: Clone> Together<T> {
    /// The result of work that began after this call and succeeded: one's own, or that of another who came later and was
    /// quicker to begin it. Work that fails fails only for who did it, and what is given up is as if it had not begun.
    pub(super) async fn result<E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let place = self.came.fetch_add(1, SeqCst) + 1;
        let mut done = self.done.subscribe();
        let _working = tokio::select! {
            // All are woken at once, and not each by the one before.
            _ = done.wait_for(|done| done.serving(place).is_some()) => None,
            working = self.working.lock() => Some(working),
        };
        if let Some(result) = self.done.borrow().serving(place) {
            return Ok(result.clone());
        }
        let serves = self.came.load(SeqCst);
        let result = work.await?;
        self.done.send_replace(Done { serves, result: Some(result.clone()) });
        Ok(result)
    }
}

/// Pieces of work by what they are about. Nothing is kept of one that nobody waits for. Cheap to clone.
#[derive(Debug)]
pub(super) struct TogetherBy<K, T> {
    waited_for: Arc<Mutex<HashMap<K, WaitedFor<T>>>>,
}

#[derive(Debug)]
struct WaitedFor<T> {
    by: usize,
    together: Arc<Together<T>>,
}

impl<K, T> Clone for TogetherBy<K, T> {
    fn clone(&self) -> Self {
        Self { waited_for: Arc::clone(&self.waited_for) }
    }
}

impl<K, T> Default for TogetherBy<K, T> {
    fn default() -> Self {
        Self { waited_for: Arc::default() }
    }
}

impl<K: Copy + Eq + Hash, T> TogetherBy<K, T> {
    /// [`Together::result`] of the work about this.
    pub(super) async fn result<E>(&self, about: K, work: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        T: Clone,
    {
        let place = Place::take(self, about);
        place.together.result(work).await
    }

    fn waited_for(&self) -> MutexGuard<'_, HashMap<K, WaitedFor<T>>> {
        // Nothing under the lock can leave the map half changed.
        self.waited_for.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait for the same, given up on drop.
struct Place<'a, K: Copy + Eq + Hash, T> {
    all: &'a TogetherBy<K, T>,
    about: K,
    together: Arc<Together<T>>,
}

impl<'a, K: Copy + Eq + Hash, T> Place<'a, K, T> {
    fn take(all: &'a TogetherBy<K, T>, about: K) -> Self {
        let mut waited_for = all.waited_for();
        let this = waited_for.entry(about).or_insert_with(|| WaitedFor { by: 0, together: Arc::default() });
        this.by += 1;
        Self { all, about, together: Arc::clone(&this.together) }
    }
}

impl<K: Copy + Eq + Hash, T> Drop for Place<'_, K, T> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut this) = self.all.waited_for().entry(self.about) {
            this.get_mut().by -= 1;
            if this.get().by == 0 {
                this.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, time::Duration};

    use tokio::{sync::oneshot, task::JoinHandle};

    use super::*;

    /// Somebody who reads what a row says now, as soon as that is allowed.
    fn reader(
        together: &Arc<Together<u64>>,
        row: &Arc<AtomicU64>,
        allowed: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<u64> {
        let (together, row) = (Arc::clone(together), Arc::clone(row));
        tokio::spawn(async move {
            let read = async {
                // Read when the work begins; whatever it takes to arrive.
                let read = row.load(SeqCst);
                allowed.await;
                Ok::<_, Infallible>(read)
            };
            together.result(read).await.expect("infallible")
        })
    }

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_who_come_while_work_is_done_share_the_next_and_never_that() {
        let (together, row) = (Arc::new(Together::default()), Arc::new(AtomicU64::new(1)));
        let (allow, allowed) = oneshot::channel::<()>();
        let slow = reader(&together, &row, async { allowed.await.expect("allowed below") });
        until(|| together.working.try_lock().is_err()).await;
        row.store(2, SeqCst);
        let reads = Arc::new(AtomicU64::new(0));
        let late: Vec<_> = (0..100)
            .map(|_| {
                let reads = Arc::clone(&reads);
                reader(&together, &row, async move { _ = reads.fetch_add(1, SeqCst) })
            })
            .collect();
        until(|| together.came.load(SeqCst) == 101).await;
        allow.send(()).expect("read");
        assert_eq!(slow.await.expect("no panic"), 1);
        for late in late {
            assert_eq!(late.await.expect("no panic"), 2, "what was read before it came");
        }
        assert_eq!(reads.load(SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn who_comes_after_a_change_never_gets_what_was_read_before_it() {
        let (together, row) = (Arc::new(Together::default()), Arc::new(AtomicU64::new(0)));
        let readers: Vec<_> = (0..1000)
            .map(|number| {
                let (together, row) = (Arc::clone(&together), Arc::clone(&row));
                tokio::spawn(async move {
                    (0..number % 7).for_each(|_| std::thread::yield_now());
                    let before = row.fetch_add(1, SeqCst) + 1;
                    let read = reader(&together, &row, tokio::task::yield_now()).await.expect("no panic");
                    assert!(read >= before, "{read}, and it was {before}");
                })
            })
            .collect();
        for reader in readers {
            reader.await.expect("no panic");
        }
    }

    #[tokio::test]
    async fn work_that_fails_or_is_given_up_serves_nobody() {
        let together = Together::default();
        together.result(async { Err::<(), _>("failed") }).await.expect_err("failed");
        let given_up = tokio::time::timeout(Duration::ZERO, together.result(pending::<Result<(), Infallible>>())).await;
        given_up.expect_err("still waiting");
        assert_eq!(together.done.borrow().serves, 0);
        together.result(async { Ok::<_, Infallible>(()) }).await.expect("done");
        assert_eq!(together.done.borrow().serves, 3);
        together.result(async { Err("failed") }).await.expect_err("what was done before does not count");
    }

    #[tokio::test]
    async fn the_last_to_leave_takes_what_they_waited_for_along() {
        let all = TogetherBy::<u8, ()>::default();
        let (first, second, other) = (Place::take(&all, 1), Place::take(&all, 1), Place::take(&all, 2));
        assert_eq!(all.waited_for().len(), 2);
        drop((first, other));
        assert_eq!(all.waited_for().len(), 1);
        drop(second);
        assert_eq!(all.waited_for().len(), 0);
        all.result(1, async { Ok::<_, Infallible>(()) }).await.expect("done");
        let given_up = tokio::time::timeout(Duration::ZERO, all.result(1, pending::<Result<(), Infallible>>())).await;
        given_up.expect_err("still waiting");
        assert_eq!(all.waited_for().len(), 0);
    }
}
