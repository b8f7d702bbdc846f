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

/// Deletes files older than `grace` that nobody needs: inputs and uploads of requests that were cut off, outputs of
/// attempts that did not count, inputs of what was canceled or failed. Returns how many: none where the files are not
/// known to be this database's.
pub async fn sweep_files(store: &Store, artifacts: &Artifacts, grace: Duration) -> anyhow::Result<usize> {
    if !are_ours(store, artifacts, grace).await? {
        return Ok(0);
    }
    let mut swept = 0;
    let mut groups = artifacts.list_older(grace);
    while let Some(keys) = groups.try_next().await? {
        let unused = store.unused_files(&keys).await?;
        swept += unused.len();
        artifacts.delete(unused).await;
    }
    Ok(swept)
}

/// Whether the files are said to be this database's. To another, or to one that is yet to be restored, all of them
/// belong to nothing. Where nothing has been said, it is said here if it is sure, for the next time.
async fn are_ours(store: &Store, artifacts: &Artifacts, grace: Duration) -> anyhow::Result<bool> {
    let id = store.site().await?.to_string();
    let found = match artifacts.site().await? {
        Some(found) if found == id => return Ok(true),
        None if are_known(store, artifacts, grace).await? => {
            artifacts.set_site(&id).await?;
            return Ok(false);
        }
        found => found,
    };
    tracing::error!(
        "The stored files are {}, and this database is of site {id}: files that belong to nothing are not deleted. Is \
         DATABASE_URL the right one, and artifacts.url or artifacts.folder? If they do belong together, write {id} \
         into the file site-id beside the folder `outputs`",
        found.map_or_else(|| "not known to be this database's".to_owned(), |other| format!("of site {other}"))
    );
    Ok(false)
}

/// Whether there are no files, or this database refers to some, and to all that are older than `grace`.
async fn are_known(store: &Store, artifacts: &Artifacts, grace: Duration) -> anyhow::Result<bool> {
    let mut older = artifacts.list_older(grace);
    while let Some(keys) = older.try_next().await? {
        if !store.unknown_files(&keys).await?.is_empty() {
            return Ok(false);
        }
    }
    let (mut all, mut is_empty) = (artifacts.list_older(Duration::ZERO), true);
    while let Some(keys) = all.try_next().await? {
        if store.unknown_files(&keys).await?.len() < keys.len() {
            return Ok(true);
        }
        is_empty = false;
    }
    Ok(is_empty)
}
