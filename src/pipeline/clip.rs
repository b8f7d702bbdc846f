//! The transformer layer that CLIP's two towers are made of.
//!
//! transformers: `models/clip/modeling_clip.py`, `CLIPEncoderLayer`.

use candle_core::{DType, Tensor};

use super::{
    error::Error,
    ops::{Activation, LayerNorm, Linear, Mask, attention},
    weights::Source,
};

/// Sizes of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncoderLayerShape {
    /// Channels of a token.
    pub(super) width: usize,
    /// Channels inside the MLP.
    pub(super) inner: usize,
    pub(super) heads: usize,
    pub(super) hidden_act: Activation,
    pub(super) layer_norm_eps: f64,
}

/// `CLIPEncoderLayer`.
pub(super) struct EncoderLayer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    hidden_act: Activation,
}

impl EncoderLayer {
    pub(super) fn load(source: &Source<'_>, shape: EncoderLayerShape) -> Result<Self, Error> {
        let EncoderLayerShape { width, inner, heads, hidden_act, layer_norm_eps } = shape;
        let projection = |name: &str| Linear::load(&source.at("self_attn").at(name), width, width);
        Ok(Self {
            layer_norm1: LayerNorm::load(&source.at("layer_norm1"), width, layer_norm_eps)?,
            q_proj: projection("q_proj")?,
            k_proj: projection("k_proj")?,
            v_proj: projection("v_proj")?,
            out_proj: projection("out_proj")?,
            layer_norm2: LayerNorm::load(&source.at("layer_norm2"), width, layer_norm_eps)?,
            fc1: Linear::load(&source.at("mlp.fc1"), width, inner)?,
            fc2: Linear::load(&source.at("mlp.fc2"), inner, width)?,
            heads,
            hidden_act,
        })
    }

    /// `(b, tokens, channels)` to the same.
    pub(super) fn forward(&self, hidden: &Tensor, mask: Mask) -> Result<Tensor, Error> {
        let x = self.layer_norm1.forward(hidden)?;
        let (query, key, value) = (self.q_proj.forward(&x)?, self.k_proj.forward(&x)?, self.v_proj.forward(&x)?);
        let attended = attention(&query, &key, &value, (self.heads, mask), DType::F32)?;
        let (hidden, x) = self.layer_norm2.forward_residual(&self.out_proj.forward(&attended)?, hidden)?;
        let x = self.fc1.forward(&x)?;
        Ok((hidden + self.fc2.forward(&self.hidden_act.forward(&x)?)?)?)
    }
}
