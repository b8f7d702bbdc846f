//! Group norm and layer norm.

use candle_core::Tensor;

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    super::{error::Error, weights::Source},
    cpu, has_cpu_version, reference,
};

/// Normalizes groups of channels over a whole picture.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// `(channels)`.
    pub weight: Tensor,
    /// `(channels)`.
    pub bias: Tensor,
    /// Groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
}

impl GroupNorm {
    /// Loads `weight` and `bias`.
    pub fn load(source: &Source<'_>, channels: usize, groups: usize, eps: f64) -> Result<Self, Error> {
        let (weight, bias) = (source.vector("weight", channels)?, source.vector("bias", channels)?);
        Ok(Self { weight, bias, groups, eps })
    }

    /// Applies it to `(b, ..., channels)`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.apply(x, false)
    }

    /// Applies it, then SiLU.
    pub fn forward_silu(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.apply(x, true)
    }

    fn apply(&self, x: &Tensor, silu: bool) -> candle_core::Result<Tensor> {
        #[cfg(feature = "cuda")]
        if cuda::has(cuda::Operation::GroupNorm, x) && cuda::normalizes_groups(self, x) {
            return cuda::group_norm(self, x, silu);
        }
        if has_cpu_version(x) { cpu::group_norm(self, x, silu) } else { reference::group_norm(self, x, silu) }
    }
}

/// Normalizes the channels of each token.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `(channels)`.
    pub weight: Tensor,
    /// `(channels)`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// Loads `weight` and `bias`.
    pub fn load(source: &Source<'_>, channels: usize, eps: f64) -> Result<Self, Error> {
        Ok(Self { weight: source.vector("weight", channels)?, bias: source.vector("bias", channels)?, eps })
    }

    /// Applies it to `(..., channels)`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        #[cfg(feature = "cuda")]
        if cuda::has(cuda::Operation::LayerNorm, x) && cuda::normalizes(self, &[x]) {
            return cuda::layer_norm(self, x);
        }
        if has_cpu_version(x) { cpu::layer_norm(self, x) } else { reference::layer_norm(self, x) }
    }

    /// Adds `residual` to `(..., channels)` of the same shape and applies it to the sum, in one pass: gives the sum,
    /// and what it makes of it.
    pub fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
        #[cfg(feature = "cuda")]
        if cuda::has(cuda::Operation::LayerNorm, x) && cuda::normalizes(self, &[x, residual]) {
            return cuda::residual_layer_norm(self, x, residual);
        }
        if has_cpu_version(x) {
            cpu::residual_layer_norm(self, x, residual)
        } else {
            reference::residual_layer_norm(self, x, residual)
        }
    }
}
