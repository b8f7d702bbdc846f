//! The regular work that belongs to no prediction: taking predictions from dead workers, ending late ones, deleting old
//! data. Every process does it; the statements see to it that none is done twice.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{Settings, files};
use crate::{artifacts::Artifacts, store::Store};

/// How often old data is looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// How many predictions are pruned by one statement.
const PRUNE_CHUNK: i64 = 1000;

/// Sweeps and prunes until dropped.
pub(super) async fn keep_tidy(store: Store, artifacts: Artifacts, settings: Settings) {
    let mut sweeps = interval(settings.sweep);
    let mut prunes = interval(PRUNE_EVERY);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    prunes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = sweeps.tick() => sweep(&store, &settings).await,
            _ = prunes.tick() => {
                prune(&store, &artifacts, settings.retention).await;
                files::expire_uploads(&store, &artifacts).await;
                files::sweep_now_and_then(&store, &artifacts).await;
            }
        }
    }
}

async fn sweep(store: &Store, settings: &Settings) {
    match store.sweep(settings.max_losses).await {
        Ok(swept) => {
            for id in &swept.requeued {
                tracing::warn!("The worker of prediction {id} was lost; it is queued again");
            }
            for id in &swept.ended {
                tracing::info!("Ended prediction {id} that was late, or lost once too often");
            }
        }
        Err(error) => tracing::warn!(%error, "Could not sweep"),
    }
    if let Err(error) = store.forget_silent_workers(settings.lease).await {
        tracing::warn!(%error, "Could not forget silent workers");
    }
    if let Err(error) = store.forget_progress().await {
        tracing::warn!(%error, "Could not forget the progress of ended predictions");
    }
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
        for id in pruned {
            if let Err(error) = artifacts.delete_prediction(id).await {
                tracing::warn!(%error, "Could not delete the outputs of prediction {id}");
            }
        }
        if !full {
            return;
        }
    }
}
