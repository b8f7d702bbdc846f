//! Noise schedulers: how a UNet's outputs become the next latents.
//!
//! One file an algorithm, none importing another; the names are the hosted model's. The arithmetic runs on the host in
//! f32, on every device alike: a latent is small, and a trajectory that does not depend on the device is worth its
//! copy.

mod clean_sample;
mod config;
mod ddim;
mod dpm_solver_multistep;
mod euler;
mod euler_ancestral;
mod heun;
mod kdpm2_ancestral;
mod pndm;
mod prediction;
mod sigmas;

use std::{fmt, str::FromStr};

use super::error::Error;
pub use clean_sample::CleanSample;
pub use config::SchedulerConfig;
use dpm_solver_multistep::DpmSolverMultistep;
pub use prediction::PredictionType;

/// The schedulers callers can name. All use trailing timestep spacing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SchedulerName {
    /// `DDIM`: diffusers' `DDIMScheduler`.
    Ddim,
    /// `DPMSolverMultistep`: diffusers' `DPMSolverMultistepScheduler`.
    DpmSolverMultistep,
    /// `HeunDiscrete`: diffusers' `HeunDiscreteScheduler`.
    HeunDiscrete,
    /// `KarrasDPM`: `DPMSolverMultistepScheduler` with Karras' sigmas.
    KarrasDpm,
    /// `K_EULER_ANCESTRAL`: diffusers' `EulerAncestralDiscreteScheduler`.
    EulerAncestral,
    /// `K_EULER`: diffusers' `EulerDiscreteScheduler`, the one SDXL-Lightning was distilled for.
    #[default]
    Euler,
    /// `PNDM`: diffusers' `PNDMScheduler` without Runge-Kutta steps.
    Pndm,
    /// `DPM++2MSDE`: in spite of the hosted name, diffusers' `KDPM2AncestralDiscreteScheduler`.
    DpmPlusPlus2MSde,
}

impl SchedulerName {
    /// Every scheduler, in the hosted model's order.
    pub const ALL: [Self; 8] = [
        Self::Ddim,
        Self::DpmSolverMultistep,
        Self::HeunDiscrete,
        Self::KarrasDpm,
        Self::EulerAncestral,
        Self::Euler,
        Self::Pndm,
        Self::DpmPlusPlus2MSde,
    ];

    /// The hosted name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "DDIM",
            Self::DpmSolverMultistep => "DPMSolverMultistep",
            Self::HeunDiscrete => "HeunDiscrete",
            Self::KarrasDpm => "KarrasDPM",
            Self::EulerAncestral => "K_EULER_ANCESTRAL",
            Self::Euler => "K_EULER",
            Self::Pndm => "PNDM",
            Self::DpmPlusPlus2MSde => "DPM++2MSDE",
        }
    }

    /// UNet calls of a step that is not the last: diffusers' `order`.
    pub fn order(self) -> usize {
        match self {
            Self::HeunDiscrete | Self::DpmPlusPlus2MSde => 2,
            _ => 1,
        }
    }

    /// How often the UNet runs for one image of so many steps: second-order schedulers call it twice but on the last
    /// step, PNDM repeats its second timestep. Image to image leaves out the first [`SchedulerName::begin_index`]
    /// calls.
    pub fn unet_calls(self, num_inference_steps: usize) -> usize {
        match self {
            Self::HeunDiscrete | Self::DpmPlusPlus2MSde => (2 * num_inference_steps).saturating_sub(1),
            Self::Pndm if num_inference_steps > 1 => num_inference_steps + 1,
            _ => num_inference_steps,
        }
    }

    /// Whether diffusers' class takes `prediction_type="sample"`.
    fn steps_from_samples(self) -> bool {
        !matches!(self, Self::EulerAncestral | Self::Pndm | Self::DpmPlusPlus2MSde)
    }

    /// The call image to image begins with: a `strength` of 1 takes every step, half of it the later half.
    ///
    /// diffusers: `pipeline_stable_diffusion_xl_img2img.py`, `StableDiffusionXLImg2ImgPipeline.get_timesteps`.
    pub fn begin_index(self, num_inference_steps: usize, strength: f64) -> Result<usize, Error> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::Params(format!("strength must be between 0 and 1, not {strength}")));
        }
        let init_timestep = ((num_inference_steps as f64 * strength) as usize).min(num_inference_steps);
        if init_timestep == 0 {
            return Err(Error::Params(format!(
                "num_inference_steps * strength must be at least 1, or no step is left to take: \
                 {num_inference_steps} * {strength} is not"
            )));
        }
        let t_start = num_inference_steps - init_timestep;
        Ok(t_start * self.order())
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for SchedulerName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scheduler| scheduler.as_str() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|scheduler| scheduler.as_str()).collect();
            format!("unknown scheduler {name}; the schedulers are {}", names.join(", "))
        })
    }
}

/// A source of standard normal numbers, drawn only by the ancestral algorithms.
pub type Noise<'a> = &'a mut dyn FnMut(usize) -> Vec<f32>;

/// One sampling algorithm, set up for one image.
///
/// Calls are counted from the first of a text-to-image run, and made in order. Image to image begins with call
/// [`SchedulerName::begin_index`], which must be an algorithm's first.
pub trait Scheduler {
    /// The timestep of each UNet call, in order; some are not whole numbers.
    fn timesteps(&self) -> &[f32];

    /// What pure noise is multiplied with before the first call.
    fn init_noise_sigma(&self) -> f32;

    /// An image's latents under as much noise as call `index` expects: what image to image begins with.
    fn add_noise(&self, original: &[f32], noise: &[f32], index: usize) -> Vec<f32>;

    /// The UNet's input for call `index`.
    fn scale_model_input(&self, sample: &[f32], index: usize) -> Vec<f32>;

    /// The sample after call `index`, given what the UNet made of it.
    fn step(&mut self, model_output: &[f32], index: usize, sample: &[f32], noise: Noise<'_>) -> Vec<f32>;
}

/// Sets up a scheduler for one image.
pub fn scheduler(
    name: SchedulerName,
    config: &SchedulerConfig,
    num_inference_steps: usize,
) -> Result<Box<dyn Scheduler>, Error> {
    if num_inference_steps == 0 || num_inference_steps > config.num_train_timesteps {
        return Err(Error::Params(format!(
            "num_inference_steps must be between 1 and {}, not {num_inference_steps}",
            config.num_train_timesteps
        )));
    }
    if config.prediction_type == PredictionType::Sample && !name.steps_from_samples() {
        return Err(Error::Params(format!(
            "the scheduler {name} does not work with a model that predicts the clean sample; {} does",
            SchedulerName::Euler
        )));
    }
    Ok(match name {
        SchedulerName::Ddim => Box::new(ddim::Ddim::new(config, num_inference_steps)?),
        SchedulerName::DpmSolverMultistep => Box::new(DpmSolverMultistep::new(config, num_inference_steps)?),
        SchedulerName::KarrasDpm => Box::new(DpmSolverMultistep::with_karras_sigmas(config, num_inference_steps)?),
        SchedulerName::HeunDiscrete => Box::new(heun::Heun::new(config, num_inference_steps)?),
        SchedulerName::EulerAncestral => Box::new(euler_ancestral::EulerAncestral::new(config, num_inference_steps)?),
        SchedulerName::Euler => Box::new(euler::Euler::new(config, num_inference_steps)?),
        SchedulerName::Pndm => Box::new(pndm::Pndm::new(config, num_inference_steps)?),
        SchedulerName::DpmPlusPlus2MSde => Box::new(kdpm2_ancestral::Kdpm2Ancestral::new(config, num_inference_steps)?),
    })
}
