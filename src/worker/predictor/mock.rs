//! A predictor without a model, for tests of everything else and for load tests: it takes a configured time per step
//! and draws a picture that depends on prompt and seed alone.

use std::{
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use image::{Rgb, RgbImage};
use sha2::{Digest, Sha256};

use super::{Drawn, PredictError, Predictor, Preview, Request, Step};
use crate::{
    domain::{Failure, Input, Safety},
    metrics::{self, Stage},
};

/// Draws two-colored gradients, deterministically.
#[derive(Clone, Copy, Debug)]
pub struct Mock {
    step_time: Duration,
}

impl Mock {
    /// A mock that takes `step_time` for each UNet call it pretends to make.
    pub const fn new(step_time: Duration) -> Self {
        Self { step_time }
    }
}

impl Predictor for Mock {
    fn warm_up(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn predict(
        &mut self,
        input: &Input,
        image: Option<&RgbImage>,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError> {
        self.predict_batch(&[Request { input, image }], &mut |_, step| on_step(step)).remove(0)
    }

    /// Side by side: a step of all takes no longer than a step of one.
    fn predict_batch(
        &mut self,
        requests: &[Request<'_>],
        on_step: &mut dyn FnMut(usize, Step) -> ControlFlow<()>,
    ) -> Vec<Result<Drawn, PredictError>> {
        let begun = Instant::now();
        let mut is_canceled = vec![false; requests.len()];
        let total = requests.first().map_or(0, |request| request.input.unet_calls() * request.input.num_outputs);
        for done in 1..=total {
            let step = Instant::now();
            if !self.step_time.is_zero() {
                thread::sleep(self.step_time);
            }
            metrics::stage_ended(Stage::UnetStep, step.elapsed());
            for ((place, request), is_canceled) in requests.iter().enumerate().zip(&mut is_canceled) {
                if !*is_canceled {
                    *is_canceled = self.tell(request, done, begun, &mut |step| on_step(place, step)).is_break();
                }
            }
            if is_canceled.iter().all(|canceled| *canceled) {
                break;
            }
        }
        let result = |(request, is_canceled): (&Request<'_>, bool)| match is_canceled {
            true => Err(PredictError::Canceled),
            false => Ok(drawn(request)),
        };
        requests.iter().zip(is_canceled).map(result).collect()
    }
}

impl Mock {
    /// Tells of a step, and of the image that it finished.
    fn tell(
        self,
        request: &Request<'_>,
        done: u32,
        begun: Instant,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let input = request.input;
        let steps = input.unet_calls();
        let total = steps * input.num_outputs;
        // Nobody could see a step that takes no time.
        let shows = !self.step_time.is_zero();
        let mut now =
            Step { done, total, finished_images: (done - 1) / steps, elapsed: begun.elapsed(), preview: None };
        now.preview = shows.then(|| Preview::Latents(preview(input, done, total)));
        on_step(now.clone())?;
        if done.is_multiple_of(steps) && done < total {
            let image = (done - 1) / steps;
            now.finished_images = image + 1;
            now.preview = shows.then(|| Preview::Finished(draw(request, input.seed.wrapping_add(image.into()))));
            on_step(now)?;
        }
        ControlFlow::Continue(())
    }
}

fn drawn(request: &Request<'_>) -> Drawn {
    let images = request.input.seeds().map(|seed| Some(draw(request, seed))).collect();
    let safety = if request.input.disable_safety_checker { Safety::Disabled } else { Safety::Unavailable };
    Drawn { images, safety, notes: vec!["Drawn by the mock predictor: no model ran".to_owned()] }
}

fn draw(&Request { input, image }: &Request<'_>, seed: u64) -> RgbImage {
    blend(gradient(input, (input.width, input.height), seed), image, input.prompt_strength)
}

/// The picture being drawn, small and still half in the dark.
fn preview(input: &Input, done: u32, total: u32) -> RgbImage {
    let steps = (total / input.num_outputs).max(1);
    let seed = input.seed.wrapping_add(u64::from((done - 1) / steps));
    let mut picture = gradient(input, (input.width / 8, input.height / 8), seed);
    let light = (done - 1) % steps + 1;
    picture.iter_mut().for_each(|value| *value = (u32::from(*value) * light / steps) as u8);
    picture
}

/// As much of the image as its strength leaves, so that it shows in the result.
fn blend(mut drawn: RgbImage, image: Option<&RgbImage>, strength: f64) -> RgbImage {
    for (level, start) in drawn.iter_mut().zip(image.into_iter().flat_map(|image| image.iter())) {
        *level = (f64::from(*level) * strength + f64::from(*start) * (1.0 - strength)) as u8;
    }
    drawn
}

fn gradient(input: &Input, (width, height): (u32, u32), seed: u64) -> RgbImage {
    let digest = Sha256::new().chain_update(&input.prompt).chain_update(seed.to_le_bytes()).finalize();
    let row = |y: u32| {
        let share = y * 255 / height;
        [0, 1, 2].map(|channel| {
            let (top, bottom) = (u32::from(digest[channel]), u32::from(digest[channel + 3]));
            ((top * (255 - share) + bottom * share) / 255) as u8
        })
    };
    let mut image = RgbImage::new(width, height);
    for (y, pixels) in image.enumerate_rows_mut() {
        let color = Rgb(row(y));
        pixels.for_each(|(_, _, pixel)| *pixel = color);
    }
    image
}
