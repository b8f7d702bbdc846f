//! Linear layers of the kind that decides how long a picture takes: of many rows, in every call of the UNet.

use std::{fmt, sync::Arc};

use candle_core::{D, DType, Tensor};

use super::{
    super::{error::Error, weights::Source},
    Linear, cpu,
};

/// A linear layer whose weight may be held in eight-bit integers.
#[derive(Clone, Debug)]
pub enum Projection {
    /// In the type that its file has, or the one that was asked for.
    Plain(Linear),
    /// Quantized.
    Int8(Int8Linear),
}

/// Linear layers without a bias, all of the same input and of the same number of outputs.
#[derive(Clone, Debug)]
pub enum Projections {
    /// As one layer, their outputs side by side. So the input is quantized once, and a GPU is given one product to
    /// calculate.
    Together {
        /// All of them.
        layer: Projection,
        /// How many they are.
        count: usize,
    },
    /// Each by itself. The CPU's cores multiply with a part of a weight each, so that one large weight is no faster
    /// than three small ones, and these can stay in their file.
    Each(Vec<Projection>),
}

/// A linear layer in eight-bit integers: each output's weights have a scale of their own, and so has, anew each time,
/// every row of what they are multiplied with. Sums are exact.
#[derive(Clone)]
pub struct Int8Linear {
    weight: Arc<cpu::Int8Weight>,
    bias: Option<Tensor>,
}

impl Projection {
    /// Loads `weight` and `bias`.
    pub fn load(source: &Source<'_>, inputs: usize, outputs: usize) -> Result<Self, Error> {
        Self::held(source, Linear::load(source, inputs, outputs)?)
    }

    /// Loads `weight` alone.
    pub fn load_no_bias(source: &Source<'_>, inputs: usize, outputs: usize) -> Result<Self, Error> {
        Self::held(source, Linear::load_no_bias(source, inputs, outputs)?)
    }

    /// Loads a convolution with a 1x1 kernel.
    pub fn load_1x1(source: &Source<'_>, inputs: usize, outputs: usize) -> Result<Self, Error> {
        Self::held(source, Linear::load_1x1(source, inputs, outputs)?)
    }

    fn held(source: &Source<'_>, layer: Linear) -> Result<Self, Error> {
        Ok(if source.in_int8() { Self::Int8(Int8Linear::of(&layer)?) } else { Self::Plain(layer) })
    }

    /// Applies it.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Plain(layer) => layer.forward(x),
            Self::Int8(layer) => layer.forward(x),
        }
    }

    /// The type its weight was asked for in: how exact what is calculated from its results need be.
    pub fn precision(&self) -> DType {
        match self {
            Self::Plain(layer) => layer.precision,
            // Its eight bits.
            Self::Int8(_) => DType::BF16,
        }
    }
}

impl Projections {
    /// Loads the `weight` of each name.
    pub fn load(source: &Source<'_>, names: &[&str], inputs: usize, outputs: usize) -> Result<Self, Error> {
        if source.device().is_cpu() && !source.in_int8() {
            let layer = |name| Projection::load_no_bias(&source.at(name), inputs, outputs);
            return Ok(Self::Each(names.iter().map(layer).collect::<Result<_, _>>()?));
        }
        let weight = |name| source.at(name).matrix("weight", &[outputs, inputs])?.to_tensor().map_err(Error::from);
        let mut weights = names.iter().map(weight).collect::<Result<Vec<_>, _>>()?;
        // What a LoRA changes is f32, whatever its neighbours are.
        if weights.iter().any(|weight| weight.dtype() != weights[0].dtype()) {
            weights = weights.iter().map(|weight| weight.to_dtype(DType::F32)).collect::<Result<_, _>>()?;
        }
        let all = Linear { precision: source.precision(), ..Linear::new(Tensor::cat(&weights, 0)?, None) };
        Ok(Self::Together { layer: Projection::held(source, all)?, count: names.len() })
    }

    /// Applies them to `(..., inputs)`: `(..., outputs)` of each, rows of which may be further apart than they are
    /// long.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        match self {
            Self::Together { layer, count } => layer.forward(x)?.chunk(*count, D::Minus1),
            Self::Each(layers) => layers.iter().map(|layer| layer.forward(x)).collect(),
        }
    }
}

impl Int8Linear {
    /// Quantizes a layer on the CPU.
    pub fn of(layer: &Linear) -> Result<Self, Error> {
        if !cpu::has_int8() || !layer.weight.is_on_cpu() {
            return Err(Error::NoInt8);
        }
        Ok(Self { weight: Arc::new(cpu::quantized(&layer.weight)?), bias: layer.bias.clone() })
    }

    /// Applies it.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        cpu::int8_linear(&self.weight, self.bias.as_ref(), x)
    }
}

impl fmt::Debug for Int8Linear {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Int8Linear").field("bias", &self.bias).finish_non_exhaustive()
    }
}
