//! Matrix products with weights, and look-ups in them.

use candle_core::{DType, Tensor};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    super::{
        error::Error,
        weights::{Source, WeightMatrix},
    },
    cpu, has_cpu_version, reference,
};

/// `y = x W^T + b` over the last dimension.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `(out, in)`.
    pub weight: WeightMatrix,
    /// `(out)`.
    pub bias: Option<Tensor>,
    /// The type the weight was asked for in: how exactly it multiplies. On the CPU the weight itself may be kept in a
    /// narrower type that holds all of its numbers, on a GPU in f32 for its range.
    pub precision: DType,
}

impl Linear {
    /// A layer that multiplies as exactly as its weight's type has it.
    pub fn new(weight: impl Into<WeightMatrix>, bias: Option<Tensor>) -> Self {
        let weight = weight.into();
        Self { precision: weight.dtype(), weight, bias }
    }

    /// Loads `weight` and `bias`.
    pub fn load(source: &Source<'_>, inputs: usize, outputs: usize) -> Result<Self, Error> {
        Ok(Self { bias: Some(source.vector("bias", outputs)?), ..Self::load_no_bias(source, inputs, outputs)? })
    }

    /// Loads `weight` alone.
    pub fn load_no_bias(source: &Source<'_>, inputs: usize, outputs: usize) -> Result<Self, Error> {
        Ok(Self { weight: source.matrix("weight", &[outputs, inputs])?, bias: None, precision: source.precision() })
    }

    /// Loads a convolution with a 1x1 kernel, which on channels-last activations is nothing but this.
    pub fn load_1x1(source: &Source<'_>, inputs: usize, outputs: usize) -> Result<Self, Error> {
        let weight = source.matrix("weight", &[outputs, inputs, 1, 1])?;
        Ok(Self { weight, bias: Some(source.vector("bias", outputs)?), precision: source.precision() })
    }

    /// Applies it.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let (WeightMatrix::Held(weight), Some(bias)) = (&self.weight, &self.bias)
            && cuda::has(cuda::Operation::Linear, x)
            && cuda::adds_bias(x, weight, bias, self.precision)
        {
            return cuda::linear(x, weight, bias);
        }
        if has_cpu_version(x) { cpu::linear(self, x) } else { reference::linear(self, x) }
    }
}

/// Rows of a table, looked up by number.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// `(rows, width)`.
    pub table: Tensor,
}

impl Embedding {
    /// Loads `weight`.
    pub fn load(source: &Source<'_>, rows: usize, width: usize) -> Result<Self, Error> {
        Ok(Self { table: source.weight("weight", &[rows, width])?.to_device(source.device())? })
    }
}
