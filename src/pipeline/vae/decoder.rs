//! Latents to pixels.
//!
//! diffusers: `models/autoencoders/vae.py`, `Decoder`.

use candle_core::Tensor;

use super::{
    super::{
        error::Error,
        ops::{Convolution, GroupNorm},
        resnet::ResnetBlock,
        weights::Source,
    },
    VaeConfig,
    blocks::{EPS, MidBlock, resnets},
};

/// The VAE's decoder.
pub(super) struct Decoder {
    conv_in: Convolution,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Convolution,
}

/// `UpDecoderBlock2D`.
struct UpBlock {
    resnets: Vec<ResnetBlock>,
    upsampler: Option<Convolution>,
}

impl Decoder {
    pub(super) fn load(source: &Source<'_>, config: &VaeConfig) -> Result<Self, Error> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let last = channels.len() - 1;
        let up_block = |i: usize| -> Result<UpBlock, Error> {
            let source = source.at(format!("up_blocks.{i}"));
            let (inputs, outputs) = (channels[i.saturating_sub(1)], channels[i]);
            let upsampler = || Convolution::load(&source.at("upsamplers.0.conv"), outputs, outputs);
            Ok(UpBlock {
                resnets: resnets(&source, config, config.layers_per_block + 1, inputs, outputs)?,
                upsampler: (i < last).then(upsampler).transpose()?,
            })
        };
        Ok(Self {
            conv_in: Convolution::load(&source.at("conv_in"), config.latent_channels, channels[0])?,
            mid_block: MidBlock::load(&source.at("mid_block"), config, channels[0])?,
            up_blocks: (0..channels.len()).map(up_block).collect::<Result<_, _>>()?,
            conv_norm_out: GroupNorm::load(&source.at("conv_norm_out"), channels[last], config.norm_num_groups, EPS)?,
            conv_out: Convolution::load(&source.at("conv_out"), channels[last], config.out_channels)?,
        })
    }

    /// `(b, h, w, 4)` to `(b, 8h, 8w, 3)`.
    pub(super) fn forward(&self, latents: &Tensor) -> candle_core::Result<Tensor> {
        let mut hidden = self.mid_block.forward(&self.conv_in.forward(latents)?)?;
        for block in &self.up_blocks {
            for resnet in &block.resnets {
                hidden = resnet.forward(&hidden, None)?;
            }
            if let Some(upsampler) = &block.upsampler {
                let (_, height, width, _) = hidden.dims4()?;
                hidden = upsampler.forward_upsampled(&hidden, 2 * height, 2 * width)?;
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&hidden)?)
    }
}
