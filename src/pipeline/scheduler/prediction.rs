//! What a UNet predicts, and the clean sample that follows from it.
//!
//! diffusers writes these formulas out in every scheduler's `step` (`pred_original_sample`, `x0_pred`). There are two
//! views of the same noise: k-diffusion's, where a sample is `x0 + sigma * noise`, and the variance-preserving one,
//! where it is `alpha * x0 + sigma * noise` with `alpha^2 + sigma^2 = 1`.

use serde::Deserialize;

/// What the UNet was trained to predict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    #[default]
    Epsilon,
    /// The velocity of v-prediction.
    VPrediction,
    /// The clean sample, as the one-step checkpoint does.
    Sample,
}

impl PredictionType {
    /// The clean sample, in k-diffusion's view.
    pub(super) fn original_sample(self, model_output: f32, sample: f32, sigma: f32) -> f32 {
        match self {
            Self::Epsilon => sample - sigma * model_output,
            Self::VPrediction => {
                let variance = sigma * sigma + 1.0;
                model_output * (-sigma / variance.sqrt()) + sample / variance
            }
            Self::Sample => model_output,
        }
    }

    /// The clean sample, in the variance-preserving view.
    pub(super) fn variance_preserving_original_sample(
        self,
        model_output: f32,
        sample: f32,
        (alpha, sigma): (f32, f32),
    ) -> f32 {
        match self {
            Self::Epsilon => (sample - sigma * model_output) / alpha,
            Self::VPrediction => alpha * sample - sigma * model_output,
            Self::Sample => model_output,
        }
    }
}
