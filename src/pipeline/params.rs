//! What goes into a generation and what comes out of it. Names are those of diffusers' `StableDiffusionXLPipeline` and
//! `StableDiffusionXLImg2ImgPipeline`.

use std::time::Duration;

use image::RgbImage;

use super::{error::Error, scheduler::SchedulerName};

/// One request to the pipeline.
#[derive(Clone, Debug)]
pub struct Params {
    /// What to draw.
    pub prompt: String,
    /// What to stay away from. Looked at only when `guidance_scale > 1`. `None` is not the empty text: it stands for
    /// embeddings of zeros where the model asks for them.
    pub negative_prompt: Option<String>,
    /// Pixels, a multiple of 8.
    pub width: usize,
    /// Pixels, a multiple of 8.
    pub height: usize,
    /// Denoising steps. Some schedulers call the UNet more than once a step: see [`Params::unet_calls`].
    pub num_inference_steps: usize,
    /// Classifier-free guidance; 1 and below switch it off and halve the work.
    pub guidance_scale: f64,
    /// Images of this prompt. Image `i` is exactly what `seed + i` alone would draw.
    pub num_images_per_prompt: usize,
    /// The seed of the first image.
    pub seed: u64,
    /// The sampling algorithm.
    pub scheduler: SchedulerName,
    /// The image to start from instead of pure noise, of any size: it is resized to `width` and `height`.
    pub image: Option<RgbImage>,
    /// How much of `image` is given up to noise, 0 to 1. Only the last `num_inference_steps * strength` steps are
    /// taken, rounded down; there must be one.
    pub strength: f64,
    /// Draws without looking at the images afterwards. A model without a safety checker never does.
    pub disable_safety_checker: bool,
}

impl Params {
    /// The hosted model's defaults for this prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: None,
            width: 1024,
            height: 1024,
            num_inference_steps: 4,
            guidance_scale: 0.0,
            num_images_per_prompt: 1,
            seed: 0,
            scheduler: SchedulerName::default(),
            image: None,
            strength: 0.8,
            disable_safety_checker: false,
        }
    }

    /// How often the UNet will run, over all images: known before the first call, for progress and estimates. 0 for a
    /// strength that leaves no step.
    pub fn unet_calls(&self) -> usize {
        let calls = self.scheduler.unet_calls(self.num_inference_steps);
        self.begin_index().map_or(0, |begin| calls - begin) * self.num_images_per_prompt
    }

    /// The call of the scheduler that is made first.
    pub(super) fn begin_index(&self) -> Result<usize, Error> {
        match self.image {
            Some(_) => self.scheduler.begin_index(self.num_inference_steps, self.strength),
            None => Ok(0),
        }
    }

    /// Whether the UNet can be called for both in one batch, call by call: of the same size, images, scheduler, steps
    /// and kind of guidance. Prompts, seeds and how much guidance are each one's own.
    pub fn is_alike(&self, other: &Self) -> bool {
        let calls = |params: &Self| {
            (
                params.scheduler,
                params.num_inference_steps,
                params.begin_index().ok(),
                params.do_classifier_free_guidance(),
            )
        };
        let images = |params: &Self| (params.width, params.height, params.num_images_per_prompt);
        calls(self) == calls(other) && images(self) == images(other)
    }

    /// `StableDiffusionXLPipeline.do_classifier_free_guidance`.
    pub(super) fn do_classifier_free_guidance(&self) -> bool {
        self.guidance_scale > 1.0
    }
}

/// What is told of a generation while it goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The UNet was called.
    Step(Step<'a>),
    /// An image is finished, and passed the safety checker.
    Image {
        /// Which one, from 0.
        index: usize,
        /// The image.
        image: &'a RgbImage,
    },
}

/// Where a generation stands after a UNet call.
#[derive(Debug)]
pub struct Step<'a> {
    /// The image being drawn, from 0.
    pub image_index: usize,
    /// UNet calls done before this one, over all images.
    pub index: usize,
    /// UNet calls in the whole generation.
    pub total: usize,
    pub(super) latents: &'a Latents,
    pub(super) predicted: &'a Latents,
}

impl Step<'_> {
    /// The latents after this call.
    pub fn latents(&self) -> &Latents {
        self.latents
    }

    /// Where the UNet sees this going: what the latents would be without their noise, for a preview.
    pub fn predicted(&self) -> &Latents {
        self.predicted
    }
}

/// One image in the VAE's space: channel by channel, row by row, as torch keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Latents {
    /// Channels: 4.
    pub channels: usize,
    /// Rows: an eighth of the image's.
    pub height: usize,
    /// Columns: an eighth of the image's.
    pub width: usize,
    /// `channels * height * width` numbers.
    pub values: Vec<f32>,
}

/// What a generation made.
#[derive(Debug)]
pub struct Generation {
    /// The images, in order, without those that the safety checker flagged.
    pub images: Vec<RgbImage>,
    /// The seed that draws each image alone.
    pub seeds: Vec<u64>,
    /// Whether the images were looked at.
    pub safety: Safety,
    /// Where the time went.
    pub timings: Timings,
    /// What the caller should know, e.g. which words of the prompt were left out.
    pub notes: Vec<String>,
}

/// What the safety checker had to do with a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// It looked at every image.
    Checked,
    /// It was not to look.
    Disabled,
    /// The model has none.
    Unavailable,
}

/// Device time of each stage. A UNet call that was made for several requests counts for each with its share.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    /// Both text encoders, and the VAE's encoder where there is an image to start from.
    pub encode: Duration,
    /// Each UNet call with its scheduler step.
    pub steps: Vec<Duration>,
    /// The VAE, the conversion to pixels and the safety checker, over all images.
    pub decode: Duration,
}
