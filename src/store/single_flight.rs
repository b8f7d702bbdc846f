//! Single flight: concurrent callers share one execution that began after they called.
//!
//! Ten thousand who are woken in the same moment ask the same question of the database, and those who wait for the disk wait
//! for the same disk. What somebody began after I had come is as good to me as what I begin myself; what was begun before is
//! not, since it may have missed why I came.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::watch;

/// A piece of work, done over and over, by one caller at a time.
#[derive(Debug)]
pub(super) struct SingleFlight<T> {
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

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        let done = Done { serves: 0, result: None };
        Self { came: AtomicU64::default(), working: tokio::sync::Mutex::default(), done: watch::Sender::new(done) }
    }
}

impl<T: Clone> SingleFlight<T> {
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

    use tokio::{sync::oneshot, task::JoinHandle};

    use super::*;

    /// Somebody who reads what a row says now, as soon as that is allowed.
    fn reader(
        flight: &Arc<SingleFlight<u64>>,
        row: &Arc<AtomicU64>,
        allowed: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<u64> {
        let (flight, row) = (Arc::clone(flight), Arc::clone(row));
        tokio::spawn(async move {
            let read = async {
                // Read when the work begins; whatever it takes to arrive.
                let read = row.load(SeqCst);
                allowed.await;
                Ok::<_, Infallible>(read)
            };
            flight.result(read).await.expect("infallible")
        })
    }

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_who_come_while_work_is_done_share_the_next_and_never_that() {
        let (flight, row) = (Arc::new(SingleFlight::default()), Arc::new(AtomicU64::new(1)));
        let (allow, allowed) = oneshot::channel::<()>();
        let slow = reader(&flight, &row, async { allowed.await.expect("allowed below") });
        until(|| flight.working.try_lock().is_err()).await;
        row.store(2, SeqCst);
        let reads = Arc::new(AtomicU64::new(0));
        let late: Vec<_> = (0..100)
            .map(|_| {
                let reads = Arc::clone(&reads);
                reader(&flight, &row, async move { _ = reads.fetch_add(1, SeqCst) })
            })
            .collect();
        until(|| flight.came.load(SeqCst) == 101).await;
        allow.send(()).expect("read");
        assert_eq!(slow.await.expect("no panic"), 1);
        for late in late {
            assert_eq!(late.await.expect("no panic"), 2, "what was read before it came");
        }
        assert_eq!(reads.load(SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn who_comes_after_a_change_never_gets_what_was_read_before_it() {
        let (flight, row) = (Arc::new(SingleFlight::default()), Arc::new(AtomicU64::new(0)));
        let readers: Vec<_> = (0..1000)
            .map(|number| {
                let (flight, row) = (Arc::clone(&flight), Arc::clone(&row));
                tokio::spawn(async move {
                    (0..number % 7).for_each(|_| std::thread::yield_now());
                    let before = row.fetch_add(1, SeqCst) + 1;
                    let read = reader(&flight, &row, tokio::task::yield_now()).await.expect("no panic");
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
        let flight = SingleFlight::default();
        flight.result(async { Err::<(), _>("failed") }).await.expect_err("failed");
        let given_up = tokio::time::timeout(Duration::ZERO, flight.result(pending::<Result<(), Infallible>>())).await;
        given_up.expect_err("still waiting");
        assert_eq!(flight.done.borrow().serves, 0);
        flight.result(async { Ok::<_, Infallible>(()) }).await.expect("done");
        assert_eq!(flight.done.borrow().serves, 3);
        flight.result(async { Err("failed") }).await.expect_err("what was done before does not count");
    }
}
