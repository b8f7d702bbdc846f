//! The model. Turns a prediction's input into the pipeline's parameters, and its results and errors into ours.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    time::{Duration, Instant},
};

use candle_core::{DType, Device};
use image::RgbImage;

use super::{Drawn, PredictError, Predictor, Preview, Request, Step};
use crate::{
    domain::{Failure, FailureCode, Input, Safety},
    metrics::{self, Stage},
    pipeline::{self, Generation, LatentPreview, LoraFile, Options, Params, Pipeline, Timings, Weights, device, ops},
};

/// Which weights, and how to hold them.
#[derive(Clone, Debug)]
pub struct SdxlOptions {
    /// Folder of the weights, in the diffusers layout.
    pub weights: PathBuf,
    /// A UNet file instead of the folder's own.
    pub unet: Option<PathBuf>,
    /// Changes to merge into them.
    pub loras: Vec<LoraFile>,
    /// Where the tensors live.
    pub device: Device,
    /// The type that weights are asked for in.
    pub dtype: DType,
    /// What is saved of memory.
    pub options: Options,
}

/// What weights are best asked for in on this device: half precision where it is the faster one.
pub fn best_dtype(device: &Device) -> DType {
    if device.is_cpu() && !ops::has_matrix_units() { DType::F32 } else { DType::F16 }
}

/// SDXL on one device.
pub struct Sdxl {
    pipeline: Pipeline,
    /// Found out when warming up.
    preview: Option<LatentPreview>,
}

impl Sdxl {
    /// Reads the weights.
    pub fn load(options: &SdxlOptions) -> anyhow::Result<Self> {
        let mut weights = Weights::new(&options.weights).with_loras(options.loras.clone());
        if let Some(unet) = &options.unet {
            weights = weights.with_unet(unet);
        }
        let begun = Instant::now();
        let pipeline = Pipeline::load_with(&weights, &options.device, options.dtype, options.options)?;
        tracing::info!(
            load_ms = begun.elapsed().as_millis() as u64,
            "Loaded the model from {}",
            options.weights.display()
        );
        Ok(Self { pipeline, preview: None })
    }
}

impl Predictor for Sdxl {
    fn warm_up(&mut self) -> Result<(), Failure> {
        // The smallest picture touches every weight and every kernel, those of the VAE's encoder if it starts from one.
        let size = self.pipeline.native_size().min(256);
        let image = Some(RgbImage::new(size as u32, size as u32));
        let start = Params { image, strength: 1.0, ..Params::new("") };
        let params = Params { width: size, height: size, num_inference_steps: 1, ..start };
        match self.pipeline.generate(&params, &mut |_| ControlFlow::Continue(())) {
            // Nobody will see it.
            Ok(_) | Err(pipeline::Error::Flagged) => {}
            Err(error) => return Err(failure(&error)),
        }
        self.preview = match self.pipeline.latent_preview() {
            Ok(preview) => Some(preview),
            Err(error) => {
                tracing::warn!(%error, "There will be no previews");
                None
            }
        };
        Ok(())
    }

    fn memory(&self) -> Option<u64> {
        device::memory_in_use(self.pipeline.device())
    }

    fn predict(
        &mut self,
        input: &Input,
        image: Option<&RgbImage>,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Drawn, PredictError> {
        self.predict_batch(&[Request { input, image }], &mut |_, step| on_step(step)).remove(0)
    }

    fn predict_batch(
        &mut self,
        requests: &[Request<'_>],
        on_step: &mut dyn FnMut(usize, Step) -> ControlFlow<()>,
    ) -> Vec<Result<Drawn, PredictError>> {
        let batch: Result<Vec<Params>, Failure> = requests.iter().map(params).collect();
        let batch = match batch {
            Ok(batch) => batch,
            Err(failure) => return requests.iter().map(|_| Err(PredictError::Failed(failure.clone()))).collect(),
        };
        match self.generate(&batch, on_step) {
            // What is too large side by side may not be one after the other.
            Err(error) if is_out_of_memory(&error) && batch.len() > 1 => {
                tracing::warn!("{} predictions at once are too many for the device's memory", batch.len());
                let one = |(place, request): (usize, &Request<'_>)| {
                    self.predict(request.input, request.image, &mut |step| on_step(place, step))
                };
                requests.iter().enumerate().map(one).collect()
            }
            Err(error) => requests.iter().map(|_| Err(predict_error(&error))).collect(),
            Ok(results) => requests.iter().zip(results).map(|(request, result)| concluded(request, result)).collect(),
        }
    }
}

impl Sdxl {
    fn generate(
        &self,
        batch: &[Params],
        on_step: &mut dyn FnMut(usize, Step) -> ControlFlow<()>,
    ) -> Result<Vec<Result<Generation, pipeline::Error>>, pipeline::Error> {
        let begun = Instant::now();
        let before = |params: &Params| Step {
            done: 0,
            total: params.unet_calls() as u32,
            finished_images: 0,
            elapsed: Duration::ZERO,
            preview: None,
        };
        let mut steps: Vec<Step> = batch.iter().map(before).collect();
        let mut callback = |place: usize, progress: pipeline::Progress<'_>| {
            let now = &mut steps[place];
            now.preview = match progress {
                pipeline::Progress::Step(step) => {
                    now.done = step.index as u32 + 1;
                    self.preview.as_ref().map(|preview| Preview::Latents(preview.project(step.predicted())))
                }
                // With the last one comes the result itself.
                pipeline::Progress::Image { index, .. } if index + 1 == batch[place].num_images_per_prompt => {
                    return ControlFlow::Continue(());
                }
                pipeline::Progress::Image { index, image } => {
                    now.finished_images = index as u32 + 1;
                    Some(Preview::Finished(image.clone()))
                }
            };
            now.elapsed = begun.elapsed();
            on_step(place, now.clone())
        };
        self.pipeline.generate_batch(batch, &mut callback)
    }
}

fn concluded(request: &Request<'_>, result: Result<Generation, pipeline::Error>) -> Result<Drawn, PredictError> {
    let generation = result.map_err(|error| predict_error(&error))?;
    measure(&generation.timings);
    Ok(drawn(request.input, generation))
}

fn predict_error(error: &pipeline::Error) -> PredictError {
    if let pipeline::Error::Canceled = error {
        return PredictError::Canceled;
    }
    tracing::warn!(%error, "The pipeline failed");
    PredictError::Failed(failure(error))
}

/// Drivers have no common error for it, but all say these words.
fn is_out_of_memory(error: &pipeline::Error) -> bool {
    matches!(error, pipeline::Error::Device(device) if device.to_string().to_lowercase().contains("out of memory"))
}

fn measure(timings: &Timings) {
    metrics::stage_ended(Stage::Encode, timings.encode);
    timings.steps.iter().for_each(|step| metrics::stage_ended(Stage::UnetStep, *step));
    metrics::stage_ended(Stage::Vae, timings.decode);
}

/// Every image in the place of its seed.
fn drawn(input: &Input, generation: Generation) -> Drawn {
    let Generation { images, seeds, safety, mut notes, .. } = generation;
    let safety = match safety {
        pipeline::Safety::Checked => Safety::Checked,
        pipeline::Safety::Disabled => Safety::Disabled,
        pipeline::Safety::Unavailable => {
            notes.push("safety checker unavailable: the images were not checked".to_owned());
            Safety::Unavailable
        }
    };
    let mut shown = images.into_iter().zip(seeds).peekable();
    let images = input.seeds().map(|seed| Some(shown.next_if(|(_, shown)| *shown == seed)?.0)).collect();
    Drawn { images, safety, notes }
}

fn params(&Request { input, image }: &Request<'_>) -> Result<Params, Failure> {
    let scheduler = input.scheduler.as_str();
    Ok(Params {
        prompt: input.prompt.clone(),
        negative_prompt: input.negative_prompt.clone(),
        width: input.width as usize,
        height: input.height as usize,
        num_inference_steps: input.num_inference_steps as usize,
        guidance_scale: input.guidance_scale,
        num_images_per_prompt: input.num_outputs as usize,
        seed: input.seed,
        scheduler: scheduler.parse().map_err(|_| Failure {
            code: FailureCode::InvalidInput,
            message: format!("this model does not know the scheduler {scheduler}"),
        })?,
        image: image.cloned(),
        strength: input.prompt_strength,
        disable_safety_checker: input.disable_safety_checker,
    })
}

/// What its owner may know: what is wrong with the input in full, of our own troubles only the kind.
fn failure(error: &pipeline::Error) -> Failure {
    let (code, message) = match error {
        pipeline::Error::Params(_) | pipeline::Error::Prompt(_) => (FailureCode::InvalidInput, error.to_string()),
        pipeline::Error::Flagged => (FailureCode::ContentModeration, error.to_string()),
        pipeline::Error::NotFinite { .. } => (FailureCode::Internal, error.to_string()),
        _ if is_out_of_memory(error) => {
            (FailureCode::OutOfMemory, "the device has not enough memory for this size".to_owned())
        }
        _ => (FailureCode::Internal, "the model failed".to_owned()),
    };
    Failure { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FaceDefaults, InputLimits, Scheduler, UnknownFields};

    fn known(scheduler: Scheduler) -> pipeline::SchedulerName {
        scheduler.as_str().parse().unwrap_or_else(|_| panic!("the pipeline does not know {}", scheduler.as_str()))
    }

    #[test]
    fn every_scheduler_a_caller_can_name_is_one_the_pipeline_knows() {
        for scheduler in Scheduler::ALL {
            known(scheduler);
        }
    }

    /// Or estimates would take runs for alike that are not.
    #[test]
    fn an_input_counts_the_calls_that_its_scheduler_makes() {
        let defaults = FaceDefaults {
            prompt: "",
            negative_prompt: "",
            disable_safety_checker: false,
            has_seed_minus_one: false,
            unknown_fields: UnknownFields::Refuse,
        };
        let raw = serde_json::json!({"width": 256, "height": 256});
        let input = Input::parse(&raw, &InputLimits::HOSTED, &defaults, 0).expect("valid").0;
        for scheduler in Scheduler::ALL {
            for steps in [1, 2, 4, 9] {
                let text = Input { scheduler, num_inference_steps: steps, ..input.clone() };
                let image = Input { image: Some(String::new()), prompt_strength: 0.5, ..text.clone() };
                let all = known(scheduler).unet_calls(steps as usize);
                assert_eq!(text.unet_calls() as usize, all, "{scheduler:?}, {steps} steps");
                if let Ok(spared) = known(scheduler).begin_index(steps as usize, 0.5) {
                    assert_eq!(image.unet_calls() as usize, all - spared, "{scheduler:?}, half of {steps} steps");
                }
            }
        }
    }
}
