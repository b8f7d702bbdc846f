//! What `/metrics` answers: this process's records, and the database's facts if it tells them quickly.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use crate::{
    metrics::{self, Disk, Facts, QueueFacts},
    store::Store,
};

/// How long the database's facts are believed: several scrapers cost it no more than one.
const BELIEVED: Duration = Duration::from_secs(1);
/// How long a scrape waits for them, and for the disks. Prometheus gives up on a scrape after ten seconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was read last, and when; no facts where the database was away.
type Known = Option<(Instant, Option<QueueFacts>)>;

/// Answers scrapes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scrape {
    store: Store,
    /// When they were asked for, and what came.
    known: Arc<Mutex<Known>>,
}

impl Scrape {
    /// Over this store.
    pub fn new(store: Store) -> Self {
        Self { store, known: Arc::default() }
    }

    /// The text in Prometheus' format. Never fails: without the database what only it knows is missing.
    pub async fn text(&self) -> String {
        let facts = Facts {
            version: crate::version(),
            queue: self.queue().await,
            pool: self.store.pool_facts(),
            disks: disks().await,
            watched: self.store.changes().watched_predictions(),
        };
        metrics::render(&facts)
    }

    async fn queue(&self) -> Option<QueueFacts> {
        // Whoever comes meanwhile waits here, and finds the answer.
        let mut known = self.known.lock().await;
        if let Some((_, facts)) = known.as_ref().filter(|(asked, _)| asked.elapsed() < BELIEVED) {
            return facts.clone();
        }
        let asked = tokio::time::timeout(PATIENCE, self.store.queue_facts()).await;
        let facts = asked.ok().and_then(|answer| {
            answer.inspect_err(|error| tracing::debug!(%error, "The database does not tell its figures")).ok()
        });
        *known = Some((Instant::now(), facts.clone()));
        facts
    }
}

/// Of a file system that does not answer nothing is told.
async fn disks() -> Vec<Disk> {
    let looking = tokio::task::spawn_blocking(metrics::look_at_disks);
    tokio::time::timeout(PATIENCE, looking).await.ok().and_then(Result::ok).unwrap_or_default()
}
