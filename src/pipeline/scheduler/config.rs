//! What a model says about its noise: `scheduler/scheduler_config.json`.

use serde::Deserialize;

use super::PredictionType;

/// The noise the model was trained with, in diffusers' names.
///
/// The algorithm the file names is not looked at, nor are that algorithm's own options, like `use_karras_sigmas` or
/// `skip_prk_steps`: callers choose among the hosted model's schedulers, and each of those is one set of options.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// Timesteps of training.
    pub num_train_timesteps: usize,
    /// The first beta.
    pub beta_start: f64,
    /// The last beta.
    pub beta_end: f64,
    /// How betas run between: `scaled_linear` or `linear`.
    pub beta_schedule: String,
    /// Every beta, in place of a schedule.
    pub trained_betas: Option<Vec<f32>>,
    /// What the UNet predicts.
    pub prediction_type: PredictionType,
    /// Whether betas are rescaled so that the last timestep is noise alone.
    pub rescale_betas_zero_snr: bool,
    /// Whether `DDIM` and `HeunDiscrete` clip the clean sample they foresee. When the file is silent, `DDIM` does.
    #[serde(default)]
    pub clip_sample: Option<bool>,
    /// To how much on either side of 0.
    pub clip_sample_range: f32,
    /// Whether the last step of `DDIM` and `PNDM` ends without noise, rather than with that of the first training
    /// timestep. When the file is silent, that of `DDIM` does.
    #[serde(default)]
    pub set_alpha_to_one: Option<bool>,
}

impl Default for SchedulerConfig {
    /// SDXL base's.
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: "scaled_linear".into(),
            trained_betas: None,
            prediction_type: PredictionType::Epsilon,
            rescale_betas_zero_snr: false,
            clip_sample: Some(false),
            clip_sample_range: 1.0,
            set_alpha_to_one: Some(false),
        }
    }
}
