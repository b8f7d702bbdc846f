//! News: which predictions changed, and that the queue has work.
//!
//! The row is the truth and news only shortens the wait, so losing some is harmless: whoever waits subscribes first,
//! then reads, and everything waited for is read again every two seconds. Within the process news is immediate; `spread`
//! carries it to others.

mod spread;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Semaphore, mpsc, watch};
use uuid::Uuid;

use super::recent::{Mark, Recent};
use crate::domain::{Prediction, PredictionId};

/// Payload: `<process> <id> <id> …`; without an id, that something was posted to a webhook.
const PREDICTION_CHANGED: &str = "prediction_changed";
/// Payload: `<process> <id> <id> …`.
const PREDICTION_PROGRESSED: &str = "prediction_progressed";
/// Payload: `<process>`.
const PREDICTION_QUEUED: &str = "prediction_queued";

/// Who waits for what in this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Changes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Tells our own notifications from others'.
    process: Uuid,
    /// One entry per prediction somebody waits for, and another if somebody watches how it goes.
    watched: Mutex<Watched>,
    recent: Mutex<Recent>,
    /// A permit for each prediction queued here that nobody has been woken for, at most one for each who looks for work.
    queued: Semaphore,
    /// How many look for work, or wait for it.
    looking: AtomicUsize,
    queued_elsewhere: watch::Sender<()>,
    posted: watch::Sender<()>,
    outbox: mpsc::UnboundedSender<News>,
    /// Waited for here, and changed elsewhere.
    heard: mpsc::UnboundedSender<PredictionId>,
    /// Taken by [`Store::spread_changes`](super::Store::spread_changes).
    receivers: Mutex<Option<Receivers>>,
}

/// What is to be done with news.
#[derive(Debug)]
struct Receivers {
    /// To be told to other processes.
    inbox: mpsc::UnboundedReceiver<News>,
    /// To be read for those who wait.
    heard: mpsc::UnboundedReceiver<PredictionId>,
}

/// Who waits in a process, and so what it listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Workers alone, who hear of work and of cancels.
    Workers,
    /// Clients as well, who follow each step of what runs elsewhere.
    Clients,
}

impl Audience {
    fn channels(self) -> &'static [&'static str] {
        const ALL: [&str; 3] = [PREDICTION_CHANGED, PREDICTION_QUEUED, PREDICTION_PROGRESSED];
        match self {
            Self::Workers => &ALL[..2],
            Self::Clients => &ALL,
        }
    }
}

/// For each the prediction itself, once it has ended here.
type Watched = HashMap<(PredictionId, Topic), watch::Sender<Option<Arc<Prediction>>>>;

/// What of a prediction somebody wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Topic {
    /// Its row: that it ended, or shall end.
    Row,
    /// That, and every step on the way.
    Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Queued,
    Posted,
    Changed(PredictionId),
    Progressed(PredictionId),
}

/// A place in the audience of one prediction, given up on drop.
#[derive(Debug)]
pub struct Subscription {
    key: (PredictionId, Topic),
    shared: Arc<Shared>,
    /// `None` only while dropping.
    receiver: Option<watch::Receiver<Option<Arc<Prediction>>>>,
}

impl Default for Changes {
    fn default() -> Self {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (heard, heard_receiver) = mpsc::unbounded_channel();
        Self {
            shared: Arc::new(Shared {
                process: Uuid::new_v4(),
                watched: Mutex::default(),
                recent: Mutex::default(),
                queued: Semaphore::const_new(0),
                looking: AtomicUsize::new(0),
                queued_elsewhere: watch::Sender::new(()),
                posted: watch::Sender::new(()),
                outbox,
                heard,
                receivers: Mutex::new(Some(Receivers { inbox, heard: heard_receiver })),
            }),
        }
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        // Nothing under the lock can leave the map half changed.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    /// Starts to listen for changes of a prediction. Subscribe first, then read the row: a change in between is heard.
    pub fn subscribe(&self, id: PredictionId) -> Subscription {
        self.subscribe_to(id, Topic::Row)
    }

    /// The present, for [`subscribe_since`](Self::subscribe_since).
    pub fn mark(&self) -> Mark {
        self.shared.recent().mark()
    }

    /// Starts to listen for changes of a prediction whose id was not known until now. One that was announced since the
    /// mark counts as one to come.
    pub fn subscribe_since(&self, id: PredictionId, mark: Mark) -> Subscription {
        let mut subscription = self.subscribe(id);
        if self.shared.recent().may_have_changed(id, mark)
            && let Some(receiver) = &mut subscription.receiver
        {
            receiver.mark_changed();
        }
        subscription
    }

    /// Starts to listen for changes of a prediction and for its progress.
    pub fn subscribe_progress(&self, id: PredictionId) -> Subscription {
        self.subscribe_to(id, Topic::Progress)
    }

    fn subscribe_to(&self, id: PredictionId, topic: Topic) -> Subscription {
        let receiver = self.shared.watched().entry((id, topic)).or_default().subscribe();
        Subscription { key: (id, topic), shared: Arc::clone(&self.shared), receiver: Some(receiver) }
    }

    /// Resolves when there may be new work for any model. Call it before looking at the queue, so that nothing that another
    /// process queues in between is missed. What is queued in this process wakes exactly one waiter, or the next to come.
    pub fn queued(&self) -> impl Future<Output = ()> + use<> {
        let (looks, mut elsewhere) = (Looks::begin(&self.shared), self.shared.queued_elsewhere.subscribe());
        async move {
            tokio::select! {
                // The semaphore is never closed.
                permit = looks.shared.queued.acquire() => if let Ok(permit) = permit { permit.forget() },
                // The sender is shared.
                _ = elsewhere.changed() => {}
            }
        }
    }

    /// Wakes when there may be something to tell to a webhook's receiver.
    pub fn subscribe_posted(&self) -> watch::Receiver<()> {
        self.shared.posted.subscribe()
    }

    /// How many predictions are waited for in this process.
    pub fn watched_predictions(&self) -> usize {
        self.shared.watched().len()
    }

    /// Spreads that there is a prediction to claim. Call after the commit, once for each.
    pub(super) fn announce_queued(&self) {
        // More would make somebody look in vain for what others have taken without being woken. One is kept for whoever comes next.
        if self.shared.queued.available_permits() < self.shared.looking.load(Ordering::Relaxed).max(1) {
            self.shared.queued.add_permits(1);
        }
        // The receiver is gone only while the process ends.
        let _ = self.shared.outbox.send(News::Queued);
    }

    /// Spreads that a prediction's row changed in a way its audience waits for. Call after the commit.
    pub(super) fn announce_changed(&self, id: PredictionId) {
        self.announce_ended(id, || None);
    }

    /// The same of one that has ended, and is asked for if somebody waits for it: nobody has to read then what the statement
    /// that ended it has told. Call when its end is safe.
    pub(super) fn announce_ended(&self, id: PredictionId, prediction: impl FnOnce() -> Option<Prediction>) {
        let is_watched = self.shared.watched().contains_key(&(id, Topic::Row));
        self.wake(id, is_watched.then(prediction).flatten().map(Arc::new));
        self.shared.posted.send_replace(());
        // The receiver is gone only while the process ends.
        let _ = self.shared.outbox.send(News::Changed(id));
    }

    /// Spreads that something was posted to a webhook, if no prediction changed with it: that says as much. Call after the
    /// commit.
    pub(super) fn announce_posted(&self) {
        self.shared.posted.send_replace(());
        let _ = self.shared.outbox.send(News::Posted);
    }

    /// Spreads that a prediction is a step further. Call after the commit.
    pub(super) fn announce_progress(&self, id: PredictionId) {
        self.wake_topic(id, Topic::Progress, None);
        let _ = self.shared.outbox.send(News::Progressed(id));
    }

    /// There may be work for all who wait for it, or are just looking.
    fn wake_workers(&self) {
        self.shared.queued_elsewhere.send_replace(());
    }

    fn wake(&self, id: PredictionId, ended: Option<Arc<Prediction>>) {
        // Remembered before anybody is woken: who subscribes in between hears of it twice, and not never.
        self.shared.recent().add(id);
        self.wake_topic(id, Topic::Row, ended);
        self.wake_topic(id, Topic::Progress, None);
    }

    fn wake_topic(&self, id: PredictionId, topic: Topic, ended: Option<Arc<Prediction>>) {
        if let Some(audience) = self.shared.watched().get(&(id, topic)) {
            // Woken also by what brings nothing.
            audience.send_modify(|known| *known = ended.or(known.take()));
        }
    }

    fn hear(&self, channel: &str, payload: &str) {
        let mut words = payload.split(' ');
        if words.next() == Some(self.shared.process.to_string().as_str()) {
            return;
        }
        match channel {
            PREDICTION_QUEUED => self.wake_workers(),
            PREDICTION_PROGRESSED => {
                let ids = words.filter_map(|word| word.parse().ok());
                ids.for_each(|id| self.wake_topic(id, Topic::Progress, None));
            }
            _ => {
                self.shared.posted.send_replace(());
                words.filter_map(|word| word.parse().ok()).for_each(|id| self.hear_changed(id));
            }
        }
    }

    /// A prediction changed in another process. However many wait for it, it is read once, and they are woken with it.
    fn hear_changed(&self, id: PredictionId) {
        // Whoever subscribes from now on reads it, and finds it changed.
        self.shared.recent().add(id);
        self.wake_topic(id, Topic::Progress, None);
        if self.shared.watched().contains_key(&(id, Topic::Row)) {
            // The receiver is gone only while the process ends.
            let _ = self.shared.heard.send(id);
        }
    }
}

/// Somebody looks for work, or waits for it, until this is dropped.
struct Looks {
    shared: Arc<Shared>,
}

impl Looks {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.looking.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared) }
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.shared.looking.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Subscription {
    /// Returns when the prediction may have changed since the last call, or since subscribing.
    pub async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // The sender lives in the map as long as we are subscribed.
            let _ = receiver.changed().await;
        }
    }

    /// The prediction, if it has ended while somebody was subscribed, and how is known here. It does not change any more, but for
    /// what retention takes out of it.
    pub fn ended(&self) -> Option<Arc<Prediction>> {
        self.receiver.as_ref().and_then(|receiver| receiver.borrow().clone())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watched = self.shared.watched();
        self.receiver = None;
        if watched.get(&self.key).is_some_and(|audience| audience.receiver_count() == 0) {
            watched.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn news_after_subscribing_is_heard_even_before_waiting() {
        let changes = Changes::default();
        let id = PredictionId::generate();
        let mut subscription = changes.subscribe(id);
        changes.announce_changed(id);
        subscription.changed().await;
    }

    #[tokio::test]
    async fn news_of_a_prediction_that_was_not_known_yet_is_heard_from_the_mark_on() {
        let changes = Changes::default();
        let id = PredictionId::generate();
        let mark = changes.mark();
        changes.announce_changed(id);
        changes.subscribe_since(id, mark).changed().await;
        let late = changes.subscribe_since(id, changes.mark());
        assert!(!late.receiver.as_ref().expect("subscribed").has_changed().expect("open"));
    }

    #[tokio::test]
    async fn the_last_subscriber_to_leave_takes_the_entry_along() {
        let changes = Changes::default();
        let id = PredictionId::generate();
        let (first, second) = (changes.subscribe(id), changes.subscribe(id));
        drop(first);
        assert_eq!(changes.watched_predictions(), 1);
        drop(second);
        assert_eq!(changes.watched_predictions(), 0);
    }

    #[tokio::test]
    async fn a_step_wakes_those_who_watch_and_not_those_who_wait_for_the_end() {
        let changes = Changes::default();
        let id = PredictionId::generate();
        let (waits, mut watches) = (changes.subscribe(id), changes.subscribe_progress(id));
        changes.announce_progress(id);
        watches.changed().await;
        assert!(!waits.receiver.as_ref().expect("subscribed").has_changed().expect("open"));
        changes.announce_changed(id);
        watches.changed().await;
    }

    #[tokio::test]
    async fn work_that_another_process_has_wakes_once_whoever_waits_or_is_just_looking() {
        let changes = Changes::default();
        let (mut waits, looks) = (Box::pin(changes.queued()), changes.queued());
        assert!(waits.as_mut().now_or_never().is_none());
        changes.hear(PREDICTION_QUEUED, &Uuid::new_v4().to_string());
        tokio::join!(waits, looks);
        assert!(changes.queued().now_or_never().is_none(), "and nobody looks a second time for it");
        changes.announce_queued();
        assert!(changes.queued().now_or_never().is_some(), "what is queued here is not lost though nobody waited");
    }

    #[tokio::test]
    async fn two_predictions_queued_at_one_instant_wake_two_who_are_just_looking_and_nobody_twice() {
        let changes = Changes::default();
        let (first, second) = (changes.queued(), changes.queued());
        (0..3).for_each(|_| changes.announce_queued());
        assert!(first.now_or_never().is_some());
        assert!(second.now_or_never().is_some(), "and not at its next poll");
        assert!(
            changes.queued().now_or_never().is_none(),
            "what the two did not find, who comes next finds by looking"
        );
    }

    #[tokio::test]
    async fn what_another_process_says_of_one_that_is_waited_for_is_read_and_our_own_echo_is_not() {
        let changes = Changes::default();
        let id = PredictionId::generate();
        let subscription = changes.subscribe(id);
        changes.hear(PREDICTION_CHANGED, &format!("{} {id}", changes.shared.process));
        assert!(!subscription.receiver.as_ref().expect("subscribed").has_changed().expect("open"));
        changes.hear(PREDICTION_CHANGED, &format!("{} {} {id}", Uuid::new_v4(), PredictionId::generate()));
        let mut receivers = changes.shared.receivers.lock().expect("no panic");
        let heard = &mut receivers.as_mut().expect("not taken").heard;
        assert_eq!(heard.try_recv(), Ok(id));
        heard.try_recv().expect_err("nobody waits for the other");
    }
}
