//! A predictor without a model, for tests of everything else and for load tests: it takes a configured time per step
//! and draws a picture that depends on prompt and seed alone.

use std::{
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use image::{Rgb, RgbImage};
use sha2::{Digest, Sha256};

use super::{Drawn, PredictError, Predictor, Step};
use crate::{
    domain::{Failure, Input, Safety, Scheduler},
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
        let begun = Instant::now();
        let size = (input.width, input.height);
        let draw = |seed| blend(gradient(input, size, seed), image, input.prompt_strength);
        let total = unet_calls(input) * input.num_outputs;
        for done in 1..=total {
            let step = Instant::now();
            if !self.step_time.is_zero() {
                thread::sleep(self.step_time);
            }
            metrics::stage_ended(Stage::UnetStep, step.elapsed());
            // Nobody could see a step that takes no time.
            let shows = !self.step_time.is_zero();
            let steps = total / input.num_outputs;
            let mut now =
                Step { done, total, finished_images: (done - 1) / steps, elapsed: begun.elapsed(), preview: None };
            now.preview = shows.then(|| preview(input, done, total));
            if on_step(now.clone()).is_break() {
                return Err(PredictError::Canceled);
            }
            if done % steps == 0 && done < total {
                let image = (done - 1) / steps;
                now.finished_images = image + 1;
                now.preview = shows.then(|| draw(input.seed.wrapping_add(image.into())));
                if on_step(now).is_break() {
                    return Err(PredictError::Canceled);
                }
            }
        }
        let images = input.seeds().map(draw).map(Some).collect();
        let safety = if input.disable_safety_checker { Safety::Disabled } else { Safety::Unavailable };
        Ok(Drawn { images, safety, notes: vec!["Drawn by the mock predictor: no model ran".to_owned()] })
    }
}

/// UNet calls of one image: Heun and KDPM2 look twice at all steps but the last, PNDM repeats its second, and an image to
/// start from spares the first.
fn unet_calls(input: &Input) -> u32 {
    let steps = input.num_inference_steps;
    let spared = match input.image {
        Some(_) => steps.saturating_sub((f64::from(steps) * input.prompt_strength) as u32),
        None => 0,
    };
    match input.scheduler {
        Scheduler::HeunDiscrete | Scheduler::DpmPlusPlus2MSde => (2 * steps - 1).saturating_sub(2 * spared),
        Scheduler::Pndm if steps > 1 => steps + 1 - spared,
        _ => steps - spared,
    }
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
