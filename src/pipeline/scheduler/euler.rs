//! `K_EULER`: Euler's method on the probability-flow ODE.
//!
//! diffusers: `scheduling_euler_discrete.py`, `EulerDiscreteScheduler` without churn, final sigma 0.

use super::{
    super::error::Error,
    Noise, PredictionType, Scheduler, SchedulerConfig,
    sigmas::{finite_alphas_cumprod, noisy, sigmas_of, trailing_timesteps, variance_preserving},
};

/// Euler's method for one image.
pub(super) struct Euler {
    timesteps: Vec<f32>,
    /// One more than there are timesteps: the last is 0.
    sigmas: Vec<f32>,
    prediction_type: PredictionType,
}

impl Euler {
    /// `EulerDiscreteScheduler.set_timesteps`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, Error> {
        let timesteps = trailing_timesteps(config.num_train_timesteps, num_inference_steps);
        let sigmas = sigmas_of(&timesteps, &finite_alphas_cumprod(config)?);
        Ok(Self { timesteps, sigmas, prediction_type: config.prediction_type })
    }
}

impl Scheduler for Euler {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        // The largest sigma, as trailing spacing starts from it; leading spacing would need sqrt(sigma^2 + 1).
        self.sigmas[0]
    }

    fn add_noise(&self, original: &[f32], noise: &[f32], index: usize) -> Vec<f32> {
        noisy(original, noise, (1.0, self.sigmas[index]))
    }

    fn scale_model_input(&self, sample: &[f32], index: usize) -> Vec<f32> {
        variance_preserving(sample, self.sigmas[index])
    }

    /// `EulerDiscreteScheduler.step`.
    fn step(&mut self, model_output: &[f32], index: usize, sample: &[f32], _noise: Noise<'_>) -> Vec<f32> {
        let sigma = self.sigmas[index];
        let dt = self.sigmas[index + 1] - sigma;
        let next = |(&output, &x): (&f32, &f32)| {
            let derivative = (x - self.prediction_type.original_sample(output, x, sigma)) / sigma;
            x + derivative * dt
        };
        model_output.iter().zip(sample).map(next).collect()
    }
}
