//! `DPMSolverMultistep` and `KarrasDPM`: DPM-Solver++ of second order, which remembers the output before.
//!
//! diffusers: `scheduling_dpmsolver_multistep.py`, `DPMSolverMultistepScheduler` with its defaults: `dpmsolver++`,
//! order 2, midpoint, lower order in the last step, final sigma 0. `KarrasDPM` differs in its noise levels alone.

use super::{
    super::error::Error,
    Noise, PredictionType, Scheduler, SchedulerConfig,
    sigmas::{finite_alphas_cumprod, noisy, sigma_to_timestep, sigmas_of, trailing_timesteps, training_sigmas},
};

/// DPM-Solver++ for one image.
pub(super) struct DpmSolverMultistep {
    timesteps: Vec<f32>,
    /// One more than there are timesteps: the last is 0.
    sigmas: Vec<f32>,
    prediction_type: PredictionType,
    /// The clean sample the call before led to.
    previous_original: Option<Vec<f32>>,
}

impl DpmSolverMultistep {
    /// `DPMSolverMultistepScheduler.set_timesteps` with sigmas at trailing timesteps.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, Error> {
        let timesteps = trailing_timesteps(config.num_train_timesteps, num_inference_steps);
        let sigmas = sigmas_of(&timesteps, &finite_alphas_cumprod(config)?);
        Ok(Self { timesteps, sigmas, prediction_type: config.prediction_type, previous_original: None })
    }

    /// `DPMSolverMultistepScheduler.set_timesteps` with `use_karras_sigmas=True`: the sigmas come first, and the
    /// timesteps are the whole ones nearest to them.
    pub(super) fn with_karras_sigmas(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, Error> {
        let training = training_sigmas(&finite_alphas_cumprod(config)?);
        let sigmas = karras_sigmas(&training, num_inference_steps);
        Ok(Self {
            timesteps: sigmas.iter().map(|&s| sigma_to_timestep(s, &training).round_ties_even() as f32).collect(),
            sigmas: sigmas.iter().map(|&sigma| sigma as f32).chain([0.0]).collect(),
            prediction_type: config.prediction_type,
            previous_original: None,
        })
    }
}

/// `_convert_to_karras`: equation (5) of "Elucidating the Design Space of Diffusion-Based Generative Models".
fn karras_sigmas(training_sigmas: &[f32], num_inference_steps: usize) -> Vec<f64> {
    const RHO: f64 = 7.0;
    let inverse_rho = |sigma: f32| f64::from(sigma).powf(1.0 / RHO);
    let (smallest, largest) =
        (inverse_rho(training_sigmas[0]), inverse_rho(training_sigmas[training_sigmas.len() - 1]));
    let intervals = num_inference_steps.saturating_sub(1).max(1) as f64;
    (0..num_inference_steps).map(|step| (largest + step as f64 / intervals * (smallest - largest)).powf(RHO)).collect()
}

/// `_sigma_to_alpha_sigma_t`: from k-diffusion's noise level to the variance-preserving pair.
fn alpha_sigma(sigma: f32) -> (f32, f32) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

/// Half the logarithm of the signal-to-noise ratio, the solver's time; infinite where there is no noise left.
fn lambda(sigma: f32) -> f32 {
    let (alpha, sigma) = alpha_sigma(sigma);
    alpha.ln() - sigma.ln()
}

impl Scheduler for DpmSolverMultistep {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    fn add_noise(&self, original: &[f32], noise: &[f32], index: usize) -> Vec<f32> {
        noisy(original, noise, alpha_sigma(self.sigmas[index]))
    }

    fn scale_model_input(&self, sample: &[f32], _index: usize) -> Vec<f32> {
        sample.to_vec()
    }

    /// `DPMSolverMultistepScheduler.step`: `dpm_solver_first_order_update` in the first and the last call, and
    /// `multistep_dpm_solver_second_order_update` between.
    fn step(&mut self, model_output: &[f32], index: usize, sample: &[f32], _noise: Noise<'_>) -> Vec<f32> {
        let (from, to) = (self.sigmas[index], self.sigmas[index + 1]);
        let ((_, sigma_s), (alpha_t, sigma_t)) = (alpha_sigma(from), alpha_sigma(to));
        let h = lambda(to) - lambda(from);
        let coefficient = alpha_t * ((-h).exp() - 1.0);

        let original = |(&output, &x): (&f32, &f32)| {
            self.prediction_type.variance_preserving_original_sample(output, x, alpha_sigma(from))
        };
        let originals: Vec<f32> = model_output.iter().zip(sample).map(original).collect();
        let mut next: Vec<f32> =
            sample.iter().zip(&originals).map(|(x, d0)| (sigma_t / sigma_s) * x - coefficient * d0).collect();

        let last = index + 1 == self.timesteps.len();
        if let Some(previous) = self.previous_original.as_ref().filter(|_| !last) {
            let r0 = (lambda(from) - lambda(self.sigmas[index - 1])) / h;
            for (next, (m0, m1)) in next.iter_mut().zip(originals.iter().zip(previous)) {
                let d1 = (1.0 / r0) * (m0 - m1);
                *next -= 0.5 * coefficient * d1;
            }
        }
        self.previous_original = Some(originals);
        next
    }
}
