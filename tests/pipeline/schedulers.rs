//! The eight schedulers against diffusers', step by step, with a fixed function in the UNet's place.

use std::{collections::HashMap, fs};

use fourstep::pipeline::{
    Error, SchedulerName,
    scheduler::{PredictionType, Scheduler, SchedulerConfig, scheduler},
};
use serde::Deserialize;

use crate::support::{TOLERANCE, fixtures, relative_error};

/// Timesteps and sigmas come from tables in f32: one rounding of a logarithm or a power may fall differently.
const TABLE_TOLERANCE: f32 = 1e-6;

/// `schedulers.json`, made by `tools/golden/schedulers.py`.
#[derive(Deserialize)]
struct Golden {
    original: Vec<f32>,
    noise: Vec<f32>,
    draws: Vec<Vec<f32>>,
    configs: HashMap<String, SchedulerConfig>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    config: String,
    num_inference_steps: usize,
    strength: Option<f64>,
    begin_index: usize,
    init_noise_sigma: f32,
    timesteps: Vec<f32>,
    sigmas: Option<Vec<f32>>,
    start: Vec<f32>,
    latents: Vec<Vec<f32>>,
    draws: usize,
}

impl Golden {
    fn load() -> Self {
        serde_json::from_slice(&fs::read(fixtures().join("schedulers.json")).unwrap()).unwrap()
    }

    fn set_up(&self, case: &Case) -> Box<dyn Scheduler> {
        scheduler(case.name(), &self.configs[&case.config], case.num_inference_steps).unwrap()
    }

    /// Holds `measure` to a tolerance, over the cases of each scheduler that have what is measured.
    fn assert_cases(&self, what: &str, tolerance: f32, measure: impl Fn(&Case) -> Option<f32>) {
        for name in SchedulerName::ALL {
            let cases = self.cases.iter().filter(|case| case.name() == name);
            let errors: Vec<(f32, &Case)> = cases.filter_map(|case| Some((measure(case)?, case))).collect();
            if let Some((error, case)) = errors.iter().max_by(|a, b| a.0.total_cmp(&b.0)) {
                assert!(*error <= tolerance, "{what} of {case}: relative error {error:e} is above {tolerance:e}");
                eprintln!("{what} of {name}, {} cases: relative error {error:.1e}, in {case}", errors.len());
            }
        }
    }
}

impl Case {
    fn name(&self) -> SchedulerName {
        self.scheduler.parse().unwrap()
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { scheduler, config, num_inference_steps, strength, .. } = self;
        write!(formatter, "{scheduler} ({config}), {num_inference_steps} steps, strength {strength:?}")
    }
}

/// What `schedulers.py` has in the UNet's place.
fn model(sample: &[f32], timestep: f32) -> Vec<f32> {
    sample.iter().map(|x| 0.6 * x + 0.4 * x / (1.0 + x * x) + timestep / 10000.0).collect()
}

#[test]
fn every_scheduler_is_compared_at_every_number_of_steps() {
    let golden = Golden::load();
    for name in SchedulerName::ALL {
        for steps in 1..=10 {
            let strengths = [None, Some(0.8), Some(0.5), Some(1.0)];
            let count = if [5, 6, 9].contains(&steps) { 2 } else { 4 };
            for strength in strengths.into_iter().take(count) {
                let compared = golden.cases.iter().any(|case| {
                    (case.name(), case.num_inference_steps, case.strength) == (name, steps, strength)
                        && case.config == "base"
                });
                let possible = strength.is_none_or(|strength| steps as f64 * strength >= 1.0);
                assert_eq!(compared, possible, "{name}, {steps} steps, strength {strength:?}");
            }
        }
    }
}

#[test]
fn timesteps_and_initial_sigma_are_those_of_diffusers() {
    let golden = Golden::load();
    golden.assert_cases("timesteps", TABLE_TOLERANCE, |case| {
        let scheduler = golden.set_up(case);
        let sigma = relative_error(&[scheduler.init_noise_sigma()], &[case.init_noise_sigma]);
        // The last may be 0, which no error is relative to.
        let after = |timesteps: &[f32]| timesteps.iter().map(|t| t + 1.0).collect::<Vec<_>>();
        let timesteps = &scheduler.timesteps()[case.begin_index..];
        Some(sigma.max(relative_error(&after(timesteps), &after(&case.timesteps))))
    });
}

#[test]
fn sigmas_are_those_of_diffusers() {
    let golden = Golden::load();
    golden.assert_cases("sigmas", TABLE_TOLERANCE, |case| {
        let scheduler = golden.set_up(case);
        let sigma = |index| {
            // The ratio of noise to image is sigma in both views of the noise.
            let part = |original: f32, noise: f32| scheduler.add_noise(&[original], &[noise], index)[0];
            part(0.0, 1.0) / part(1.0, 0.0)
        };
        let expected = case.sigmas.as_ref()?;
        let found = (case.begin_index..).take(expected.len()).map(sigma);
        let errors = found.zip(expected).map(|(found, expected)| relative_error(&[found], &[*expected]));
        Some(errors.fold(0.0, f32::max))
    });
}

#[test]
fn the_number_of_unet_calls_is_known_beforehand() {
    for case in Golden::load().cases {
        let name = case.name();
        let begin_index = case.strength.map_or(0, |s| name.begin_index(case.num_inference_steps, s).unwrap());
        assert_eq!(begin_index, case.begin_index, "{case}");
        assert_eq!(name.unet_calls(case.num_inference_steps) - begin_index, case.latents.len(), "{case}");
    }
}

#[test]
fn every_step_is_the_one_diffusers_takes() {
    let golden = Golden::load();
    golden.assert_cases("latents", TOLERANCE, |case| {
        let mut scheduler = golden.set_up(case);
        let mut sample = match case.strength {
            None => golden.noise.iter().map(|x| x * scheduler.init_noise_sigma()).collect(),
            Some(_) => scheduler.add_noise(&golden.original, &golden.noise, case.begin_index),
        };
        let mut largest = relative_error(&sample, &case.start);
        let mut draws = golden.draws.iter();
        let timesteps = scheduler.timesteps()[case.begin_index..].to_vec();
        assert_eq!(timesteps.len(), case.latents.len(), "{case}");
        for (index, (timestep, expected)) in (case.begin_index..).zip(timesteps.iter().zip(&case.latents)) {
            let output = model(&scheduler.scale_model_input(&sample, index), *timestep);
            sample = scheduler.step(&output, index, &sample, &mut |_| draws.next().unwrap().clone());
            largest = largest.max(relative_error(&sample, expected));
        }
        assert_eq!(golden.draws.len() - draws.len(), case.draws, "{case} draws another number of times");
        Some(largest)
    });
}

#[test]
fn strength_that_leaves_no_step_is_refused_in_words() {
    for name in SchedulerName::ALL {
        for (steps, strength) in [(1, 0.5), (4, 0.2), (10, 0.0), (1, 0.999)] {
            let message = name.begin_index(steps, strength).unwrap_err().to_string();
            assert!(message.contains("at least 1") && message.contains("strength"), "{message}");
        }
        for strength in [-0.1, 1.01, f64::NAN] {
            assert!(matches!(name.begin_index(4, strength), Err(Error::Params(_))), "{strength}");
        }
    }
}

#[test]
fn strength_is_rounded_as_python_rounds_it() {
    // 100 * 0.29 is 28.999999999999996 in f64: int() makes it 28.
    assert_eq!(SchedulerName::Euler.begin_index(100, 0.29).unwrap(), 72);
    assert_eq!(SchedulerName::HeunDiscrete.begin_index(4, 0.3).unwrap(), 6);
}

#[test]
fn schedulers_that_cannot_step_from_samples_say_so() {
    let config = SchedulerConfig { prediction_type: PredictionType::Sample, ..SchedulerConfig::default() };
    let refused: Vec<_> = SchedulerName::ALL.into_iter().filter(|name| scheduler(*name, &config, 1).is_err()).collect();
    let expected = [SchedulerName::EulerAncestral, SchedulerName::Pndm, SchedulerName::DpmPlusPlus2MSde];
    assert_eq!(refused, expected);
    let error = scheduler(SchedulerName::Pndm, &config, 1).err().unwrap();
    assert!(error.to_string().contains("PNDM"), "{error}");
}

#[test]
fn trained_betas_take_the_schedules_place() {
    let betas = vec![0.1, 0.2, 0.3, 0.4];
    let config = SchedulerConfig { num_train_timesteps: 4, trained_betas: Some(betas), ..SchedulerConfig::default() };
    let kept = 0.9f32 * 0.8 * 0.7 * 0.6;
    let sigma = scheduler(SchedulerName::Euler, &config, 1).unwrap().init_noise_sigma();
    assert!((sigma - ((1.0 - kept) / kept).sqrt()).abs() < 1e-6, "{sigma}");
    let config = SchedulerConfig { num_train_timesteps: 5, ..config };
    let error = scheduler(SchedulerName::Euler, &config, 1).err().unwrap();
    assert!(error.to_string().contains("trained_betas"), "{error}");
}

#[test]
fn any_number_of_steps_a_model_was_trained_with_can_be_taken() {
    for total in [1, 2, 3, 50] {
        let config = SchedulerConfig { num_train_timesteps: total, ..SchedulerConfig::default() };
        for name in SchedulerName::ALL {
            for steps in 1..=total {
                let mut scheduler = scheduler(name, &config, steps).unwrap();
                assert_eq!(scheduler.timesteps().len(), name.unet_calls(steps), "{name}, {steps} of {total}");
                let mut sample = vec![scheduler.init_noise_sigma()];
                for index in 0..scheduler.timesteps().len() {
                    sample = scheduler.step(&[0.5], index, &sample, &mut |count| vec![0.0; count]);
                }
                assert!(sample[0].is_finite(), "{name}, {steps} of {total}: {sample:?}");
            }
            for steps in [0, total + 1] {
                assert!(matches!(scheduler(name, &config, steps), Err(Error::Params(_))), "{name}, {steps} of {total}");
            }
        }
    }
}
