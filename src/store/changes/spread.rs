//! News between processes. Others hear it by `NOTIFY`, sent after the commit, coalesced, on a connection of its own: inside
//! the writing transaction it would take a lock that serializes all commits of the database.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{Arc, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    super::{
        Result, Store,
        connections::Connections,
        predictions::{Row, columns},
        pulse::{HEARTBEAT, Pulse, promptly},
    },
    Audience, Changes, News, PREDICTION_CHANGED, PREDICTION_PROGRESSED, PREDICTION_QUEUED, Receivers,
};
use crate::{
    domain::{Prediction, PredictionId},
    metrics,
};

/// News that comes closer together than this goes out as one notification.
const COALESCE: Duration = Duration::from_millis(5);
/// How often everything waited for is read again, whatever was or was not heard.
const READ_AGAIN: Duration = Duration::from_secs(2);
/// Between attempts to get a lost connection back.
const RECONNECT: Duration = Duration::from_millis(500);
/// A payload must stay under 8000 bytes; an id takes 37.
const IDS_PER_NOTIFICATION: usize = 200;

impl Store {
    /// Keeps news flowing between processes until dropped. Without it everything still works, two seconds late.
    pub async fn spread_changes(&self, audience: Audience) {
        let receivers = self.changes.shared.receivers.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Receivers { inbox, heard }) = receivers else {
            return;
        };
        // Both keep their connection for good, so they do not take it from the pool that answers requests.
        tokio::join!(
            send_notifications(&self.options, self.changes.shared.process, inbox),
            listen(&self.options, &self.changes, audience, &self.pulse),
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

    /// Reads those of these predictions that have ended, of any account. Whoever is woken with one must check that it is
    /// theirs.
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

async fn listen(options: &PgConnectOptions, changes: &Changes, audience: Audience, pulse: &Pulse) {
    loop {
        let error = listen_until_lost(options, changes, audience).await;
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
async fn listen_until_lost(options: &PgConnectOptions, changes: &Changes, audience: Audience) -> sqlx::Error {
    let hear = async || -> Result<Infallible, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_lazy_with(options.clone());
        let mut listener = promptly(PgListener::connect_with(&pool)).await?;
        listener.eager_reconnect(false);
        promptly(listener.listen_all(audience.channels().iter().copied())).await?;
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
