//! Where image to image starts: an image's latents instead of none.
//!
//! diffusers: `pipeline_stable_diffusion_xl_img2img.py`, `StableDiffusionXLImg2ImgPipeline.prepare_latents`.

use super::{error::Error, noise::TorchCudaRng};

/// A normal distribution for each number of an image's latents, channel by channel, row by row.
pub(super) struct ImageLatents {
    mean: Vec<f32>,
    std: Vec<f32>,
    /// What samples are multiplied with to have unit variance.
    scaling_factor: f32,
}

impl ImageLatents {
    /// From what the VAE's encoder says.
    pub(super) fn new(mean: Vec<f32>, logvar: &[f32], scaling_factor: f64) -> Result<Self, Error> {
        let std: Vec<f32> = logvar.iter().map(|logvar| (0.5 * logvar).exp()).collect();
        if !mean.iter().chain(&std).all(|value| value.is_finite()) {
            return Err(Error::NotFinite { stage: "the VAE's encoder" });
        }
        Ok(Self { mean, std, scaling_factor: scaling_factor as f32 })
    }

    /// `DiagonalGaussianDistribution.sample`, scaled.
    pub(super) fn sample(&self, rng: &mut TorchCudaRng) -> Vec<f32> {
        let noise = rng.normal(self.mean.len());
        let sample = |((mean, std), noise): ((&f32, &f32), f32)| self.scaling_factor * (mean + std * noise);
        self.mean.iter().zip(&self.std).zip(noise).map(sample).collect()
    }
}
