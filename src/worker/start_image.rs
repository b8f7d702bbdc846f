//! The image a prediction starts from, out of the store and ready for the device before the device's time begins.

use image::RgbImage;

use super::{
    held::Held,
    outage::waited_for,
    predictor::{self, PredictError},
};
use crate::{
    artifacts::Artifacts,
    domain::{Failure, FailureCode, Input},
};

/// Loads and decodes it, if there is one, at the size to draw. Waits for a store that is away, unless the run is to stop.
pub(super) async fn load(artifacts: &Artifacts, input: &Input, held: &Held) -> Result<Option<RgbImage>, PredictError> {
    let Some(key) = &input.image else { return Ok(None) };
    let unreadable = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "Could not read the image a prediction starts from");
        let message = "the input image could not be read".to_owned();
        PredictError::Failed(Failure { code: FailureCode::Internal, message })
    };
    let stop = held.stop_token();
    let bytes = tokio::select! {
        loaded = waited_for(|| artifacts.load(key)) => loaded.map_err(|error| unreadable(&error))?,
        () = stop.cancelled() => return Err(PredictError::Canceled),
    };
    let (width, height) = (input.width, input.height);
    let prepared = tokio::task::spawn_blocking(move || predictor::start_image(&bytes, width, height));
    let prepared = tokio::select! {
        prepared = prepared => prepared,
        // It is decoded to its end for nobody.
        () = stop.cancelled() => return Err(PredictError::Canceled),
    };
    let image = prepared.map_err(|panic| unreadable(&panic))?.map_err(|reason| unreadable(&reason))?;
    Ok(Some(image))
}
