//! Numbers as vectors: sinusoids and the little networks behind them.
//!
//! diffusers: `models/embeddings.py`, `get_timestep_embedding` and `TimestepEmbedding`.

use candle_core::Tensor;

use super::{
    super::{
        error::Error,
        ops::{Activation, Linear},
        weights::Source,
    },
    UNetConfig,
};

/// A number as `width` sines and cosines. Always f32: in half precision a sine of 999 is noise.
pub(super) fn sinusoid(number: f32, width: usize, config: &UNetConfig) -> Vec<f32> {
    const MAX_PERIOD: f32 = 10_000.0;
    let half = width / 2;
    let denominator = (half as f64 - config.freq_shift) as f32;
    let angles = || (0..half).map(|i| number * (-MAX_PERIOD.ln() * i as f32 / denominator).exp());
    let (sines, cosines) = (angles().map(f32::sin), angles().map(f32::cos));
    let mut values: Vec<f32> =
        if config.flip_sin_to_cos { cosines.chain(sines).collect() } else { sines.chain(cosines).collect() };
    values.resize(width, 0.0);
    values
}

/// Two linear layers with SiLU between.
pub(super) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    pub(super) fn load(source: &Source<'_>, inputs: usize, outputs: usize) -> Result<Self, Error> {
        Ok(Self {
            linear_1: Linear::load(&source.at("linear_1"), inputs, outputs)?,
            linear_2: Linear::load(&source.at("linear_2"), outputs, outputs)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.linear_2.forward(&Activation::Silu.forward(&self.linear_1.forward(x)?)?)
    }
}
