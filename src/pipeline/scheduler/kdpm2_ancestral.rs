//! `DPM++2MSDE`: ancestral sampling with DPM-Solver-2, each step by way of a noise level between.
//!
//! diffusers: `scheduling_k_dpm_2_ancestral_discrete.py`, `KDPM2AncestralDiscreteScheduler`. Even calls go halfway and
//! odd calls, from where the step began, all the way; the last step, down to sigma 0, has no second.

use super::{
    super::error::Error,
    Noise, PredictionType, Scheduler, SchedulerConfig,
    sigmas::{
        alphas_cumprod, noisy, sigma_to_timestep, sigmas_of, trailing_timesteps, training_sigmas, variance_preserving,
    },
};

/// The noise levels of one step.
#[derive(Clone, Copy)]
struct Step {
    sigma: f32,
    /// Halfway, in logarithms, to `down`; 0 in the last step.
    interpolated: f32,
    /// Past the next step's sigma, so that noise can be added back.
    down: f32,
    /// How much noise that is.
    up: f32,
}

/// Ancestral sampling with DPM-Solver-2 for one image.
pub(super) struct Kdpm2Ancestral {
    /// One a call; those of odd calls are not whole numbers.
    timesteps: Vec<f32>,
    steps: Vec<Step>,
    prediction_type: PredictionType,
    /// Where the step under way began.
    start: Option<Vec<f32>>,
}

impl Kdpm2Ancestral {
    /// `KDPM2AncestralDiscreteScheduler.set_timesteps`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, Error> {
        let alphas_cumprod = alphas_cumprod(config)?;
        let training = training_sigmas(&alphas_cumprod);
        let whole = trailing_timesteps(config.num_train_timesteps, num_inference_steps);
        let sigmas = sigmas_of(&whole, &alphas_cumprod);

        let mut steps: Vec<Step> = sigmas.windows(2).map(|pair| Step::between(pair[0], pair[1])).collect();
        if let Some(last) = steps.last_mut() {
            last.interpolated = 0.0;
        }
        let mut timesteps = vec![whole[0]];
        for (step, &next) in steps.iter().zip(&whole[1..]) {
            timesteps.extend([sigma_to_timestep(f64::from(step.interpolated), &training) as f32, next]);
        }
        Ok(Self { timesteps, steps, prediction_type: config.prediction_type, start: None })
    }
}

impl Step {
    fn between(sigma: f32, next: f32) -> Self {
        let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma)).sqrt();
        let down = (next * next - up * up).sqrt();
        // torch.lerp(a, b, 0.5) counts from b.
        let interpolated = (down.ln() - (down.ln() - sigma.ln()) * 0.5).exp();
        Self { sigma, interpolated, down, up }
    }
}

impl Scheduler for Kdpm2Ancestral {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        self.steps[0].sigma
    }

    fn add_noise(&self, original: &[f32], noise: &[f32], index: usize) -> Vec<f32> {
        noisy(original, noise, (1.0, self.steps[index.div_ceil(2)].sigma))
    }

    fn scale_model_input(&self, sample: &[f32], index: usize) -> Vec<f32> {
        let step = &self.steps[index / 2];
        let sigma = if index.is_multiple_of(2) { step.sigma } else { step.interpolated };
        variance_preserving(sample, sigma)
    }

    /// `KDPM2AncestralDiscreteScheduler.step`.
    fn step(&mut self, model_output: &[f32], index: usize, sample: &[f32], noise: Noise<'_>) -> Vec<f32> {
        let Step { sigma, interpolated, down, up } = self.steps[index / 2];
        let prediction_type = self.prediction_type;
        let slopes = |sigma: f32| {
            let slope =
                move |(&output, &x): (&f32, &f32)| (x - prediction_type.original_sample(output, x, sigma)) / sigma;
            model_output.iter().zip(sample).map(slope)
        };
        if let Some(start) = self.start.take() {
            let dt = down - sigma;
            let next = |((x, slope), noise): ((&f32, f32), f32)| x + slope * dt + noise * up;
            return start.iter().zip(slopes(interpolated)).zip(noise(sample.len())).map(next).collect();
        }
        let dt = interpolated - sigma;
        self.start = Some(sample.to_vec());
        sample.iter().zip(slopes(sigma)).map(|(x, slope)| x + slope * dt).collect()
    }
}
