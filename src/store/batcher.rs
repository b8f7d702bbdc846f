//! Batching: callers that arrive while a statement is running share the next one.
//!
//! Whoever comes alone waits for nobody. The busier the database is, the more share a statement, and the less each costs
//! it.

use std::{
    slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{Error, Result};

/// Callers of this process that want the same done, each for an item of its own. Cheap to clone.
#[derive(Debug)]
pub(super) struct Batcher<I, A> {
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
    told: oneshot::Sender<Result<A>>,
}

impl<I, A> Default for Batcher<I, A> {
    fn default() -> Self {
        Self { shared: Arc::new(Shared { waiting: Mutex::default(), asking: tokio::sync::Mutex::default() }) }
    }
}

impl<I, A> Clone for Batcher<I, A> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<I, A> Batcher<I, A> {
    /// What `ask` answers for this item, among the items of all who wait by then. It answers each in its order. What the
    /// database refuses for all it is asked for each alone, so that only those fail that it refuses.
    ///
    /// [`Error::Unavailable`] if the database never answered, or whoever asked was given up in the middle of it: it may be
    /// done or not.
    pub(super) async fn done(&self, item: I, ask: impl AsyncFnOnce(&[I]) -> Result<Vec<A>> + Copy) -> Result<A> {
        let (told, mut answer) = oneshot::channel();
        self.waiting().push(Waiting { item, told });
        let asking = self.shared.asking.lock().await;
        // By the one before.
        match answer.try_recv() {
            Ok(answer) => return answer,
            Err(oneshot::error::TryRecvError::Closed) => return Err(given_up()),
            Err(oneshot::error::TryRecvError::Empty) => {}
        }
        let mut waiting = std::mem::take(&mut *self.waiting());
        // What is not wanted any more is not begun.
        waiting.retain(|waiting| !waiting.told.is_closed());
        let (items, told): (Vec<I>, Vec<_>) = waiting.into_iter().map(|Waiting { item, told }| (item, told)).unzip();
        for (told, answer) in told.into_iter().zip(all_or_each(&items, ask).await) {
            // Who waited may have gone meanwhile.
            let _ = told.send(answer);
        }
        drop(asking);
        answer.try_recv().unwrap_or_else(|_| Err(given_up()))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting<I, A>>> {
        // Nothing under the lock can leave it half changed.
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever asked for several was given up in the middle of it.
fn given_up() -> Error {
    Error::unknown("whoever asked the database was given up")
}

/// What `ask` answers for each of these items, in their order. Asks for all at once; or, if the database refuses that, for
/// each alone. If it never answered, nobody knows what was done, and each is told so.
async fn all_or_each<I, A>(items: &[I], ask: impl AsyncFnOnce(&[I]) -> Result<Vec<A>> + Copy) -> Vec<Result<A>> {
    match ask(items).await {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) if items.len() > 1 && error.may_be_of_one() => {
            let mut answers = Vec::with_capacity(items.len());
            for item in items {
                match ask(slice::from_ref(item)).await {
                    Ok(answer) => answers.extend(answer.into_iter().map(Ok)),
                    Err(error) => answers.push(Err(error)),
                }
            }
            answers
        }
        Err(error) => items.iter().map(|_| Err(error.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    async fn doubled(items: &[u32]) -> Result<Vec<(u32, usize)>> {
        Ok(items.iter().map(|item| (2 * item, items.len())).collect())
    }

    /// Returns when so many wait.
    async fn until_waiting(batcher: &Batcher<u32, (u32, usize)>, count: usize) {
        while batcher.waiting().len() < count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_who_come_meanwhile_are_asked_for_at_once_and_each_is_told_its_own() {
        let batcher = Batcher::default();
        assert_eq!(batcher.done(7, doubled).await.expect("asked"), (14, 1), "alone");
        let asking = batcher.shared.asking.lock().await;
        let waiting: Vec<_> = (0..5)
            .map(|item| {
                let batcher = batcher.clone();
                tokio::spawn(async move { (item, batcher.done(item, doubled).await) })
            })
            .collect();
        until_waiting(&batcher, 5).await;
        drop(asking);
        for waiting in waiting {
            let (item, answer) = waiting.await.expect("no panic");
            assert_eq!(answer.expect("asked"), (2 * item, 5));
        }
    }

    #[tokio::test]
    async fn who_has_gone_is_not_asked_for_and_nobody_waits_for_one_who_gave_up_asking() {
        let batcher = Batcher::default();
        let asking = batcher.shared.asking.lock().await;
        let gone = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.done(1, doubled).await }
        });
        until_waiting(&batcher, 1).await;
        gone.abort();
        gone.await.expect_err("gone");
        let gives_up = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.done(2, async |_: &[u32]| pending().await).await }
        });
        until_waiting(&batcher, 2).await;
        let follows = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.done(3, doubled).await }
        });
        until_waiting(&batcher, 3).await;
        drop(asking);
        while !batcher.waiting().is_empty() {
            tokio::task::yield_now().await;
        }
        // It has taken both by now.
        gives_up.abort();
        gives_up.await.expect_err("given up");
        let unknown = follows.await.expect("no panic");
        assert!(matches!(unknown, Err(Error::Unavailable(_))), "nobody knows what became of it: {unknown:?}");
        assert_eq!(batcher.done(4, doubled).await.expect("asked"), (8, 1));
    }

    #[tokio::test]
    async fn what_was_never_answered_is_not_asked_again_and_each_is_told_why() {
        let asked = AtomicUsize::new(0);
        let cut = async |_: &[u32]| -> Result<Vec<u32>> {
            asked.fetch_add(1, Relaxed);
            Err(sqlx::Error::PoolTimedOut.into())
        };
        let answers = all_or_each(&[1, 2, 3], cut).await;
        assert_eq!((answers.len(), asked.load(Relaxed)), (3, 1));
        for answer in answers {
            let Err(Error::Unavailable(cause)) = answer else { panic!("{answer:?}") };
            assert!(matches!(*cause, sqlx::Error::PoolTimedOut), "{cause}");
        }
    }
}
