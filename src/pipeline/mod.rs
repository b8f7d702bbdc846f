//! SDXL as a library: text and perhaps an image in, pixels out. It knows nothing of servers and imports nothing of this
//! crate but itself.
//!
//! diffusers is the reference: names are diffusers', ported formulas name their file and function, and `tests/pipeline`
//! compares every stage with numbers diffusers produced. The way of a prompt: `tokenizer` → `text_encoder` →
//! `conditioning` → `noise` → `unet` under a `scheduler` → `vae` → `image`; `batch` takes it, for one prompt or
//! several. The networks are written in terms of [`ops`], operations on channels-last activations, which is where speed
//! is won without touching the model.

mod batch;
#[cfg(any(test, feature = "cuda"))]
mod captures;
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

use std::{ops::ControlFlow, slice};

use candle_core::{DType, Device, Tensor};

use conditioning::TextEncoders;
pub use error::{Error, WeightsError};
use image_to_image::ImageLatents;
pub use lora::LoraFile;
pub use options::Options;
pub use params::{Generation, Latents, Params, Progress, Safety, Step, Timings};
pub use preview::LatentPreview;
use safety_checker::SafetyChecker;
use scheduler::SchedulerConfig;
pub use scheduler::SchedulerName;
use unet::UNet;
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
    /// Loads a model. `dtype` is what the weights are kept in. On the CPU the arithmetic is f32 whatever they are kept
    /// in, and `f32` keeps them in the type that their file has, but for those that a LoRA changes.
    pub fn load(weights: &Weights, device: &Device, dtype: DType) -> Result<Self, Error> {
        Self::load_with(weights, device, dtype, Options::default())
    }

    /// Loads a model to be held like this. A safety checker is loaded where the model has one.
    pub fn load_with(weights: &Weights, device: &Device, dtype: DType, options: Options) -> Result<Self, Error> {
        let load = if options.low_memory { TextEncoders::in_files } else { TextEncoders::load };
        Ok(Self {
            text_encoders: load(weights, device, dtype)?,
            unet: UNet::open(weights, device, dtype, options)?,
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

    /// Draws. The callback hears of every UNet call and every image as it ends, and cancels by returning `Break`.
    ///
    /// diffusers: `pipeline_stable_diffusion_xl.py`, `StableDiffusionXLPipeline.__call__`.
    pub fn generate(
        &self,
        params: &Params,
        callback: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, Error> {
        let mut results = self.generate_batch(slice::from_ref(params), &mut |_, progress| callback(progress))?;
        results.remove(0)
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
        if params.num_images_per_prompt == 0 {
            return Err(Error::Params("num_images_per_prompt must be at least 1".into()));
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
