//! The regular work that belongs to no prediction: taking predictions from dead workers, ending late ones, deleting old
//! data and adding up old usage. Every process does it, the last two only servers; the statements see to it that none
//! is done twice.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::{Settings, files};
use crate::{
    artifacts::Artifacts,
    store::{self, Store},
};

/// How often old data is looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How many predictions are pruned by one statement.
const PRUNE_CHUNK: i64 = 1000;
/// How often days that are over are looked for, by one server for all.
const COMPACT_EVERY: Duration = Duration::from_secs(60 * 60);
/// How many rows of usage are added up by one statement.
const COMPACT_CHUNK: u64 = 1000;
/// Of how many predictions the files are deleted at the same time.
const DELETING_AT_ONCE: usize = 16;

/// Sweeps until dropped. Nothing here waits for files: a bucket that is away is no reason not to notice a dead worker.
pub(super) async fn keep_sweeping(store: Store, artifacts: Artifacts, settings: Settings) {
    let mut sweeps = interval(settings.sweep / 2);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        sweeps.tick().await;
        if !sweep_in_turn(&store, &artifacts, &settings).await {
            // Perhaps others can.
            sweeps.reset_after(settings.sweep * 2);
        }
    }
}

/// Sweeps, unless another process began to a moment ago: one is enough, since hundreds that read every worker's lock
/// each second would keep the database from its work. No process is in charge, so none can be missed. Each tries twice
/// per `sweep`, so a sweep follows any event within that time, whichever process has died. Returns whether nothing
/// failed.
pub async fn sweep_in_turn(store: &Store, artifacts: &Artifacts, settings: &Settings) -> bool {
    let swept = match store.take_chore("sweep", settings.sweep * 2 / 5).await {
        Ok(true) => sweep(store, artifacts, settings).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    swept.inspect_err(|error| tracing::warn!(%error, "Could not sweep")).is_ok()
}

/// Deletes old data and files that nobody needs, and adds up old usage, until dropped.
pub(super) async fn keep_pruning(store: Store, artifacts: Artifacts, retention: Duration) {
    let mut prunes = interval(PRUNE_EVERY);
    prunes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        prunes.tick().await;
        prune(&store, &artifacts, retention).await;
        if let Err(error) = compact_usage_now_and_then(&store).await {
            tracing::warn!(%error, "Could not add up the usage of past days");
        }
        files::expire_uploads(&store, &artifacts).await;
        files::sweep_now_and_then(&store, &artifacts).await;
    }
}

async fn sweep(store: &Store, artifacts: &Artifacts, settings: &Settings) -> store::Result<()> {
    let swept = store.sweep(settings.max_losses).await.map(|swept| {
        for id in &swept.requeued {
            tracing::warn!("The worker of prediction {id} was lost; it is queued again");
        }
        for id in &swept.ended {
            tracing::info!("Ended prediction {id} that was late, or lost once too often");
        }
        if !swept.unused_images.is_empty() {
            // As after a cancel: they were free. What is left of them is found later.
            let artifacts = artifacts.clone();
            tokio::spawn(async move { artifacts.delete(swept.unused_images).await });
        }
    });
    if let Err(error) = store.forget_silent_workers(settings.lease).await {
        tracing::warn!(%error, "Could not forget silent workers");
    }
    if let Err(error) = store.forget_progress().await {
        tracing::warn!(%error, "Could not forget the progress of ended predictions");
    }
    swept
}

/// Adds up the usage of days that are over. What is left by an error is taken up the next time.
async fn compact_usage_now_and_then(store: &Store) -> store::Result<()> {
    if store.take_chore("compact_usage", COMPACT_EVERY).await? {
        while store.compact_usage(COMPACT_CHUNK).await? == COMPACT_CHUNK {}
    }
    Ok(())
}

/// Deletes what is older than the retention, rows' data first: a file without a row is harmless, a row that promises a
/// deleted file is not.
pub async fn prune(store: &Store, artifacts: &Artifacts, retention: Duration) {
    loop {
        let pruned = match store.prune(retention, PRUNE_CHUNK).await {
            Ok(pruned) => pruned,
            Err(error) => {
                tracing::warn!(%error, "Could not prune");
                return;
            }
        };
        let full = pruned.len() as i64 == PRUNE_CHUNK;
        let deletions = pruned.into_iter().map(|id| async move {
            if let Err(error) = artifacts.delete_prediction(id).await {
                tracing::warn!(%error, "Could not delete the outputs of prediction {id}");
            }
        });
        stream::iter(deletions).buffer_unordered(DELETING_AT_ONCE).collect::<()>().await;
        if !full {
            return;
        }
    }
}
