//! The residual block the UNet and the VAE are both made of.
//!
//! diffusers: `models/resnet.py`, `ResnetBlock2D` with `time_embedding_norm="default"`.

use candle_core::Tensor;

use super::{
    error::Error,
    ops::{Convolution, GroupNorm, Linear, add_channels},
    weights::Source,
};

/// Sizes of one block.
#[derive(Clone, Copy)]
pub(super) struct ResnetShape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Channels of the time embedding; the VAE has none.
    pub(super) time: Option<usize>,
    pub(super) groups: usize,
    pub(super) eps: f64,
}

/// Two convolutions around a residual connection.
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Convolution,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Convolution,
    conv_shortcut: Option<Linear>,
}

impl ResnetBlock {
    pub(super) fn load(source: &Source<'_>, shape: ResnetShape) -> Result<Self, Error> {
        let ResnetShape { inputs, outputs, time, groups, eps } = shape;
        Ok(Self {
            norm1: GroupNorm::load(&source.at("norm1"), inputs, groups, eps)?,
            conv1: Convolution::load(&source.at("conv1"), inputs, outputs)?,
            time_emb_proj: time.map(|time| Linear::load(&source.at("time_emb_proj"), time, outputs)).transpose()?,
            norm2: GroupNorm::load(&source.at("norm2"), outputs, groups, eps)?,
            conv2: Convolution::load(&source.at("conv2"), outputs, outputs)?,
            conv_shortcut: (inputs != outputs)
                .then(|| Linear::load_1x1(&source.at("conv_shortcut"), inputs, outputs))
                .transpose()?,
        })
    }

    /// `time` is the embedding after SiLU, the same for every block. `(b, time channels)`.
    pub(super) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> candle_core::Result<Tensor> {
        let mut hidden = self.conv1.forward(&self.norm1.forward_silu(x)?)?; // (b, h, w, outputs)
        if let (Some(projection), Some(time)) = (&self.time_emb_proj, time) {
            hidden = add_channels(&hidden, &projection.forward(time)?)?;
        }
        hidden = self.norm2.forward_silu(&hidden)?;
        match &self.conv_shortcut {
            Some(shortcut) => self.conv2.forward_residual(&hidden, &shortcut.forward(x)?),
            None => self.conv2.forward_residual(&hidden, x),
        }
    }
}
