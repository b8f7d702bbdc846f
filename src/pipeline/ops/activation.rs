//! Element-wise activations.

use candle_core::{Result, Tensor};
use serde::Deserialize;

#[cfg(feature = "cuda")]
use super::cuda;
use super::{cpu, has_cpu_version, reference};

/// An activation, by the names configurations use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
    /// With the error function, not its tanh approximation.
    Gelu,
    /// `x * sigmoid(1.702 x)`, CLIP-L's.
    QuickGelu,
}

impl Activation {
    /// Applies it.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        if has_cpu_version(x) { cpu::activation(self, x) } else { reference::activation(self, x) }
    }
}

/// Splits the last dimension in two and multiplies the first half with GELU of the second.
///
/// diffusers: `activations.py`, `GEGLU.forward`, after its projection.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::has(cuda::Operation::Geglu, x) && cuda::gates(x) {
        return cuda::geglu(x);
    }
    if has_cpu_version(x) { cpu::geglu(x) } else { reference::geglu(x) }
}
