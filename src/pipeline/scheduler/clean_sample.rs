//! Where a run is going: the clean sample the UNet sees in a noisy one, whatever algorithm takes the steps.

use super::{
    super::error::Error,
    PredictionType, SchedulerConfig,
    sigmas::{finite_alphas_cumprod, interpolate, training_sigmas},
};

/// diffusers' `pred_original_sample`, for a preview: the nearest training timestep is near enough.
#[derive(Debug)]
pub struct CleanSample {
    training_sigmas: Vec<f32>,
    prediction_type: PredictionType,
}

impl CleanSample {
    /// For a model's configuration.
    pub fn new(config: &SchedulerConfig) -> Result<Self, Error> {
        Ok(Self {
            training_sigmas: training_sigmas(&finite_alphas_cumprod(config)?),
            prediction_type: config.prediction_type,
        })
    }

    /// From what the UNet was given at a timestep, and what it made of it. What it is given is in the
    /// variance-preserving view under every algorithm.
    pub fn predict(&self, model_output: &[f32], model_input: &[f32], timestep: f32) -> Vec<f32> {
        let sigma = interpolate(&self.training_sigmas, timestep);
        let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
        let weights = (alpha, alpha * sigma);
        let predict = |(&output, &input): (&f32, &f32)| {
            self.prediction_type.variance_preserving_original_sample(output, input, weights)
        };
        model_output.iter().zip(model_input).map(predict).collect()
    }
}
