//! SDXL as a library: text and perhaps an image in, pixels out. It knows nothing of servers and imports nothing of this crate but itself.
//!
//! diffusers is the reference: names are diffusers', ported formulas name their file and function, and `tests/pipeline`
//! compares every stage with numbers diffusers produced. The way of a prompt: `tokenizer` → `text_encoder` →
//! `conditioning` → `noise` → `unet` under a `scheduler` → `vae` → `image`. The networks are written in terms of [`ops`],
//! operations on channels-last activations, which is where speed is won without touching the model.

mod clip;
pub mod conditioning;
pub mod device;
mod error;
pub mod image;
mod image_to_image;
mod known_texts;
mod lora;
pub mod noise;
pub mod ops;
mod options;
mod params;
mod preview;
mod resnet;
pub mod safety_checker;
pub mod scheduler;
pub mod text_encoder;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod weights;

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use candle_core::{DType, Device, Tensor};

use conditioning::TextEncoders;
pub use error::{Error, WeightsError};
use image_to_image::ImageLatents;
pub use lora::LoraFile;
use noise::TorchCudaRng;
pub use options::Options;
pub use params::{Generation, Latents, Params, Progress, Safety, Step, Timings};
pub use preview::LatentPreview;
use safety_checker::SafetyChecker;
pub use scheduler::SchedulerName;
use scheduler::{CleanSample, SchedulerConfig};
use unet::{UNet, UNetConditioning};
use vae::Vae;
pub use weights::Weights;

/// A loaded SDXL model on one device.
pub struct Pipeline {
    text_encoders: TextEncoders,
    unet: UNet,
    vae: Vae,
    safety_checker: Option<SafetyChecker>,
    scheduler_config: SchedulerConfig,
    device: Device,
}

// One thread owns a device, but not always the one that loaded the model.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Pipeline>();
};

impl Pipeline {
    /// Loads a model. `dtype` is what the weights are kept in; on the CPU the arithmetic is f32 whatever they are kept in.
    pub fn load(weights: &Weights, device: &Device, dtype: DType) -> Result<Self, Error> {
        Self::load_with(weights, device, dtype, Options::default())
    }

    /// Loads a model to be held like this. A safety checker is loaded where the model has one.
    pub fn load_with(weights: &Weights, device: &Device, dtype: DType, options: Options) -> Result<Self, Error> {
        let load = if options.low_memory { TextEncoders::in_files } else { TextEncoders::load };
        Ok(Self {
            text_encoders: load(weights, device, dtype)?,
            unet: UNet::open(weights, device, dtype)?,
            vae: Vae::open(weights, device, dtype)?.tiled(options.vae_tile)?,
            safety_checker: SafetyChecker::open(weights, device, dtype)?,
            scheduler_config: weights.scheduler_config()?,
            device: device.clone(),
        })
    }

    /// The width and height, in pixels, this model was trained at.
    pub fn native_size(&self) -> usize {
        self.unet.sample_size() * self.vae.scale_factor()
    }

    /// Where its tensors live.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// How often the UNet will run for these parameters, over all images.
    pub fn unet_calls(&self, params: &Params) -> usize {
        params.unet_calls()
    }

    /// Draws. The callback hears of every UNet call and every image as it ends, and cancels by returning `Break`.
    ///
    /// diffusers: `pipeline_stable_diffusion_xl.py`, `StableDiffusionXLPipeline.__call__`.
    pub fn generate(
        &self,
        params: &Params,
        callback: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        self.check(params)?;
        let mut timings = Timings::default();

        // 1. Encode the prompt, and with guidance the negative prompt, once for all images.
        let started = Instant::now();
        let (texts, mut notes) = self.text_encoders.encode(params)?;
        // Added time ids: original size, crop, target size. The hosted model passes the requested size for both.
        let (h, w) = (params.height as f32, params.width as f32);
        let conditioning = self.unet.condition(&texts.prompt_embeds, &texts.pooled, [h, w, 0.0, 0.0, h, w])?;
        self.device.synchronize()?;
        // An image to start from as well: its latents are sampled anew for each image.
        let start = params.image.as_ref().map(|image| self.encode_image(image, params)).transpose()?;
        timings.encode = started.elapsed();

        let (mut seeds, mut images) = (Vec::new(), Vec::new());
        for image_index in 0..params.num_images {
            let seed = params.seed.wrapping_add(image_index as u64);
            let mut told = |latents: &Latents, predicted: &Latents, elapsed: Duration| {
                timings.steps.push(elapsed);
                let index = timings.steps.len() - 1;
                callback(Progress::Step(Step { image_index, index, total: params.unet_calls(), latents, predicted }))
            };
            let latents = self.denoise(params, &conditioning, start.as_ref(), seed, &mut told)?;

            // 5. Decode. 6. To pixels.
            let started = Instant::now();
            let image = self.decode(&latents)?;
            // 7. Leave out what should not be shown, as the hosted model does.
            let is_flagged = self.flags(&image, params)?;
            timings.decode += started.elapsed();
            if is_flagged {
                notes.push(format!("NSFW content detected in image {image_index}"));
                continue;
            }
            if callback(Progress::Image { index: image_index, image: &image }).is_break() {
                return Err(Error::Canceled);
            }
            images.push(image);
            seeds.push(seed);
        }
        if images.is_empty() {
            return Err(Error::Flagged);
        }
        Ok(Generation { images, seeds, safety: self.safety(params), timings, notes })
    }

    /// What the safety checker has to do with images of these parameters.
    pub fn safety(&self, params: &Params) -> Safety {
        match self.safety_checker {
            _ if params.disable_safety_checker => Safety::Disabled,
            Some(_) => Safety::Checked,
            None => Safety::Unavailable,
        }
    }

    fn flags(&self, image: &::image::RgbImage, params: &Params) -> Result<bool, Error> {
        match &self.safety_checker {
            Some(checker) if !params.disable_safety_checker => checker.flags(image),
            _ => Ok(false),
        }
    }

    /// The image to start from, at the size to draw, in the VAE's space.
    fn encode_image(&self, image: &::image::RgbImage, params: &Params) -> Result<ImageLatents, Error> {
        let pixels = image::to_tensor(&image::resize(image, params.width, params.height))?;
        let pixels = pixels.to_device(&self.device)?.to_dtype(self.vae.dtype())?;
        let distribution = self.vae.encode(&pixels)?;
        let channel_by_channel = |tensor: &Tensor| Ok::<_, Error>(self.download(tensor)?.concat());
        let (mean, logvar) = (channel_by_channel(&distribution.mean)?, channel_by_channel(&distribution.logvar)?);
        ImageLatents::new(mean, &logvar, self.vae.scaling_factor())
    }

    /// The denoising loop for one image.
    fn denoise(
        &self,
        params: &Params,
        conditioning: &UNetConditioning,
        start: Option<&ImageLatents>,
        seed: u64,
        told: &mut dyn FnMut(&Latents, &Latents, Duration) -> ControlFlow<()>,
    ) -> Result<Latents, Error> {
        // 2. Timesteps.
        let mut scheduler = scheduler::scheduler(params.scheduler, &self.scheduler_config, params.num_inference_steps)?;
        let clean = CleanSample::new(&self.scheduler_config)?;
        let begin_index = params.begin_index()?;

        // 3. Initial latents. Each image has a generator of its own, so that it does not depend on its neighbors. diffusers
        // draws the sample of an image's latents before the noise, and the steps' noise after it.
        let mut rng = TorchCudaRng::new(seed);
        let factor = self.vae.scale_factor();
        let (channels, height, width) = (self.unet.in_channels(), params.height / factor, params.width / factor);
        let sample = start.map(|start| start.sample(&mut rng));
        let noise = rng.normal(channels * height * width);
        let values = match sample {
            Some(sample) => scheduler.add_noise(&sample, &noise, begin_index),
            None => noise.into_iter().map(|value| value * scheduler.init_noise_sigma()).collect(),
        };
        let mut latents = Latents { channels, height, width, values };

        // 4. Denoising loop.
        for index in begin_index..scheduler.timesteps().len() {
            let started = Instant::now();
            let input = Latents { values: scheduler.scale_model_input(&latents.values, index), ..latents.clone() };
            let timestep = scheduler.timesteps()[index];
            let output = self.predict(&input, timestep, conditioning, params.guidance_scale)?;
            latents.values = scheduler.step(&output, index, &latents.values, &mut |count| rng.normal(count));
            if !latents.values.iter().all(|value| value.is_finite()) {
                return Err(Error::NotFinite { stage: "the UNet" });
            }
            let predicted = Latents { values: clean.predict(&output, &input.values, timestep), ..input };
            if told(&latents, &predicted, started.elapsed()).is_break() {
                return Err(Error::Canceled);
            }
        }
        Ok(latents)
    }

    /// One UNet call, a batch of two where the conditioning has a negative half, brought together by guidance.
    fn predict(
        &self,
        input: &Latents,
        timestep: f32,
        conditioning: &UNetConditioning,
        guidance_scale: f64,
    ) -> Result<Vec<f32>, Error> {
        let batch = conditioning.batch()?;
        let sample = self.upload(&vec![input; batch], self.unet.dtype())?; // (batch, h, w, 4)
        let output = self.unet.forward(&sample, timestep, conditioning)?;
        let mut predictions = self.download(&output)?;
        let Some(text) = (batch == 2).then(|| predictions.pop()).flatten() else {
            return Ok(predictions.remove(0));
        };
        let unconditional = predictions.remove(0);
        let scale = guidance_scale as f32;
        Ok(unconditional.into_iter().zip(text).map(|(u, t)| u + scale * (t - u)).collect())
    }

    /// Latents to pixels.
    fn decode(&self, latents: &Latents) -> Result<::image::RgbImage, Error> {
        let sample = self.upload(&[latents], self.vae.dtype())?;
        let pixels = self.vae.decode(&(sample / self.vae.scaling_factor())?)?; // (1, 8h, 8w, 3)
        image::from_tensor(&pixels)
    }

    /// Host latents as one channels-last batch in the type the network calculates in.
    fn upload(&self, batch: &[&Latents], dtype: DType) -> Result<Tensor, Error> {
        let Latents { channels, height, width, .. } = *batch[0];
        let values: Vec<f32> = batch.iter().flat_map(|latents| latents.values.iter().copied()).collect();
        let tensor = Tensor::from_vec(values, (batch.len(), channels, height, width), &Device::Cpu)?;
        let tensor = tensor.permute((0, 2, 3, 1))?.contiguous()?; // (b, h, w, c)
        Ok(tensor.to_device(&self.device)?.to_dtype(dtype)?)
    }

    /// A channels-last batch as torch would lay out each of its members.
    fn download(&self, batch: &Tensor) -> Result<Vec<Vec<f32>>, Error> {
        let tensor = batch.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        Ok(tensor.permute((0, 3, 1, 2))?.contiguous()?.flatten_from(1)?.to_vec2()?)
    }

    /// What no amount of arithmetic can do. Limits of policy are the caller's.
    fn check(&self, params: &Params) -> Result<(), Error> {
        let factor = self.vae.scale_factor();
        for (name, value) in [("width", params.width), ("height", params.height)] {
            if value == 0 || value % factor != 0 {
                return Err(Error::Params(format!("{name} must be a multiple of {factor}, not {value}")));
            }
        }
        if params.num_images == 0 {
            return Err(Error::Params("num_images must be at least 1".into()));
        }
        if !params.guidance_scale.is_finite() {
            return Err(Error::Params("guidance_scale must be a number".into()));
        }
        if params.image.as_ref().is_some_and(|image| image.is_empty()) {
            return Err(Error::Params("image must have pixels".into()));
        }
        params.begin_index()?;
        scheduler::scheduler(params.scheduler, &self.scheduler_config, params.num_inference_steps).map(drop)
    }
}
