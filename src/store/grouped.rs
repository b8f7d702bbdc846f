//! Statements that callers share: those who come while one is under way are asked for together by the next.
//!
//! Whoever comes alone waits for nobody. The busier the database is, the more share a statement, and the less each costs it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Those of this process who want the same done, each for an item of its own. Cheap to clone.
#[derive(Debug)]
pub(super) struct Grouped<I, A> {
    shared: Arc<Shared<I, A>>,
}

#[derive(Debug)]
struct Shared<I, A> {
    waiting: Mutex<Vec<Waiting<I, A>>>,
    /// Held by the one who asks for all.
    asking: tokio::sync::Mutex<()>,
}

/// An item, and who is told what came of it.
#[derive(Debug)]
struct Waiting<I, A> {
    item: I,
    told: oneshot::Sender<A>,
}

impl<I, A> Default for Grouped<I, A> {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { waiting: Mutex::default(), asking: tokio::sync::Mutex::default() }) }
    }
}

impl<I, A> Clone for Grouped<I, A> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<I, A> Grouped<I, A> {
    /// What `ask` answers for this item, among the items of all who wait by then. It answers each in its order.
    ///
    /// `None` if whoever asked was given up in the middle of it: it may be done or not.
    pub(super) async fn done(&self, item: I, ask: impl AsyncFnOnce(&[I]) -> Vec<A>) -> Option<A> {
        let (told, mut answer) = oneshot::channel();
        self.waiting().push(Waiting { item, told });
        let asking = self.shared.asking.lock().await;
        // By the one before.
        match answer.try_recv() {
            Ok(answer) => return Some(answer),
            Err(oneshot::error::TryRecvError::Closed) => return None,
            Err(oneshot::error::TryRecvError::Empty) => {}
        }
        let mut waiting = std::mem::take(&mut *self.waiting());
        // What is not wanted any more is not begun.
        waiting.retain(|waiting| !waiting.told.is_closed());
        let (items, told): (Vec<I>, Vec<_>) = waiting.into_iter().map(|Waiting { item, told }| (item, told)).unzip();
        for (told, answer) in told.into_iter().zip(ask(&items).await) {
            // Who waited may have gone meanwhile.
            let _ = told.send(answer);
        }
        drop(asking);
        answer.try_recv().ok()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting<I, A>>> {
        // Nothing under the lock can leave it half changed.
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    async fn doubled(items: &[u32]) -> Vec<(u32, usize)> {
        items.iter().map(|item| (2 * item, items.len())).collect()
    }

    /// Returns when so many wait.
    async fn until_waiting(grouped: &Grouped<u32, (u32, usize)>, count: usize) {
        while grouped.waiting().len() < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_who_come_meanwhile_are_asked_for_at_once_and_each_is_told_its_own() {
        let grouped = Grouped::default();
        assert_eq!(grouped.done(7, doubled).await, Some((14, 1)), "alone");
        let asking = grouped.shared.asking.lock().await;
        let waiting: Vec<_> = (0..5)
            .map(|item| {
                let grouped = grouped.clone();
                tokio::spawn(async move { (item, grouped.done(item, doubled).await) })
            })
            .collect();
        until_waiting(&grouped, 5).await;
        drop(asking);
        for waiting in waiting {
            let (item, answer) = waiting.await.expect("no panic");
            assert_eq!(answer, Some((2 * item, 5)));
        }
    }

    #[tokio::test]
    async fn who_has_gone_is_not_asked_for_and_nobody_waits_for_one_who_gave_up_asking() {
        let grouped = Grouped::default();
        let asking = grouped.shared.asking.lock().await;
        let gone = tokio::spawn({
            let grouped = grouped.clone();
            async move { grouped.done(1, doubled).await }
        });
        until_waiting(&grouped, 1).await;
        gone.abort();
        gone.await.expect_err("gone");
        let gives_up = tokio::spawn({
            let grouped = grouped.clone();
            async move { grouped.done(2, async |_: &[u32]| pending().await).await }
        });
        until_waiting(&grouped, 2).await;
        let follows = tokio::spawn({
            let grouped = grouped.clone();
            async move { grouped.done(3, doubled).await }
        });
        until_waiting(&grouped, 3).await;
        drop(asking);
        while !grouped.waiting().is_empty() {
            tokio::task::yield_now().await;
        }
        // It has taken both by now.
        gives_up.abort();
        gives_up.await.expect_err("given up");
        assert_eq!(follows.await.expect("no panic"), None, "nobody knows what became of it");
        assert_eq!(grouped.done(4, doubled).await, Some((8, 1)));
    }
}
