//! The attention between residual blocks: pixels look at each other, then at the text.
//!
//! diffusers: `models/transformers/transformer_2d.py`, `Transformer2DModel`, and `models/attention.py`,
//! `BasicTransformerBlock`. Channels-last, a picture already is the sequence they make of it.

use std::slice::Iter;

use candle_core::Tensor;

#[cfg(feature = "cuda")]
use super::graphs;
use super::{
    super::{
        error::Error,
        ops::{GroupNorm, LayerNorm, Mask, Projection, attention, geglu},
        weights::Source,
    },
    UNetConfig,
    config::BlockShape,
};

/// `Transformer2DModel.norm` has its own, whatever `norm_eps` says.
const GROUP_NORM_EPS: f64 = 1e-6;
/// `BasicTransformerBlock`'s default.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Transformer blocks over a picture, with a residual connection around all of them.
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

impl Transformer {
    pub(super) fn load(
        source: &Source<'_>,
        config: &UNetConfig,
        shape: BlockShape,
        layers: usize,
    ) -> Result<Self, Error> {
        let channels = shape.channels;
        let projection = |name: &str| {
            if config.use_linear_projection {
                Projection::load(&source.at(name), channels, channels)
            } else {
                Projection::load_1x1(&source.at(name), channels, channels)
            }
        };
        let block = |i| {
            TransformerBlock::load(
                &source.at(format!("transformer_blocks.{i}")),
                channels,
                shape.heads,
                config.cross_attention_dim,
            )
        };
        Ok(Self {
            norm: GroupNorm::load(&source.at("norm"), channels, config.norm_num_groups, GROUP_NORM_EPS)?,
            proj_in: projection("proj_in")?,
            transformer_blocks: (0..layers).map(block).collect::<Result<_, _>>()?,
            proj_out: projection("proj_out")?,
        })
    }

    /// What its blocks look at in the texts, block after block.
    pub(super) fn attend_to(&self, text: &Tensor, attended: &mut Vec<Attended>) -> candle_core::Result<()> {
        for block in &self.transformer_blocks {
            attended.push(block.attn2.attend_to(text)?);
        }
        Ok(())
    }

    /// `(b, h, w, c)` in and out. Takes one of `text` for each block.
    pub(super) fn forward(&self, x: &Tensor, text: &mut Iter<'_, Attended>) -> candle_core::Result<Tensor> {
        let mut hidden = self.proj_in.forward(&self.norm.forward(x)?)?.flatten(1, 2)?; // (b, h * w, c)
        for block in &self.transformer_blocks {
            let Some(text) = text.next() else {
                candle_core::bail!("there are more blocks than texts were prepared for")
            };
            hidden = block.forward(&hidden, text)?;
        }
        x + self.proj_out.forward(&hidden)?.reshape(x.shape())?
    }
}

/// Self-attention, cross-attention and a gated MLP, each behind a layer norm and beside a residual connection.
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff_in: Projection,
    ff_out: Projection,
}

impl TransformerBlock {
    fn load(source: &Source<'_>, channels: usize, heads: usize, text: usize) -> Result<Self, Error> {
        let norm = |name: &str| LayerNorm::load(&source.at(name), channels, LAYER_NORM_EPS);
        let inner = 4 * channels;
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::load(&source.at("attn1"), &source.at("attn1"), (channels, channels), heads)?,
            norm2: norm("norm2")?,
            // A text is looked at once for all calls, and its channels differ too much in size for one scale a row.
            attn2: Attention::load(&source.at("attn2"), &source.at("attn2").as_kept(), (channels, text), heads)?,
            norm3: norm("norm3")?,
            ff_in: Projection::load(&source.at("ff.net.0.proj"), channels, 2 * inner)?,
            ff_out: Projection::load(&source.at("ff.net.2"), inner, channels)?,
        })
    }

    fn forward(&self, hidden: &Tensor, text: &Attended) -> candle_core::Result<Tensor> {
        let x = self.norm1.forward(hidden)?;
        let hidden = (hidden + self.attn1.forward(&x, &self.attn1.attend_to(&x)?)?)?;
        let hidden = (&hidden + self.attn2.forward(&self.norm2.forward(&hidden)?, text)?)?;
        let gated = geglu(&self.ff_in.forward(&self.norm3.forward(&hidden)?)?)?;
        hidden + self.ff_out.forward(&gated)?
    }
}

/// What is looked at: keys and values of every token, both `(b, tokens, c)`.
#[derive(Clone)]
pub(super) struct Attended {
    key: Tensor,
    value: Tensor,
}

impl Attended {
    /// Several as one batch.
    pub(super) fn cat<'a>(all: impl Iterator<Item = &'a Self>) -> candle_core::Result<Self> {
        let (keys, values): (Vec<_>, Vec<_>) = all.map(|one| (&one.key, &one.value)).unzip();
        Ok(Self { key: Tensor::cat(&keys, 0)?, value: Tensor::cat(&values, 0)? })
    }
}

#[cfg(feature = "cuda")]
impl Attended {
    pub(super) fn dims(&self) -> &[usize] {
        self.key.dims()
    }

    /// The same in a place of its own.
    pub(super) fn copy(&self) -> candle_core::Result<Self> {
        Ok(Self { key: graphs::copy(&self.key)?, value: graphs::copy(&self.value)? })
    }

    /// Writes another's numbers, as many, into this one's place.
    pub(super) fn set(&self, other: &Self) -> candle_core::Result<()> {
        self.key.slice_set(&other.key.contiguous()?, 0, 0)?;
        self.value.slice_set(&other.value.contiguous()?, 0, 0)
    }
}

/// diffusers: `models/attention_processor.py`, `Attention`.
struct Attention {
    to_q: Projection,
    to_k: Projection,
    to_v: Projection,
    to_out: Projection,
    heads: usize,
}

impl Attention {
    /// What is looked at comes from layers of `attended`.
    fn load(
        source: &Source<'_>,
        attended: &Source<'_>,
        (channels, context): (usize, usize),
        heads: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            to_q: Projection::load_no_bias(&source.at("to_q"), channels, channels)?,
            to_k: Projection::load_no_bias(&attended.at("to_k"), context, channels)?,
            to_v: Projection::load_no_bias(&attended.at("to_v"), context, channels)?,
            to_out: Projection::load(&source.at("to_out.0"), channels, channels)?,
            heads,
        })
    }

    fn attend_to(&self, context: &Tensor) -> candle_core::Result<Attended> {
        Ok(Attended { key: self.to_k.forward(context)?, value: self.to_v.forward(context)? })
    }

    fn forward(&self, x: &Tensor, context: &Attended) -> candle_core::Result<Tensor> {
        let (heads, precision) = ((self.heads, Mask::None), self.to_q.precision());
        self.to_out.forward(&attention(&self.to_q.forward(x)?, &context.key, &context.value, heads, precision)?)
    }
}
