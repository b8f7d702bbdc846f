//! What the encoder and the decoder share: residual blocks in rows, and the middle.
//!
//! diffusers: `models/unets/unet_2d_blocks.py`, `UNetMidBlock2D`; `models/attention_processor.py`, `Attention` with one
//! head and a group norm.

use candle_core::Tensor;

use super::{
    super::{
        error::Error,
        ops::{GroupNorm, Linear, Mask, attention},
        resnet::{ResnetBlock, ResnetShape},
        weights::Source,
    },
    VaeConfig,
};

/// Everywhere in the VAE.
pub(super) const EPS: f64 = 1e-6;

/// Residual blocks, the first of which changes the number of channels.
pub(super) fn resnets(
    source: &Source<'_>,
    config: &VaeConfig,
    count: usize,
    inputs: usize,
    outputs: usize,
) -> Result<Vec<ResnetBlock>, Error> {
    let resnet = |i: usize| {
        let inputs = if i == 0 { inputs } else { outputs };
        let shape = ResnetShape { inputs, outputs, time: None, groups: config.norm_num_groups, eps: EPS };
        ResnetBlock::load(&source.at(format!("resnets.{i}")), shape)
    };
    (0..count).map(resnet).collect()
}

/// The middle: the only place where distant pixels see each other.
pub(super) struct MidBlock {
    first: ResnetBlock,
    attention: Option<Attention>,
    last: ResnetBlock,
}

impl MidBlock {
    pub(super) fn load(source: &Source<'_>, config: &VaeConfig, channels: usize) -> Result<Self, Error> {
        let shape =
            ResnetShape { inputs: channels, outputs: channels, time: None, groups: config.norm_num_groups, eps: EPS };
        let attention = || Attention::load(&source.at("attentions.0"), channels, config.norm_num_groups);
        Ok(Self {
            first: ResnetBlock::load(&source.at("resnets.0"), shape)?,
            attention: config.mid_block_add_attention.then(attention).transpose()?,
            last: ResnetBlock::load(&source.at("resnets.1"), shape)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut hidden = self.first.forward(x, None)?;
        if let Some(attention) = &self.attention {
            hidden = attention.forward(&hidden)?;
        }
        self.last.forward(&hidden, None)
    }
}

/// One-headed attention over a whole picture.
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn load(source: &Source<'_>, channels: usize, groups: usize) -> Result<Self, Error> {
        let linear = |name: &str, older: &str| Linear::load(&source.at_either(name, older), channels, channels);
        Ok(Self {
            group_norm: GroupNorm::load(&source.at("group_norm"), channels, groups, EPS)?,
            to_q: linear("to_q", "query")?,
            to_k: linear("to_k", "key")?,
            to_v: linear("to_v", "value")?,
            to_out: linear("to_out.0", "proj_attn")?,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let tokens = self.group_norm.forward(x)?.flatten(1, 2)?; // (b, h * w, c)
        let (query, key, value) =
            (self.to_q.forward(&tokens)?, self.to_k.forward(&tokens)?, self.to_v.forward(&tokens)?);
        let attended = self.to_out.forward(&attention(&query, &key, &value, (1, Mask::None), self.to_q.precision)?)?;
        x + attended.reshape(x.shape())?
    }
}
