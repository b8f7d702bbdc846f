//! Pixels to latent moments.
//!
//! diffusers: `models/autoencoders/vae.py`, `Encoder`.

use candle_core::Tensor;

use super::{
    super::{
        error::Error,
        ops::{Convolution, GroupNorm, Padding},
        resnet::ResnetBlock,
        weights::Source,
    },
    VaeConfig,
    blocks::{EPS, MidBlock, resnets},
};

/// The VAE's encoder.
pub(super) struct Encoder {
    conv_in: Convolution,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Convolution,
}

/// `DownEncoderBlock2D`.
struct DownBlock {
    resnets: Vec<ResnetBlock>,
    downsampler: Option<Convolution>,
}

impl Encoder {
    pub(super) fn load(source: &Source<'_>, config: &VaeConfig) -> Result<Self, Error> {
        let channels = &config.block_out_channels;
        let last = channels.len() - 1;
        let down_block = |i: usize| -> Result<DownBlock, Error> {
            let source = source.at(format!("down_blocks.{i}"));
            let (inputs, outputs) = (channels[i.saturating_sub(1)], channels[i]);
            let downsampler = || {
                let source = source.at("downsamplers.0.conv");
                Convolution::load_strided(&source, outputs, outputs, 2, Padding::AFTER)
            };
            Ok(DownBlock {
                resnets: resnets(&source, config, config.layers_per_block, inputs, outputs)?,
                downsampler: (i < last).then(downsampler).transpose()?,
            })
        };
        Ok(Self {
            conv_in: Convolution::load(&source.at("conv_in"), config.in_channels, channels[0])?,
            down_blocks: (0..channels.len()).map(down_block).collect::<Result<_, _>>()?,
            mid_block: MidBlock::load(&source.at("mid_block"), config, channels[last])?,
            conv_norm_out: GroupNorm::load(&source.at("conv_norm_out"), channels[last], config.norm_num_groups, EPS)?,
            // Means and log-variances.
            conv_out: Convolution::load(&source.at("conv_out"), channels[last], 2 * config.latent_channels)?,
        })
    }

    /// `(b, 8h, 8w, 3)` to `(b, h, w, 8)`.
    pub(super) fn forward(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        let mut hidden = self.conv_in.forward(pixels)?;
        for block in &self.down_blocks {
            for resnet in &block.resnets {
                hidden = resnet.forward(&hidden, None)?;
            }
            if let Some(downsampler) = &block.downsampler {
                hidden = downsampler.forward(&hidden)?;
            }
        }
        hidden = self.mid_block.forward(&hidden)?;
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&hidden)?)
    }
}
