//! Files that nobody needs any more: uploads that have expired, and what a crash has left without a row.

use std::time::Duration;

use futures_util::TryStreamExt;

use crate::{artifacts::Artifacts, store::Store};

/// How long the bytes of an upload may take to come after it was begun. A little longer than a ticket is good for.
const UNSENT: Duration = Duration::from_secs(20 * 60);
/// How many uploads are deleted by one statement.
const CHUNK: i64 = 100;
/// How often files without a row are looked for, by one process for all.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// A younger file may still get its row: nothing takes so long from the one to the other.
const GRACE: Duration = Duration::from_secs(2 * 60 * 60);

/// Deletes uploads that have expired, or were begun and never finished; their rows first.
pub async fn expire_uploads(store: &Store, artifacts: &Artifacts) {
    loop {
        match store.expire_uploads(UNSENT, CHUNK).await {
            Ok(keys) if keys.is_empty() => return,
            Ok(keys) => artifacts.delete(keys).await,
            Err(error) => {
                tracing::debug!(%error, "Could not expire uploads");
                return;
            }
        }
    }
}

/// Looks for files without a row now and then.
pub(super) async fn sweep_now_and_then(store: &Store, artifacts: &Artifacts) {
    match store.take_chore("sweep_files", LOOK_EVERY).await {
        Ok(false) => {}
        Ok(true) => match sweep_files(store, artifacts, GRACE).await {
            Ok(0) => {}
            Ok(swept) => tracing::info!("Deleted {swept} files that belonged to nothing"),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "Could not look for files that belong to nothing")
            }
        },
        Err(error) => tracing::debug!(%error, "Could not take on the sweep of files"),
    }
}

/// Deletes files older than `grace` that no row refers to: inputs and uploads of requests that were cut off, outputs of
/// attempts that did not count. Returns how many.
pub async fn sweep_files(store: &Store, artifacts: &Artifacts, grace: Duration) -> anyhow::Result<usize> {
    let mut swept = 0;
    let mut groups = artifacts.list_older(grace);
    while let Some(keys) = groups.try_next().await? {
        let unused = store.unused_files(&keys).await?;
        swept += unused.len();
        artifacts.delete(unused).await;
    }
    Ok(swept)
}
