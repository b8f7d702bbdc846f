//! The noise levels of training and the timesteps taken from them, in the precision torch and numpy use.
//!
//! diffusers computes them in every scheduler's `__init__` and `set_timesteps`; what they share is here.

use super::{super::error::Error, SchedulerConfig};

/// `alphas_cumprod` of every training timestep.
pub(super) fn alphas_cumprod(config: &SchedulerConfig) -> Result<Vec<f32>, Error> {
    Ok(cumprod(betas(config)?.into_iter().map(|beta| 1.0 - beta)))
}

/// `alphas_cumprod` for the algorithms whose diffusers class takes `rescale_betas_zero_snr`; the others ignore it there
/// and here. When it is set, the last is 0.
///
/// diffusers: `scheduling_ddim.py`, `rescale_zero_terminal_snr`.
pub(super) fn rescaled_alphas_cumprod(config: &SchedulerConfig) -> Result<Vec<f32>, Error> {
    let alphas_cumprod = alphas_cumprod(config)?;
    if !config.rescale_betas_zero_snr {
        return Ok(alphas_cumprod);
    }
    let roots: Vec<f32> = alphas_cumprod.iter().map(|alpha| alpha.sqrt()).collect();
    let (first, last) = (roots[0], roots[roots.len() - 1]);
    let scale = first / (first - last);
    let rescaled: Vec<f32> = roots.iter().map(|root| ((root - last) * scale).powi(2)).collect();
    let ratios = rescaled.windows(2).map(|pair| pair[1] / pair[0]);
    // To betas and back, for the same roundings.
    Ok(cumprod(rescaled[..1].iter().copied().chain(ratios).map(|alpha| 1.0 - (1.0 - alpha))))
}

/// [`rescaled_alphas_cumprod`] for the algorithms that divide by the last: diffusers puts the smallest f16 in its
/// place.
pub(super) fn finite_alphas_cumprod(config: &SchedulerConfig) -> Result<Vec<f32>, Error> {
    let mut alphas_cumprod = rescaled_alphas_cumprod(config)?;
    if let Some(last) = alphas_cumprod.last_mut().filter(|_| config.rescale_betas_zero_snr) {
        *last = 2f32.powi(-24);
    }
    Ok(alphas_cumprod)
}

/// The variance added at every training timestep.
fn betas(config: &SchedulerConfig) -> Result<Vec<f32>, Error> {
    let count = config.num_train_timesteps;
    if let Some(betas) = &config.trained_betas {
        if betas.len() != count {
            return Err(Error::Params(format!(
                "scheduler_config.json has {} trained_betas for {count} num_train_timesteps",
                betas.len()
            )));
        }
        return Ok(betas.clone());
    }
    match config.beta_schedule.as_str() {
        "scaled_linear" => {
            let roots = linspace(config.beta_start.sqrt(), config.beta_end.sqrt(), count);
            Ok(roots.into_iter().map(|root| root * root).collect())
        }
        "linear" => Ok(linspace(config.beta_start, config.beta_end, count)),
        other => Err(Error::Params(format!("the beta_schedule {other} of scheduler_config.json is not supported"))),
    }
}

/// `torch.linspace(start, end, count, dtype=torch.float32)`, which counts from whichever end is nearer. torch's last
/// digit depends on how many numbers the processor adds at once.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count.max(2) - 1) as f32;
    (0..count)
        .map(|i| if i < count / 2 { start + step * i as f32 } else { end - step * (count - 1 - i) as f32 })
        .collect()
}

/// `torch.cumprod` of f32 numbers on the CPU, which carries the product in f64.
fn cumprod(values: impl Iterator<Item = f32>) -> Vec<f32> {
    values
        .scan(1.0f64, |product, value| {
            *product *= f64::from(value);
            Some(*product as f32)
        })
        .collect()
}

/// `((1 - alphas_cumprod) / alphas_cumprod) ** 0.5`, the k-diffusion view of the same noise.
pub(super) fn training_sigmas(alphas_cumprod: &[f32]) -> Vec<f32> {
    alphas_cumprod.iter().map(|&alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
}

/// `timestep_spacing="trailing"`: `round(arange(T, 0, -T / n)) - 1`, which ends a step before 0 and begins at the last
/// timestep, where a distilled model must begin.
///
/// For some `n` above 60 rounding makes numpy's `arange` one longer, and diffusers then runs a timestep of -1; there
/// are always `n` here.
pub(super) fn trailing_timesteps(num_train_timesteps: usize, num_inference_steps: usize) -> Vec<f32> {
    let total = num_train_timesteps as f64;
    // numpy multiplies the difference of the first two elements, which is the stride after a rounding.
    let stride = (total - total / num_inference_steps as f64) - total;
    (0..num_inference_steps).map(|i| (total + i as f64 * stride).round_ties_even() as f32 - 1.0).collect()
}

/// The sigma of each timestep, and a last one of 0: `final_sigmas_type="zero"`.
pub(super) fn sigmas_of(timesteps: &[f32], alphas_cumprod: &[f32]) -> Vec<f32> {
    let training = training_sigmas(alphas_cumprod);
    timesteps.iter().map(|&timestep| interpolate(&training, timestep)).chain([0.0]).collect()
}

/// `alpha * original + sigma * noise`: `add_noise` in both views of the noise, k-diffusion's having an alpha of 1.
pub(super) fn noisy(original: &[f32], noise: &[f32], (alpha, sigma): (f32, f32)) -> Vec<f32> {
    original.iter().zip(noise).map(|(x, noise)| alpha * x + sigma * noise).collect()
}

/// From k-diffusion's view to the variance-preserving one, in which the UNet was trained: `scale_model_input`.
pub(super) fn variance_preserving(sample: &[f32], sigma: f32) -> Vec<f32> {
    let scale = (sigma * sigma + 1.0).sqrt();
    sample.iter().map(|x| x / scale).collect()
}

/// `numpy.interp(timestep, arange(len), sigmas)`.
pub(super) fn interpolate(sigmas: &[f32], timestep: f32) -> f32 {
    let last = sigmas.len() - 1;
    let position = f64::from(timestep).clamp(0.0, last as f64);
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let (low, high) = (f64::from(sigmas[below]), f64::from(sigmas[above]));
    (low + (high - low) * (position - below as f64)) as f32
}

/// The timestep, seldom a whole number, at which training had this much noise.
///
/// diffusers: `scheduling_euler_discrete.py`, `_sigma_to_t`, copied to the other schedulers.
pub(super) fn sigma_to_timestep(sigma: f64, training_sigmas: &[f32]) -> f64 {
    let Some(last_pair) = training_sigmas.len().checked_sub(2) else { return 0.0 };
    let log = |index: usize| f64::from(training_sigmas[index].ln());
    let log_sigma = sigma.max(1e-10).ln();
    let low = (0..training_sigmas.len()).rev().find(|&index| log_sigma >= log(index)).unwrap_or(0).min(last_pair);
    let weight = ((log(low) - log_sigma) / (log(low) - log(low + 1))).clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * (low + 1) as f64
}
