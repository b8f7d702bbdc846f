//! The image of a create: checked before anything is queued, stored beside the prediction, and shortened in what is echoed.

use std::time::Duration;

use tracing::Instrument;

use super::{Error, Result, Shared};
use crate::{
    artifacts::Artifacts,
    domain::{
        ImageSource, Input, InputLimits, InvalidInput, NewPrediction, Prediction, PredictionId, Status, size_from_image,
    },
    picture,
};

/// Pictures decoded at the same time, each with up to 64 MB of pixels; further ones wait.
pub(super) const DECODED_AT_ONCE: usize = 2;

/// Pictures fetched at the same time, each up to [`picture::MAX_BYTES`]; further ones wait.
pub(super) const FETCHED_AT_ONCE: usize = 16;

/// How long they wait for either.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// An image as an input names it, not looked at yet.
#[derive(Debug)]
pub(super) struct NamedImage {
    /// The field that names it.
    pub(super) field: &'static str,
    /// A `data:` URI, a URL, or the id of an upload.
    pub(super) text: String,
}

impl Shared {
    /// Loads and checks the image of a prediction, and lets it decide on the size where the caller has not. Returns the
    /// file's bytes.
    pub(super) async fn load_image(
        &self,
        new: &mut NewPrediction,
        NamedImage { field, text }: NamedImage,
        limits: &InputLimits,
    ) -> Result<Vec<u8>> {
        let refuse = |reason: String| InvalidInput::one(format!("input.{field}"), reason);
        let bytes = match self.own_file(new.account_id, &text).await? {
            Some(bytes) => bytes.map_err(refuse)?,
            None => match ImageSource::parse(&text).map_err(refuse)? {
                ImageSource::Inline { payload, .. } => ImageSource::decode(payload).map_err(refuse)?,
                ImageSource::Remote(url) => {
                    let _place = self.fetching.take(new.account_id).await?;
                    self.fetcher.get(url, picture::MAX_BYTES).await.map_err(|error| refuse(error.to_string()))?
                }
            },
        };
        let (size, bytes) =
            self.check_picture(new.account_id, bytes).await?.map_err(|reason| refuse(reason.to_string()))?;
        let (raw, input) = (&new.raw_input, &mut new.input);
        let given = |side, pixels| Input::is_given(raw, side).then_some(pixels);
        let given = (given("width", input.width), given("height", input.height));
        (input.width, input.height) = size_from_image(size, given, (limits.min_size, limits.max_size));
        Ok(bytes)
    }

    /// Decodes a file to see whether a prediction can start from it; returns its size in pixels, and the file again.
    pub(super) async fn check_picture(
        &self,
        account_id: i64,
        bytes: Vec<u8>,
    ) -> Result<std::result::Result<((u32, u32), Vec<u8>), picture::Unreadable>> {
        // The place is kept until the picture is decoded, even if its client hangs up.
        let place = self.decoding.take(account_id).await?;
        let checked = tokio::task::spawn_blocking(move || {
            let _place = place;
            picture::read(&bytes).map(|image| (image.dimensions(), bytes))
        });
        checked.await.map_err(|panic| Error::Internal(panic.into()))
    }

    /// Stores the image of a prediction about to be created and returns its key.
    pub(super) async fn store_image(&self, prediction: PredictionId, bytes: Vec<u8>) -> Result<String> {
        let key = Artifacts::input_key(prediction).map_err(super::internal)?;
        self.artifacts.put(&key, bytes).await?;
        Ok(key)
    }

    /// Deletes the image of a prediction that was canceled before any worker had it. It was free, and would be kept as
    /// long as one that was paid for: whoever creates and cancels again and again would fill the store for nothing. Only
    /// a worker reads it; what is shown of it is in the row. Nobody waits for this: a store that is away keeps nobody
    /// from canceling, and what is left is swept.
    pub(super) fn forget_image(&self, prediction: &Prediction) {
        let never_ran = prediction.status == Status::Canceled && prediction.attempt == 0;
        if let Some(key) = prediction.input.image.clone().filter(|_| never_ran) {
            let artifacts = self.artifacts.clone();
            tokio::spawn(async move { artifacts.delete(vec![key]).await }.in_current_span());
        }
    }
}
