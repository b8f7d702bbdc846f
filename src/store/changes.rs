//! News: which predictions changed, and that the queue has work.
//!
//! The row is the truth and news only shortens the wait, so losing some is harmless: whoever waits subscribes first,
//! then reads, and everything waited for is read again every two seconds. Within the process news is immediate. Other
//! processes hear it by `NOTIFY`, sent after the commit, coalesced, on a connection of its own: inside the writing
//! transaction it would take a lock that serializes all commits of the database.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use super::{
    Result, Store,
    connections::Connections,
    predictions::{Row, columns},
    pulse::{HEARTBEAT, Pulse, promptly},
    recent::{Mark, Recent},
};
use crate::{
    domain::{Prediction, PredictionId},
    metrics,
};

/// Payload: `<process> <id> <id> …`; without an id, that something was posted to a webhook.
const PREDICTION_CHANGED: &str = "prediction_changed";
/// Payload: `<process> <id> <id> …`.
const PREDICTION_PROGRESSED: &str = "prediction_progressed";
/// Payload: `<process>`.
const PREDICTION_QUEUED: &str = "prediction_queued";

/// News that comes closer together than this goes out as one notification.
const COALESCE: Duration = Duration::from_millis(5);
/// How often everything waited for is read again, whatever was or was not heard.
const READ_AGAIN: Duration = Duration::from_secs(2);
/// Between attempts to get a lost connection back.
const RECONNECT: Duration = Duration::from_millis(500);
/// A payload must stay under 8000 bytes; an id takes 37.
const IDS_PER_NOTIFICATION: usize = 200;

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
    queued: Notify,
    posted: watch::Sender<()>,
    outbox: mpsc::UnboundedSender<News>,
    /// Waited for here, and changed elsewhere.
    heard: mpsc::UnboundedSender<PredictionId>,
    /// Taken by [`Store::spread_changes`].
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
                queued: Notify::new(),
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
}

impl Shared {
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

    /// Returns when there may be new work for any model, also if that was said before this call and nobody was there to
    /// hear it. What is queued in this process wakes one of those who wait here: it is work for one.
    pub async fn queued(&self) {
        self.shared.queued.notified().await;
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
        self.shared.queued.notify_one();
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

    /// There may be work for all who wait for it, or for the one who comes next.
    fn wake_workers(&self) {
        self.shared.queued.notify_waiters();
        self.shared.queued.notify_one();
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
}

impl Changes {
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

impl Subscription {
    /// Returns when the prediction may have changed since the last call, or since subscribing.
    pub async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // The sender lives in the map as long as we are subscribed.
            let _ = receiver.changed().await;
        }
    }

    /// The prediction, if it has ended in this process while somebody was subscribed. It does not change any more, but for
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

impl Store {
    /// Keeps news flowing between processes until dropped. Without it everything still works, two seconds late.
    pub async fn spread_changes(&self) {
        let receivers = self.changes.shared.receivers.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Receivers { inbox, heard }) = receivers else {
            return;
        };
        // Both keep their connection for good, so they do not take it from the pool that answers requests.
        tokio::join!(
            send_notifications(&self.options, self.changes.shared.process, inbox),
            listen(&self.options, &self.changes, &self.pulse),
            self.read_heard(heard),
            read_again(&self.pool, &self.changes),
        );
    }

    /// Reads what changed elsewhere and is waited for here, and wakes those who wait: with the prediction if it has ended,
    /// else to look for themselves.
    async fn read_heard(&self, mut heard: mpsc::UnboundedReceiver<PredictionId>) {
        let mut ids = Vec::new();
        while heard.recv_many(&mut ids, IDS_PER_NOTIFICATION).await > 0 {
            let ended = self.read_ended(&ids).await;
            let mut ended = ended.unwrap_or_else(|error| {
                tracing::debug!(%error, "Could not read what changed elsewhere");
                HashMap::new()
            });
            ids.drain(..).for_each(|id| self.changes.wake(id, ended.remove(&id)));
        }
    }

    /// Those of these predictions that have ended, whoever's they are: who is woken with one looks whether it is theirs.
    async fn read_ended(&self, ids: &[PredictionId]) -> Result<HashMap<PredictionId, Arc<Prediction>>> {
        let rows: Vec<Row> = sqlx::query_as(concat!(
            "select ",
            columns!(),
            " from predictions where id = any ($1) and completed_at is not null"
        ))
        .bind(ids.iter().map(|id| id.as_uuid()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await?;
        // Who ended one of them may have been heard of for an earlier change, and be waiting for the disk yet.
        if !rows.is_empty() {
            self.until_durable().await?;
        }
        // One that this version cannot read is left to who asks for it, and learns why.
        let predictions = rows.into_iter().filter_map(|row| Prediction::try_from(row).ok());
        Ok(predictions.map(|prediction| (prediction.id, Arc::new(prediction))).collect())
    }
}

async fn send_notifications(options: &PgConnectOptions, process: Uuid, mut inbox: mpsc::UnboundedReceiver<News>) {
    // Nobody's data depends on a notification: it need not wait for the disk.
    let options = options.clone().options([("synchronous_commit", "off")]);
    let mut connection: Option<PgConnection> = None;
    let mut batch = Vec::new();
    while inbox.recv_many(&mut batch, IDS_PER_NOTIFICATION).await > 0 {
        let (queued, posted) = (batch.contains(&News::Queued), batch.contains(&News::Posted));
        let (mut changed, mut progressed) = (Vec::new(), Vec::new());
        for news in batch.drain(..) {
            match news {
                News::Queued | News::Posted => {}
                News::Changed(id) => changed.push(id),
                News::Progressed(id) => progressed.push(id),
            }
        }
        let payload =
            |ids: &[PredictionId]| ids.iter().fold(process.to_string(), |payload, id| format!("{payload} {id}"));
        let payloads = [
            (PREDICTION_QUEUED, queued.then(|| payload(&[]))),
            (PREDICTION_CHANGED, (posted || !changed.is_empty()).then(|| payload(&changed))),
            (PREDICTION_PROGRESSED, (!progressed.is_empty()).then(|| payload(&progressed))),
        ];
        if let Err(error) = promptly(notify(&options, &mut connection, payloads)).await {
            // Not worth keeping: whoever waits reads again soon.
            tracing::debug!(%error, "A notification was lost");
            metrics::notification_lost();
            connection = None;
            tokio::time::sleep(RECONNECT).await;
        }
        tokio::time::sleep(COALESCE).await;
    }
}

async fn notify(
    options: &PgConnectOptions,
    connection: &mut Option<PgConnection>,
    [(queued, to_queued), (changed, to_changed), (progressed, to_progressed)]: [(&str, Option<String>); 3],
) -> Result<(), sqlx::Error> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(options.connect().await?),
    };
    sqlx::query(
        "select pg_notify(channel, payload)
         from (values ($1, $2), ($3, $4), ($5, $6)) as news (channel, payload)
         where payload is not null",
    )
    .bind(queued)
    .bind(to_queued)
    .bind(changed)
    .bind(to_changed)
    .bind(progressed)
    .bind(to_progressed)
    .execute(connection)
    .await?;
    Ok(())
}

async fn listen(options: &PgConnectOptions, changes: &Changes, pulse: &Pulse) {
    loop {
        let error = listen_until_lost(options, changes).await;
        // Whoever waits on another connection is let go if this one had no answer.
        if matches!(&error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut) {
            pulse.stopped();
        }
        tracing::warn!(%error, "Lost the connection that listens for changes; waiting clients are polled for");
        metrics::notification_lost();
        tokio::time::sleep(RECONNECT).await;
    }
}

/// Returns why it hears nothing any more.
async fn listen_until_lost(options: &PgConnectOptions, changes: &Changes) -> sqlx::Error {
    let hear = async || -> Result<Infallible, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(options.clone());
        let mut listener = promptly(PgListener::connect_with(&pool)).await?;
        listener.eager_reconnect(false);
        promptly(listener.listen_all([PREDICTION_CHANGED, PREDICTION_QUEUED, PREDICTION_PROGRESSED])).await?;
        // What was said before was not heard. `read_again` catches up with the predictions; work may wait, too.
        changes.wake_workers();
        changes.shared.posted.send_replace(());
        loop {
            match tokio::time::timeout(HEARTBEAT, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => changes.hear(notification.channel(), notification.payload()),
                Ok(Ok(None)) => return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
                Ok(Err(error)) => return Err(error),
                // Nothing is said, or the line is cut: only a question tells.
                Err(_) => {
                    promptly(sqlx::query("select 1").execute(&mut listener)).await?;
                }
            }
        }
    };
    let Err(error) = hear().await;
    error
}

/// The floor under all news: whatever got lost, it is noticed here.
async fn read_again(pool: &Connections, changes: &Changes) {
    let mut ticks = tokio::time::interval(READ_AGAIN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let watched: Vec<Uuid> = changes.shared.watched().keys().map(|(id, _)| id.as_uuid()).collect();
        if watched.is_empty() {
            continue;
        }
        let changed: Result<Vec<Uuid>, sqlx::Error> = sqlx::query_scalar(
            "select id from predictions
             where id = any ($1) and (completed_at is not null or cancel_requested_at is not null)",
        )
        .bind(&watched)
        .fetch_all(pool)
        .await;
        match changed {
            Ok(changed) => changed.into_iter().for_each(|id| changes.wake(id.into(), None)),
            Err(error) => tracing::debug!(%error, "Could not read waited-for predictions again"),
        }
    }
}

#[cfg(test)]
mod tests {
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
