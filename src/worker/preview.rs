//! What a running prediction looks like by now, for those who watch.
//!
//! Beside the run and never in its way: the device's thread only projects the latents, which is a few additions a
//! pixel. Compressing and writing happen here, of the latest step alone and at most so often; a run that is over sooner
//! costs nothing.

use std::time::Duration;

use image::{RgbImage, imageops};
use tokio::sync::watch;

use super::predictor::{Preview, Step};
use crate::{
    domain::Progress,
    picture::{self, Format},
    store::{self, Claim, Store},
};

/// Between two looks. Nobody sees more than some fifteen pictures a second, and a run shorter than this is over before
/// anybody sees one.
const LOOK: Duration = Duration::from_millis(60);
/// For a glance: a few kilobytes.
const QUALITY: u8 = 80;
/// In pixels, of a finished image; it is on its way to the database for every one who watches.
const LONGER_SIDE: u32 = 512;

/// Records the steps of a claim, the latest one each time, until their sender is dropped.
pub(super) async fn show(store: Store, claim: Claim, mut steps: watch::Receiver<Option<Step>>) {
    while steps.changed().await.is_ok() {
        tokio::time::sleep(LOOK).await;
        // The sender is gone: the run is over.
        if steps.has_changed().is_err() {
            return;
        }
        let Some(step) = steps.borrow_and_update().clone() else { continue };
        let progress = Progress {
            attempt: claim.attempt,
            done: step.done,
            total: step.total,
            finished_images: step.finished_images,
            elapsed: step.elapsed,
            preview: match step.preview {
                // Whoever cancels before the last of several would have had this one for nothing.
                Some(Preview::Finished(_)) if claim.cancel_is_free() => None,
                Some(Preview::Latents(picture) | Preview::Finished(picture)) => jpeg(picture).await,
                None => None,
            },
        };
        match store.record_progress(&claim, &progress).await {
            Ok(()) => {}
            Err(store::Error::LeaseLost) => return,
            Err(error) => tracing::debug!(%error, "Could not record progress"),
        }
    }
}

async fn jpeg(image: RgbImage) -> Option<Vec<u8>> {
    let encoded = tokio::task::spawn_blocking(move || {
        let longer = image.width().max(image.height());
        let small = (longer > LONGER_SIDE).then(|| {
            let scaled = |side: u32| (side * LONGER_SIDE / longer).max(1);
            imageops::thumbnail(&image, scaled(image.width()), scaled(image.height()))
        });
        picture::write(small.as_ref().unwrap_or(&image), Format::Jpeg(QUALITY), None)
    });
    let encoded = encoded.await;
    encoded.ok()?.inspect_err(|error| tracing::debug!(%error, "Could not encode a preview")).ok()
}
