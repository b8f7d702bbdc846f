//! The sign of life: a database session that holds an advisory lock for every worker of the process.
//!
//! When the process dies the database drops the session and its locks within milliseconds, and any sweep sees it. The
//! session lives outside the pool, so that nothing else can close it.

use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use crate::store::{Result, Store, WorkerSession};

/// How often the session is checked, and how soon a lost one is opened again.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Holds the locks of these workers until dropped, and says in `alive` whether it does: a worker that claims without
/// would be taken for dead.
pub(super) async fn show_life(store: Store, workers: Vec<Uuid>, alive: watch::Sender<bool>) {
    loop {
        if let Err(error) = hold_until_lost(&store, &workers, &alive).await {
            tracing::warn!(%error, "Lost the session that shows the workers' life");
        }
        alive.send_replace(false);
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

async fn hold_until_lost(store: &Store, workers: &[Uuid], alive: &watch::Sender<bool>) -> Result<()> {
    let mut session: WorkerSession = store.worker_session().await?;
    for worker in workers {
        session.hold(*worker).await?;
    }
    loop {
        session.check().await?;
        alive.send_replace(true);
        tokio::time::sleep(CHECK_EVERY).await;
    }
}
