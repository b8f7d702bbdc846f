//! A trial of the GPU's own operations, on the GPU, before anything is drawn with them: each against the plain version
//! on the CPU. One that is wrong or fails is left alone, and what draws instead is slower: the plain version, or a
//! convolution in two passes.

use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Tensor};

use super::{
    super::{Convolution, GroupNorm, LayerNorm, Linear, Mask, Padding, reference},
    convolution::Call,
};
use crate::pipeline::noise::TorchCudaRng;

/// Operations that a GPU has a version of its own of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Operation {
    Convolution,
    /// With its bias and a residual in the same pass.
    ConvolutionAndSum,
    AddChannels,
    UpsampleNearest,
    GroupNorm,
    LayerNorm,
    Geglu,
    Linear,
    AttentionOfOneHead,
    Attention,
}

/// In the order in which they are tried: the one that asks the most of a GPU comes last.
const OPERATIONS: [Operation; 10] = [
    Operation::Convolution,
    Operation::ConvolutionAndSum,
    Operation::AddChannels,
    Operation::UpsampleNearest,
    Operation::GroupNorm,
    Operation::LayerNorm,
    Operation::Geglu,
    Operation::Linear,
    Operation::AttentionOfOneHead,
    Operation::Attention,
];

/// Types of numbers, what is asked of them, and how far results may be off, as a share of the largest. f32 of which no
/// more is asked than f16 has may be rounded to TF32.
const TYPES: [(DType, DType, f32); 4] = [
    (DType::F32, DType::F32, 1e-4),
    (DType::F32, DType::F16, 3e-3),
    (DType::F16, DType::F16, 3e-3),
    (DType::BF16, DType::BF16, 2e-2),
];

/// Whether the operation may be used on GPUs of this machine on numbers of this type. Found out for all of them by the
/// first who asks.
pub(super) fn is_right(operation: Operation, dtype: DType, device: &Device) -> bool {
    static WRONG: OnceLock<Vec<(Operation, DType)>> = OnceLock::new();
    let try_all = || {
        let all = OPERATIONS.into_iter().flat_map(|operation| TYPES.map(|types| (operation, types)));
        let wrong = all.filter(|&(operation, (dtype, precision, tolerance))| {
            !passes(operation, Trial { device, dtype, precision }, tolerance)
        });
        wrong.map(|(operation, (dtype, ..))| (operation, dtype)).collect()
    };
    !WRONG.get_or_init(try_all).contains(&(operation, dtype))
}

fn passes(operation: Operation, trial: Trial<'_>, tolerance: f32) -> bool {
    let Trial { dtype, precision, .. } = trial;
    match worst(operation, trial) {
        Ok(error) if error.is_nan() || error > tolerance => {
            tracing::warn!(
                error,
                ?dtype,
                ?precision,
                "The GPU's own {operation:?} is wrong here: what is used instead is slower"
            );
            false
        }
        Ok(error) => {
            tracing::debug!(error, ?dtype, ?precision, "The GPU's own {operation:?} is right");
            true
        }
        Err(error) => {
            tracing::warn!(%error, ?dtype, ?precision, "The GPU's own {operation:?} fails here: what is used instead is slower");
            false
        }
    }
}

/// How far the operation is off, at most.
fn worst(operation: Operation, trial: Trial<'_>) -> Result<f32> {
    let errors = match operation {
        Operation::Convolution => trial.convolution(),
        Operation::ConvolutionAndSum => trial.convolution_and_sum(),
        Operation::AddChannels => trial.add_channels(),
        Operation::UpsampleNearest => trial.upsample_nearest(),
        Operation::GroupNorm => trial.group_norm(),
        Operation::LayerNorm => trial.layer_norm(),
        Operation::Geglu => trial.geglu(),
        Operation::Linear => trial.linear(),
        Operation::AttentionOfOneHead => trial.attention_of_one_head(),
        Operation::Attention => trial.attention(),
    };
    // What is not a number is worse than anything.
    Ok(errors?.into_iter().fold(0.0, |worst, error| if error.is_nan() || error > worst { error } else { worst }))
}

/// How far each operation is from the plain one of the same numbers in f32, as a share of the largest number.
struct Trial<'a> {
    device: &'a Device,
    dtype: DType,
    precision: DType,
}

impl Trial<'_> {
    fn random(&self, seed: u64, shape: &[usize]) -> Result<Tensor> {
        let values = TorchCudaRng::new(seed).normal(shape.iter().product());
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(self.device)
    }

    /// Of each kind that SDXL has: a layer, what it is applied to, and what it should make of that.
    fn convolutions(&self) -> Result<Vec<(Convolution, Tensor, Tensor)>> {
        let trial = |(stride, padding)| {
            let weight = self.random(1, &[16, 3, 3, 24])?.permute((1, 2, 3, 0))?;
            // A bias that is left out must show beside sums of so many, and they beside it.
            let layer = Convolution::new(weight, (self.random(2, &[16])? * 5.0)?, stride, padding);
            let layer = Convolution { precision: self.precision, ..layer };
            let x = self.random(3, &[2, 12, 10, 24])?;
            let plain = Convolution { weight: exact(&layer.weight)?, bias: exact(&layer.bias)?, ..layer };
            let expected = reference::convolution(&plain, &exact(&x)?)?;
            Ok((layer, x, expected))
        };
        [(1, Padding::same(1)), (2, Padding::same(1)), (2, Padding::AFTER)].into_iter().map(trial).collect()
    }

    fn convolution(&self) -> Result<Vec<f32>> {
        let trial = |(layer, x, expected): (Convolution, Tensor, Tensor)| {
            let expected = expected.broadcast_sub(&exact(&layer.bias)?)?;
            off(&Call::new(&layer, &x)?.convolve()?, &expected)
        };
        self.convolutions()?.into_iter().map(trial).collect()
    }

    fn convolution_and_sum(&self) -> Result<Vec<f32>> {
        let trial = |(layer, x, expected): (Convolution, Tensor, Tensor)| {
            let residual = (self.random(4, expected.dims())? * 5.0)?;
            let with_residual = (&expected + exact(&residual)?)?;
            let call = Call::new(&layer, &x)?;
            Ok([
                off(&call.in_one_pass(&layer.bias, None, true)?, &expected)?,
                off(&call.in_one_pass(&layer.bias, Some(&residual), true)?, &with_residual)?,
            ])
        };
        Ok(self.convolutions()?.into_iter().map(trial).collect::<Result<Vec<_>>>()?.concat())
    }

    fn add_channels(&self) -> Result<Vec<f32>> {
        let (x, residual) = (self.random(1, &[3, 12, 10, 24])?, self.random(2, &[3, 12, 10, 24])?);
        let trial = |pictures| {
            let channels = self.random(3, &[pictures, 24])?;
            let expected = reference::add_channels(&exact(&x)?, &exact(&channels)?)?;
            let with_residual = (&expected + exact(&residual)?)?;
            Ok([
                off(&super::add_channels(&x, &channels, None)?, &expected)?,
                off(&super::add_channels(&x, &channels, Some(&residual))?, &with_residual)?,
            ])
        };
        Ok([1, 3].into_iter().map(trial).collect::<Result<Vec<_>>>()?.concat())
    }

    fn upsample_nearest(&self) -> Result<Vec<f32>> {
        let x = self.random(1, &[3, 12, 10, 24])?;
        let trial = |(height, width)| {
            let expected = reference::upsample_nearest(&exact(&x)?, height, width)?;
            off(&super::upsample_nearest(&x, height, width)?, &expected)
        };
        [(24, 20), (25, 13)].into_iter().map(trial).collect()
    }

    fn group_norm(&self) -> Result<Vec<f32>> {
        // Groups of whole vectors, groups across them, and as many channels as a block has threads for.
        let trial = |(channels, groups, silu)| {
            let (weight, bias) = (self.random(1, &[channels])?, self.random(2, &[channels])?);
            let layer = GroupNorm { weight, bias, groups, eps: 1e-5 };
            let x = self.random(3, &[2, 20, 15, channels])?;
            let plain = GroupNorm { weight: exact(&layer.weight)?, bias: exact(&layer.bias)?, ..layer };
            off(&super::group_norm(&layer, &x, silu)?, &reference::group_norm(&plain, &exact(&x)?, silu)?)
        };
        [(64, 8, false), (64, 8, true), (320, 32, true), (2560, 32, true)].into_iter().map(trial).collect()
    }

    fn layer_norm(&self) -> Result<Vec<f32>> {
        let layer = LayerNorm { weight: self.random(1, &[640])?, bias: self.random(2, &[640])?, eps: 1e-5 };
        let x = self.random(3, &[2, 77, 640])?;
        let plain = LayerNorm { weight: exact(&layer.weight)?, bias: exact(&layer.bias)?, ..layer };
        let residual = self.random(4, x.dims())?;
        let (sum, y) = super::residual_layer_norm(&layer, &x, &residual)?;
        let (expected_sum, expected) = reference::residual_layer_norm(&plain, &exact(&x)?, &exact(&residual)?)?;
        Ok(vec![
            off(&super::layer_norm(&layer, &x)?, &reference::layer_norm(&plain, &exact(&x)?)?)?,
            off(&sum, &expected_sum)?,
            off(&y, &expected)?,
        ])
    }

    fn geglu(&self) -> Result<Vec<f32>> {
        let x = self.random(3, &[2, 77, 640])?;
        Ok(vec![off(&super::geglu(&x)?, &reference::geglu(&exact(&x)?)?)?])
    }

    /// Of f32 there is none that is as exact.
    fn linear(&self) -> Result<Vec<f32>> {
        let trial = |(rows, inputs, outputs)| {
            // A bias that is left out must show beside sums of so many.
            let bias = (self.random(2, &[outputs])? * 5.0)?;
            let (x, weight) = (self.random(3, &[2, rows, inputs])?, self.random(1, &[outputs, inputs])?);
            if !super::adds_bias(&x, &weight, &bias, self.precision) {
                return Ok(0.0);
            }
            let plain = Linear::new(exact(&weight)?, Some(exact(&bias)?));
            off(&super::linear(&x, &weight, &bias)?, &reference::linear(&plain, &exact(&x)?)?)
        };
        [(77, 640, 1280), (1, 320, 72), (300, 48, 16)].into_iter().map(trial).collect()
    }

    /// Of f32 there is none that is as exact.
    fn attention_of_one_head(&self) -> Result<Vec<f32>> {
        let trial = |(queries, keys)| {
            let random = |seed, tokens: usize| self.random(seed, &[2, tokens, 512]);
            let (query, key, value) = (random(1, queries)?, random(2, keys)?, random(3, keys)?);
            if !super::attends_by_scores(&query, &key, (1, Mask::None), self.precision) {
                return Ok(0.0);
            }
            let expected = reference::attention(&exact(&query)?, &exact(&key)?, &exact(&value)?, 1, Mask::None)?;
            off(&super::attention_of_one_head(&query, &key, &value)?, &expected)
        };
        [(520, 64), (64, 1200)].into_iter().map(trial).collect()
    }

    /// Of numbers of 16 bits; there is no other.
    fn attention(&self) -> Result<Vec<f32>> {
        let trial = |(queries, keys, heads, width, mask)| {
            // Rows that are further apart than they are long, each of the three otherwise.
            let random = |seed: u64, tokens| {
                self.random(seed, &[2, tokens, heads * width + 8 * seed as usize])?.narrow(2, 8, heads * width)
            };
            let (query, key, value) = (random(1, queries)?, random(2, keys)?, random(3, keys)?);
            if !super::attends(&query, &key, &value, heads) {
                return Ok(0.0);
            }
            let expected = reference::attention(&exact(&query)?, &exact(&key)?, &exact(&value)?, heads, mask)?;
            off(&super::attention(&query, &key, &value, heads, mask)?, &expected)
        };
        [
            (200, 77, 3, 64, Mask::None),
            (300, 300, 2, 64, Mask::None),
            (77, 77, 2, 64, Mask::Causal),
            (100, 90, 2, 40, Mask::None),
            (100, 90, 2, 128, Mask::None),
        ]
        .into_iter()
        .map(trial)
        .collect()
    }
}

/// The same numbers, calculated with as exactly as can be: not on the GPU, which may round f32 to its liking.
fn exact(x: &Tensor) -> Result<Tensor> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F32)
}

fn off(found: &Tensor, expected: &Tensor) -> Result<f32> {
    if found.dims() != expected.dims() {
        return Ok(f32::NAN);
    }
    let found = exact(found)?;
    // The largest number of a tensor need not be one that is not a number.
    if !found.sum_all()?.to_scalar::<f32>()?.is_finite() {
        return Ok(f32::NAN);
    }
    let difference = (found - expected)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    Ok(difference / expected.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?)
}
