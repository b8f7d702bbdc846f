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
        ops::{GroupNorm, LayerNorm, Mask, Projection, Projections, attention, geglu},
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
        let mut update = None;
        for block in &self.transformer_blocks {
            let Some(text) = text.next() else {
                candle_core::bail!("there are more blocks than texts were prepared for")
            };
            let (sum, next) = block.forward(hidden, update.as_ref(), text)?;
            (hidden, update) = (sum, Some(next));
        }
        if let Some(update) = update {
            hidden = (hidden + update)?;
        }
        x + self.proj_out.forward(&hidden)?.reshape(x.shape())?
    }
}

/// Self-attention, cross-attention and a gated MLP, each behind a layer norm and beside a residual connection.
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: SelfAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
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
            attn1: SelfAttention::load(&source.at("attn1"), channels, heads)?,
            norm2: norm("norm2")?,
            attn2: CrossAttention::load(&source.at("attn2"), channels, text, heads)?,
            norm3: norm("norm3")?,
            ff_in: Projection::load(&source.at("ff.net.0.proj"), channels, 2 * inner)?,
            ff_out: Projection::load(&source.at("ff.net.2"), inner, channels)?,
        })
    }

    /// Takes and gives a sum in two parts, for each norm adds up what it normalizes: `(b, h * w, c)` and what the block
    /// before adds to it.
    fn forward(
        &self,
        hidden: Tensor,
        update: Option<&Tensor>,
        text: &Attended,
    ) -> candle_core::Result<(Tensor, Tensor)> {
        let (hidden, x) = match update {
            Some(update) => self.norm1.forward_residual(update, &hidden)?,
            None => {
                let x = self.norm1.forward(&hidden)?;
                (hidden, x)
            }
        };
        let update = self.attn1.forward(&x)?;
        let (hidden, x) = self.norm2.forward_residual(&update, &hidden)?;
        let update = self.attn2.forward(&x, text)?;
        let (hidden, x) = self.norm3.forward_residual(&update, &hidden)?;
        Ok((hidden, self.ff_out.forward(&geglu(&self.ff_in.forward(&x)?)?)?))
    }
}

/// What a text is to those who look at it: keys and values of every token, both `(b, tokens, c)`.
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

/// Tokens look at each other. diffusers: `models/attention_processor.py`, `Attention` with its projections fused.
struct SelfAttention {
    to_qkv: Projections,
    to_out: Projection,
    heads: usize,
}

impl SelfAttention {
    fn load(source: &Source<'_>, channels: usize, heads: usize) -> Result<Self, Error> {
        Ok(Self {
            to_qkv: Projections::load(source, &["to_q", "to_k", "to_v"], channels, channels)?,
            to_out: Projection::load(&source.at("to_out.0"), channels, channels)?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let [query, key, value] = &self.to_qkv.forward(x)?[..] else {
            candle_core::bail!("self-attention has three projections")
        };
        let attended = attention(query, key, value, (self.heads, Mask::None), self.to_out.precision())?;
        self.to_out.forward(&attended)
    }
}

/// Tokens look at a text. diffusers: `models/attention_processor.py`, `Attention`.
struct CrossAttention {
    to_q: Projection,
    to_k: Projection,
    to_v: Projection,
    to_out: Projection,
    heads: usize,
}

impl CrossAttention {
    fn load(source: &Source<'_>, channels: usize, text: usize, heads: usize) -> Result<Self, Error> {
        // A text is looked at once for all calls, and its channels differ too much in size for one scale a row.
        let of_text = source.clone().as_kept();
        Ok(Self {
            to_q: Projection::load_no_bias(&source.at("to_q"), channels, channels)?,
            to_k: Projection::load_no_bias(&of_text.at("to_k"), text, channels)?,
            to_v: Projection::load_no_bias(&of_text.at("to_v"), text, channels)?,
            to_out: Projection::load(&source.at("to_out.0"), channels, channels)?,
            heads,
        })
    }

    fn attend_to(&self, text: &Tensor) -> candle_core::Result<Attended> {
        Ok(Attended { key: self.to_k.forward(text)?, value: self.to_v.forward(text)? })
    }

    fn forward(&self, x: &Tensor, text: &Attended) -> candle_core::Result<Tensor> {
        let (query, heads) = (self.to_q.forward(x)?, (self.heads, Mask::None));
        self.to_out.forward(&attention(&query, &text.key, &text.value, heads, self.to_q.precision())?)
    }
}
