//! `PNDM`: a linear multistep method on the latest four outputs.
//!
//! diffusers: `scheduling_pndm.py`, `PNDMScheduler` with `skip_prk_steps=True`, as SDXL's scheduler is configured. In
//! place of the Runge-Kutta steps left out, the first step is taken twice: the second call repeats it with a better
//! slope.

use std::collections::VecDeque;

use super::{
    super::error::Error,
    Noise, PredictionType, Scheduler, SchedulerConfig,
    sigmas::{alphas_cumprod, noisy, trailing_timesteps},
};

/// The pseudo linear multistep method for one image.
pub(super) struct Pndm {
    /// One a call: the second timestep is there twice.
    timesteps: Vec<f32>,
    alphas_cumprod: Vec<f32>,
    /// What stands for `alphas_cumprod` after the last step.
    final_alpha_cumprod: f32,
    /// From a timestep to the one it steps to, in whole timesteps even where the spacing is not.
    stride: usize,
    prediction_type: PredictionType,
    /// Calls made so far: an image-to-image run counts from its own first.
    counter: usize,
    /// The sample before the first call.
    cur_sample: Vec<f32>,
    /// The latest outputs but the second call's, the newest first.
    ets: VecDeque<Vec<f32>>,
}

impl Pndm {
    /// `PNDMScheduler.__init__` and `set_timesteps`.
    pub(super) fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, Error> {
        let alphas_cumprod = alphas_cumprod(config)?;
        let mut timesteps = trailing_timesteps(config.num_train_timesteps, num_inference_steps);
        if let Some(&second) = timesteps.get(1) {
            timesteps.insert(1, second);
        }
        Ok(Self {
            timesteps,
            final_alpha_cumprod: if config.set_alpha_to_one.unwrap_or(false) { 1.0 } else { alphas_cumprod[0] },
            alphas_cumprod,
            stride: config.num_train_timesteps / num_inference_steps,
            prediction_type: config.prediction_type,
            counter: 0,
            cur_sample: Vec::new(),
            ets: VecDeque::new(),
        })
    }

    /// `PNDMScheduler._get_prev_sample`: formula (9) of the PNDM paper. `to` is `None` after the last timestep.
    fn previous_sample(&self, sample: &[f32], from: usize, to: Option<usize>, model_output: &[f32]) -> Vec<f32> {
        let alpha_prod = self.alphas_cumprod[from];
        let alpha_prod_previous = to.map_or(self.final_alpha_cumprod, |timestep| self.alphas_cumprod[timestep]);
        let (beta_prod, beta_prod_previous) = (1.0 - alpha_prod, 1.0 - alpha_prod_previous);
        let sample_coefficient = (alpha_prod_previous / alpha_prod).sqrt();
        let denominator =
            alpha_prod * beta_prod_previous.sqrt() + (alpha_prod * beta_prod * alpha_prod_previous).sqrt();
        let next = |(&output, &x): (&f32, &f32)| {
            let epsilon = match self.prediction_type {
                PredictionType::VPrediction => alpha_prod.sqrt() * output + beta_prod.sqrt() * x,
                PredictionType::Epsilon | PredictionType::Sample => output,
            };
            sample_coefficient * x - (alpha_prod_previous - alpha_prod) * epsilon / denominator
        };
        model_output.iter().zip(sample).map(next).collect()
    }

    /// The outputs so far as one, by the Adams-Bashforth method of as high an order as there are outputs for.
    fn combined(&self) -> Vec<f32> {
        let output = |age: usize, i: usize| self.ets[age][i];
        let at = |i: usize| match self.ets.len() {
            1 => output(0, i),
            2 => (3.0 * output(0, i) - output(1, i)) / 2.0,
            3 => (23.0 * output(0, i) - 16.0 * output(1, i) + 5.0 * output(2, i)) / 12.0,
            _ => (1.0 / 24.0) * (55.0 * output(0, i) - 59.0 * output(1, i) + 37.0 * output(2, i) - 9.0 * output(3, i)),
        };
        (0..self.ets[0].len()).map(at).collect()
    }
}

impl Scheduler for Pndm {
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

    /// `PNDMScheduler.step_plms`.
    fn step(&mut self, model_output: &[f32], index: usize, sample: &[f32], _noise: Noise<'_>) -> Vec<f32> {
        let timestep = self.timesteps[index] as usize;
        let counter = self.counter;
        self.counter += 1;
        if counter == 1 {
            let mean: Vec<f32> = model_output.iter().zip(&self.ets[0]).map(|(a, b)| (a + b) / 2.0).collect();
            let start = std::mem::take(&mut self.cur_sample);
            return self.previous_sample(&start, timestep + self.stride, Some(timestep), &mean);
        }
        if counter == 0 {
            self.cur_sample = sample.to_vec();
        }
        self.ets.push_front(model_output.to_vec());
        self.ets.truncate(4);
        self.previous_sample(sample, timestep, timestep.checked_sub(self.stride), &self.combined())
    }
}
