//! `HeunDiscrete`: an Euler step to the next noise level, and a second one from where it began with the mean of both
//! slopes.
//!
//! diffusers: `scheduling_heun_discrete.py`, `HeunDiscreteScheduler`. Even calls are the first of a step and odd calls
//! the second; the last step, down to sigma 0, has no second.

use super::{
    super::error::Error,
    Noise, PredictionType, Scheduler, SchedulerConfig,
    sigmas::{alphas_cumprod, noisy, sigmas_of, trailing_timesteps, variance_preserving},
};

/// Heun's method for one image.
pub(super) struct Heun {
    /// One a call: each but the first is there twice.
    timesteps: Vec<f32>,
    /// One a step, and a last one of 0.
    sigmas: Vec<f32>,
    prediction_type: PredictionType,
    clip_sample: Option<f32>,
    /// Where the step under way began, and its slope there.
    first: Option<(Vec<f32>, Vec<f32>)>,
}

impl Heun {
    /// `HeunDiscreteScheduler.set_timesteps`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, Error> {
        let steps = trailing_timesteps(config.num_train_timesteps, num_inference_steps);
        let sigmas = sigmas_of(&steps, &alphas_cumprod(config)?);
        let timesteps = (0..2 * num_inference_steps - 1).map(|call: usize| steps[call.div_ceil(2)]).collect();
        let clip_sample = config.clip_sample.unwrap_or(false).then_some(config.clip_sample_range);
        Ok(Self { timesteps, sigmas, prediction_type: config.prediction_type, clip_sample, first: None })
    }

    /// The slope of the ODE at this noise level.
    fn derivative(&self, model_output: &[f32], sample: &[f32], sigma: f32) -> Vec<f32> {
        let at = |(&output, &x): (&f32, &f32)| {
            let original = self.prediction_type.original_sample(output, x, sigma);
            (x - self.clip_sample.map_or(original, |range| original.clamp(-range, range))) / sigma
        };
        model_output.iter().zip(sample).map(at).collect()
    }
}

impl Scheduler for Heun {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        self.sigmas[0]
    }

    fn add_noise(&self, original: &[f32], noise: &[f32], index: usize) -> Vec<f32> {
        noisy(original, noise, (1.0, self.sigmas[index.div_ceil(2)]))
    }

    fn scale_model_input(&self, sample: &[f32], index: usize) -> Vec<f32> {
        variance_preserving(sample, self.sigmas[index.div_ceil(2)])
    }

    /// `HeunDiscreteScheduler.step`.
    fn step(&mut self, model_output: &[f32], index: usize, sample: &[f32], _noise: Noise<'_>) -> Vec<f32> {
        let (sigma, sigma_next) = (self.sigmas[index / 2], self.sigmas[index / 2 + 1]);
        let dt = sigma_next - sigma;
        if let Some((start, slope)) = self.first.take() {
            let derivative = self.derivative(model_output, sample, sigma_next);
            let mean = slope.iter().zip(&derivative).map(|(a, b)| (a + b) / 2.0);
            return start.iter().zip(mean).map(|(x, slope)| x + slope * dt).collect();
        }
        let derivative = self.derivative(model_output, sample, sigma);
        let next = sample.iter().zip(&derivative).map(|(x, slope)| x + slope * dt).collect();
        self.first = Some((sample.to_vec(), derivative));
        next
    }
}
