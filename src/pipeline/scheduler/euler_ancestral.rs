//! `K_EULER_ANCESTRAL`: an Euler step past the next noise level, and fresh noise back up to it.
//!
//! diffusers: `scheduling_euler_ancestral_discrete.py`, `EulerAncestralDiscreteScheduler`.

use super::{
    super::error::Error,
    Noise, PredictionType, Scheduler, SchedulerConfig,
    sigmas::{finite_alphas_cumprod, noisy, sigmas_of, trailing_timesteps, variance_preserving},
};

/// Ancestral sampling with Euler's method for one image.
pub(super) struct EulerAncestral {
    timesteps: Vec<f32>,
    /// One more than there are timesteps: the last is 0.
    sigmas: Vec<f32>,
    prediction_type: PredictionType,
}

impl EulerAncestral {
    /// `EulerAncestralDiscreteScheduler.set_timesteps`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, Error> {
        let timesteps = trailing_timesteps(config.num_train_timesteps, num_inference_steps);
        let sigmas = sigmas_of(&timesteps, &finite_alphas_cumprod(config)?);
        Ok(Self { timesteps, sigmas, prediction_type: config.prediction_type })
    }
}

impl Scheduler for EulerAncestral {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        self.sigmas[0]
    }

    fn add_noise(&self, original: &[f32], noise: &[f32], index: usize) -> Vec<f32> {
        noisy(original, noise, (1.0, self.sigmas[index]))
    }

    fn scale_model_input(&self, sample: &[f32], index: usize) -> Vec<f32> {
        variance_preserving(sample, self.sigmas[index])
    }

    /// `EulerAncestralDiscreteScheduler.step`.
    fn step(&mut self, model_output: &[f32], index: usize, sample: &[f32], noise: Noise<'_>) -> Vec<f32> {
        let (from, to) = (self.sigmas[index], self.sigmas[index + 1]);
        let sigma_up = (to * to * (from * from - to * to) / (from * from)).sqrt();
        let sigma_down = (to * to - sigma_up * sigma_up).sqrt();
        let dt = sigma_down - from;
        let next = |((&output, &x), noise): ((&f32, &f32), f32)| {
            let derivative = (x - self.prediction_type.original_sample(output, x, from)) / from;
            x + derivative * dt + noise * sigma_up
        };
        // The last step draws too, though its sigma_up is 0: the stream must be where diffusers leaves it.
        model_output.iter().zip(sample).zip(noise(sample.len())).map(next).collect()
    }
}
