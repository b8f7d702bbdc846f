//! `DDIM`: the deterministic step of denoising diffusion implicit models.
//!
//! diffusers: `scheduling_ddim.py`, `DDIMScheduler` with eta 0.

use super::{
    super::error::Error,
    Noise, PredictionType, Scheduler, SchedulerConfig,
    sigmas::{noisy, rescaled_alphas_cumprod, trailing_timesteps},
};

/// DDIM for one image.
pub(super) struct Ddim {
    timesteps: Vec<f32>,
    alphas_cumprod: Vec<f32>,
    /// What stands for `alphas_cumprod` after the last step.
    final_alpha_cumprod: f32,
    /// From a timestep to the one it steps to, in whole timesteps even where the spacing is not.
    stride: usize,
    prediction_type: PredictionType,
    clip_sample: Option<f32>,
}

impl Ddim {
    /// `DDIMScheduler.__init__` and `set_timesteps`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, Error> {
        let alphas_cumprod = rescaled_alphas_cumprod(config)?;
        Ok(Self {
            timesteps: trailing_timesteps(config.num_train_timesteps, num_inference_steps),
            final_alpha_cumprod: if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { alphas_cumprod[0] },
            alphas_cumprod,
            stride: config.num_train_timesteps / num_inference_steps,
            prediction_type: config.prediction_type,
            clip_sample: config.clip_sample.unwrap_or(true).then_some(config.clip_sample_range),
        })
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn add_noise(&self, original: &[f32], noise: &[f32], index: usize) -> Vec<f32> {
        let alpha_prod = self.alphas_cumprod[self.timesteps[index] as usize];
        noisy(original, noise, (alpha_prod.sqrt(), (1.0 - alpha_prod).sqrt()))
    }

    fn scale_model_input(&self, sample: &[f32], _index: usize) -> Vec<f32> {
        sample.to_vec()
    }

    /// `DDIMScheduler.step`.
    fn step(&mut self, model_output: &[f32], index: usize, sample: &[f32], _noise: Noise<'_>) -> Vec<f32> {
        let timestep = self.timesteps[index] as usize;
        let previous = timestep.checked_sub(self.stride);
        let alpha_prod = self.alphas_cumprod[timestep];
        let alpha_prod_previous = previous.map_or(self.final_alpha_cumprod, |timestep| self.alphas_cumprod[timestep]);
        let (alpha, sigma) = (alpha_prod.sqrt(), (1.0 - alpha_prod).sqrt());
        let (alpha_previous, sigma_previous) = (alpha_prod_previous.sqrt(), (1.0 - alpha_prod_previous).sqrt());
        let next = |(&output, &x): (&f32, &f32)| {
            let original = self.prediction_type.variance_preserving_original_sample(output, x, (alpha, sigma));
            let epsilon = match self.prediction_type {
                PredictionType::Epsilon => output,
                PredictionType::VPrediction => alpha * output + sigma * x,
                PredictionType::Sample => (x - alpha * original) / sigma,
            };
            // The noise is that of the sample before it is clipped: `use_clipped_model_output=False`.
            let original = self.clip_sample.map_or(original, |range| original.clamp(-range, range));
            alpha_previous * original + sigma_previous * epsilon
        };
        model_output.iter().zip(sample).map(next).collect()
    }
}
