//! The UNet's three kinds of block.
//!
//! diffusers: `models/unets/unet_2d_blocks.py`: `DownBlock2D` and `CrossAttnDownBlock2D`, `UNetMidBlock2DCrossAttn`,
//! `UpBlock2D` and `CrossAttnUpBlock2D`. A block with and one without attention differ only in having any.

use std::slice::Iter;

use candle_core::Tensor;

use super::{
    super::{
        error::Error,
        ops::{Convolution, Padding},
        resnet::{ResnetBlock, ResnetShape},
        weights::Source,
    },
    UNetConfig,
    config::BlockShape,
    transformer::{Attended, Transformer},
    with_residual,
};

/// A residual block and, where the block has attention, the transformer after it.
struct Layer {
    resnet: ResnetBlock,
    attention: Option<Transformer>,
}

impl Layer {
    /// Layer `i` of a block, taking `inputs` channels.
    fn load(
        source: &Source<'_>,
        config: &UNetConfig,
        shape: BlockShape,
        i: usize,
        inputs: usize,
    ) -> Result<Self, Error> {
        let attention = shape
            .transformers
            .map(|layers| Transformer::load(&source.at(format!("attentions.{i}")), config, shape, layers))
            .transpose()?;
        Ok(Self { resnet: resnet(source, config, shape, i, inputs)?, attention })
    }

    fn forward(&self, x: &Tensor, time: &Tensor, text: &mut Iter<'_, Attended>) -> candle_core::Result<Tensor> {
        let hidden = self.resnet.forward(x, Some(time))?;
        match &self.attention {
            Some(attention) => attention.forward(&hidden, text),
            None => Ok(hidden),
        }
    }
}

/// What the transformers of these layers look at in the texts, in the order in which they do.
fn attend_to<'a>(
    layers: impl IntoIterator<Item = &'a Layer>,
    text: &Tensor,
    attended: &mut Vec<Attended>,
) -> candle_core::Result<()> {
    let mut transformers = layers.into_iter().filter_map(|layer| layer.attention.as_ref());
    transformers.try_for_each(|transformer| transformer.attend_to(text, attended))
}

fn resnet(
    source: &Source<'_>,
    config: &UNetConfig,
    shape: BlockShape,
    i: usize,
    inputs: usize,
) -> Result<ResnetBlock, Error> {
    let shape = ResnetShape {
        inputs,
        outputs: shape.channels,
        time: Some(config.time_embed_dim()),
        groups: config.norm_num_groups,
        eps: config.norm_eps,
    };
    ResnetBlock::load(&source.at(format!("resnets.{i}")), shape)
}

/// A block of the way down.
pub(super) struct DownBlock {
    layers: Vec<Layer>,
    downsampler: Option<Convolution>,
}

impl DownBlock {
    pub(super) fn load(source: &Source<'_>, config: &UNetConfig, block: usize) -> Result<Self, Error> {
        let shape = config.down(block);
        let before = config.block_out_channels[block.saturating_sub(1)];
        let layer = |i| Layer::load(source, config, shape, i, if i == 0 { before } else { shape.channels });
        let is_last = block + 1 == config.block_out_channels.len();
        let downsampler = || {
            let source = source.at("downsamplers.0.conv");
            Convolution::load_strided(&source, shape.channels, shape.channels, 2, Padding::same(1))
        };
        Ok(Self {
            layers: (0..shape.resnets).map(layer).collect::<Result<_, _>>()?,
            downsampler: (!is_last).then(downsampler).transpose()?,
        })
    }

    pub(super) fn attend_to(&self, text: &Tensor, attended: &mut Vec<Attended>) -> candle_core::Result<()> {
        attend_to(&self.layers, text, attended)
    }

    /// Leaves a residual after each layer and after the downsampler.
    pub(super) fn forward(
        &self,
        mut sample: Tensor,
        time: &Tensor,
        text: &mut Iter<'_, Attended>,
        residuals: &mut Vec<Tensor>,
    ) -> candle_core::Result<Tensor> {
        for layer in &self.layers {
            sample = layer.forward(&sample, time, text)?;
            residuals.push(sample.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            sample = downsampler.forward(&sample)?;
            residuals.push(sample.clone());
        }
        Ok(sample)
    }
}

/// The block between the way down and the way up.
pub(super) struct MidBlock {
    first: Layer,
    last: ResnetBlock,
}

impl MidBlock {
    pub(super) fn load(source: &Source<'_>, config: &UNetConfig) -> Result<Self, Error> {
        let shape = config.mid();
        Ok(Self {
            first: Layer::load(source, config, shape, 0, shape.channels)?,
            last: resnet(source, config, shape, 1, shape.channels)?,
        })
    }

    pub(super) fn attend_to(&self, text: &Tensor, attended: &mut Vec<Attended>) -> candle_core::Result<()> {
        attend_to([&self.first], text, attended)
    }

    pub(super) fn forward(
        &self,
        sample: &Tensor,
        time: &Tensor,
        text: &mut Iter<'_, Attended>,
    ) -> candle_core::Result<Tensor> {
        self.last.forward(&self.first.forward(sample, time, text)?, Some(time))
    }
}

/// A block of the way up.
pub(super) struct UpBlock {
    layers: Vec<Layer>,
    upsampler: Option<Convolution>,
}

impl UpBlock {
    pub(super) fn load(source: &Source<'_>, config: &UNetConfig, block: usize) -> Result<Self, Error> {
        let shape = config.up(block);
        let last = config.block_out_channels.len() - 1;
        // What comes up from below, and the residual of the block's last layer, which is from one block higher.
        let before = config.block_out_channels[last - block.saturating_sub(1)];
        let higher = config.block_out_channels[last - (block + 1).min(last)];
        let layer = |i: usize| {
            let residual = if i + 1 == shape.resnets { higher } else { shape.channels };
            let sample = if i == 0 { before } else { shape.channels };
            Layer::load(source, config, shape, i, sample + residual)
        };
        let upsampler = || Convolution::load(&source.at("upsamplers.0.conv"), shape.channels, shape.channels);
        Ok(Self {
            layers: (0..shape.resnets).map(layer).collect::<Result<_, _>>()?,
            upsampler: (block < last).then(upsampler).transpose()?,
        })
    }

    pub(super) fn attend_to(&self, text: &Tensor, attended: &mut Vec<Attended>) -> candle_core::Result<()> {
        attend_to(&self.layers, text, attended)
    }

    /// Takes one residual for each layer.
    pub(super) fn forward(
        &self,
        mut sample: Tensor,
        time: &Tensor,
        text: &mut Iter<'_, Attended>,
        residuals: &mut Vec<Tensor>,
    ) -> candle_core::Result<Tensor> {
        for layer in &self.layers {
            sample = layer.forward(&with_residual(&sample, residuals)?, time, text)?;
        }
        if let (Some(upsampler), Some(next)) = (&self.upsampler, residuals.last()) {
            // To the size of the residual it will meet: twice its own, or one less where the way down rounded up.
            let (_, height, width, _) = next.dims4()?;
            sample = upsampler.forward_upsampled(&sample, height, width)?;
        }
        Ok(sample)
    }
}
