//! SDXL's UNet: predicts the noise in latents, given a timestep, the texts and the picture's sizes.
//!
//! diffusers: `models/unets/unet_2d_condition.py`, `UNet2DConditionModel`. Modules carry the checkpoint's names. Every
//! size comes from `unet/config.json`.

mod blocks;
mod conditioning;
mod config;
mod embedding;
#[cfg(feature = "cuda")]
mod graphs;
mod transformer;

#[cfg(feature = "cuda")]
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::{
    error::Error,
    ops::{Activation, Convolution, GroupNorm, concat_channels},
    options::Options,
    weights::{Source, TensorStore, Weights, activation_dtype},
};
use blocks::{DownBlock, MidBlock, UpBlock};
pub use conditioning::UNetConditioning;
pub use config::UNetConfig;
use embedding::{TimestepEmbedding, sinusoid};

/// The UNet.
pub struct UNet {
    conv_in: Convolution,
    time_embedding: TimestepEmbedding,
    add_embedding: TimestepEmbedding,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Convolution,
    config: UNetConfig,
    dtype: DType,
    device: Device,
    /// Where its calls may be captured: there as long as it is.
    #[cfg(feature = "cuda")]
    captured: Option<Arc<()>>,
}

impl UNet {
    /// Opens the UNet of a model's files.
    pub fn open(weights: &Weights, device: &Device, dtype: DType, options: Options) -> Result<Self, Error> {
        let (config, path) = weights.config::<UNetConfig>("unet")?;
        config.check(&path)?;
        let store = weights.tensors("unet")?;
        let source = Source::new(&*store, device, dtype);
        let unet = Self::build(&if options.int8 { source.quantized() } else { source }, config, dtype)?;
        #[cfg(feature = "cuda")]
        let unet = {
            let captures = device.is_cuda() && !options.eager && !options.low_memory;
            Self { captured: captures.then(Arc::default), ..unet }
        };
        Ok(unet)
    }

    /// Builds the UNet this configuration describes.
    pub fn load(store: &dyn TensorStore, config: UNetConfig, device: &Device, dtype: DType) -> Result<Self, Error> {
        Self::build(&Source::new(store, device, dtype), config, dtype)
    }

    fn build(source: &Source<'_>, config: UNetConfig, dtype: DType) -> Result<Self, Error> {
        let blocks = config.block_out_channels.len();
        let first = config.block_out_channels[0];
        let time = config.time_embed_dim();
        let down_blocks = (0..blocks)
            .map(|i| DownBlock::load(&source.at(format!("down_blocks.{i}")), &config, i))
            .collect::<Result<_, _>>()?;
        let up_blocks = (0..blocks)
            .map(|i| UpBlock::load(&source.at(format!("up_blocks.{i}")), &config, i))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            conv_in: Convolution::load(&source.at("conv_in"), config.in_channels, first)?,
            time_embedding: TimestepEmbedding::load(&source.at("time_embedding"), first, time)?,
            add_embedding: TimestepEmbedding::load(
                &source.at("add_embedding"),
                config.projection_class_embeddings_input_dim,
                time,
            )?,
            down_blocks,
            mid_block: MidBlock::load(&source.at("mid_block"), &config)?,
            up_blocks,
            conv_norm_out: GroupNorm::load(
                &source.at("conv_norm_out"),
                first,
                config.norm_num_groups,
                config.norm_eps,
            )?,
            conv_out: Convolution::load(&source.at("conv_out"), first, config.out_channels)?,
            config,
            dtype: activation_dtype(source.device(), dtype),
            device: source.device().clone(),
            #[cfg(feature = "cuda")]
            captured: None,
        })
    }

    /// The latents' width and height in training.
    pub fn sample_size(&self) -> usize {
        self.config.sample_size
    }

    /// Channels of the latents.
    pub fn in_channels(&self) -> usize {
        self.config.in_channels
    }

    /// The type activations have.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The prediction for latents `(b, h, w, 4)` under a request's conditioning.
    pub fn forward(&self, sample: &Tensor, timestep: f32, conditioning: &UNetConditioning) -> Result<Tensor, Error> {
        let width = self.config.block_out_channels[0];
        let time = Tensor::from_vec(sinusoid(timestep, width, &self.config), (1, width), &self.device)?;
        let time = time.to_dtype(self.dtype)?;
        #[cfg(feature = "cuda")]
        if let Some(unet) = &self.captured {
            return graphs::Prediction { unet: self, sample, time: &time, conditioning }.call(unet);
        }
        Ok(self.predict(sample, &time, conditioning)?)
    }

    /// As [`Self::forward`], with the timestep's sinusoid.
    fn predict(&self, sample: &Tensor, time: &Tensor, conditioning: &UNetConditioning) -> candle_core::Result<Tensor> {
        // 1. Time. Every residual block begins by taking the embedding's SiLU, so it is taken once here.
        let time = self.time_embedding.forward(time)?;
        let time = Activation::Silu.forward(&time.broadcast_add(&conditioning.aug_emb)?)?; // (b, time channels)

        let mut text = conditioning.text.iter();

        // 2. Pre-process.
        let mut sample = self.conv_in.forward(sample)?;

        // 3. Down, keeping what the way up will be reminded of.
        let mut residuals = vec![sample.clone()];
        for block in &self.down_blocks {
            sample = block.forward(sample, &time, &mut text, &mut residuals)?;
        }

        // 4. Mid.
        sample = self.mid_block.forward(&sample, &time, &mut text)?;

        // 5. Up.
        for block in &self.up_blocks {
            sample = block.forward(sample, &time, &mut text, &mut residuals)?;
        }

        // 6. Post-process.
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&sample)?)
    }
}

/// The next residual, put beside the sample in the channels.
fn with_residual(sample: &Tensor, residuals: &mut Vec<Tensor>) -> candle_core::Result<Tensor> {
    match residuals.pop() {
        Some(residual) => concat_channels(sample, &residual),
        None => candle_core::bail!("the way up has more residual blocks than the way down"),
    }
}
