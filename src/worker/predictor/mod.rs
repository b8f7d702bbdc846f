//! The seam between workers and whatever draws: one trait, two implementations.

mod mock;
mod sdxl;
mod start_image;

use std::{ops::ControlFlow, time::Duration};

use image::RgbImage;

pub use mock::Mock;
pub use sdxl::{Sdxl, SdxlOptions, best_dtype};

pub(super) use start_image::start_image;

use crate::domain::{Failure, Input, Safety};

/// Something that can run predictions on the thread that owns it.
pub trait Predictor {
    /// Makes the first real prediction as fast as the rest: compiles, allocates, pages in.
    fn warm_up(&mut self) -> Result<(), Failure>;

    /// Bytes that are in use of the memory of the device; `None` if it has none of its own.
    fn memory(&self) -> Option<u64> {
        None
    }

    /// Runs a prediction, starting from `image` where there is one; it has the size to draw. `on_step` is called after
    /// each UNet call and each image; when it breaks, the run stops with [`PredictError::Canceled`] before the next
    /// one. The images exist in host memory when this returns, so the time it took is the time the device was used.
    fn predict(
        &mut self,
        input: &Input,
        image: Option<&RgbImage>,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError>;

    /// Runs predictions that [go together](Input::goes_with), side by side where that is possible. `on_step` is told
    /// whose step it was; where it breaks, the others go on. There is a result for each, in the same order.
    fn predict_batch(
        &mut self,
        requests: &[Request<'_>],
        on_step: &mut dyn FnMut(usize, Step) -> ControlFlow<()>,
    ) -> Vec<Result<Drawn, PredictError>> {
        let one = |(place, request): (usize, &Request<'_>)| {
            self.predict(request.input, request.image, &mut |step| on_step(place, step))
        };
        requests.iter().enumerate().map(one).collect()
    }
}

/// What a prediction of a batch asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to draw.
    pub input: &'a Input,
    /// The image to start from.
    pub image: Option<&'a RgbImage>,
}

/// How far a run is: told after every UNet call, and after every image that is not the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many UNet calls are done.
    pub done: u32,
    /// How many there will be, over all images of the prediction.
    pub total: u32,
    /// How many images are finished.
    pub finished_images: u32,
    /// Since the run began.
    pub elapsed: Duration,
    /// What the image being drawn looks like by now, if that can be told cheaply; right after one is finished, that
    /// one.
    pub preview: Option<Preview>,
}

/// What there is to see of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preview {
    /// What its latents look like: an eighth its size or smaller.
    Latents(RgbImage),
    /// All of it.
    Finished(RgbImage),
}

/// What a run produced.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// As many as were asked for, in the order of their seeds; `None` where the safety checker left one out.
    pub images: Vec<Option<RgbImage>>,
    /// Whether they were looked at.
    pub safety: Safety,
    /// Remarks for the prediction's logs, such as what of the prompt was cut.
    pub notes: Vec<String>,
}

/// Why a run produced nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PredictError {
    /// `on_step` asked for it.
    #[error("canceled")]
    Canceled,
    /// It cannot be done.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// The device is gone, and it was not its turn yet. Told by the device's thread, never by a predictor.
    #[error("the device is gone")]
    DeviceLost,
}
