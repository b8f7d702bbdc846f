//! The image a prediction starts from, out of the store and ready for the device before the device's time begins.

use image::RgbImage;

use super::predictor;
use crate::{
    artifacts::Artifacts,
    domain::{Failure, FailureCode, Input},
};

/// Loads and decodes it, if there is one, at the size to draw.
pub(super) async fn load(artifacts: &Artifacts, input: &Input) -> Result<Option<RgbImage>, Failure> {
    let Some(key) = &input.image else { return Ok(None) };
    let unreadable = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "Could not read the image a prediction starts from");
        Failure { code: FailureCode::Internal, message: "the input image could not be read".to_owned() }
    };
    let bytes = artifacts.load(key).await.map_err(|error| unreadable(&error))?;
    let (width, height) = (input.width, input.height);
    let prepared = tokio::task::spawn_blocking(move || predictor::start_image(&bytes, width, height)).await;
    let image = prepared.map_err(|panic| unreadable(&panic))?.map_err(|reason| unreadable(&reason))?;
    Ok(Some(image))
}
