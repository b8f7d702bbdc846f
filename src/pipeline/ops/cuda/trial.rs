//! A trial of the GPU's own operations, on the GPU, before anything is drawn with them: each against the plain version. Where
//! one is wrong or fails, the plain versions draw, slower and right.

use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Tensor};

use super::super::{Convolution, GroupNorm, LayerNorm, Padding, reference};
use crate::pipeline::noise::TorchCudaRng;

/// Whether the operations may be used on GPUs of this machine. Found out by the first who asks.
pub(super) fn are_right(device: &Device) -> bool {
    static ARE_RIGHT: OnceLock<bool> = OnceLock::new();
    *ARE_RIGHT.get_or_init(|| match worst(device) {
        Ok((what, error)) if error.is_nan() || error > 1.0 => {
            tracing::warn!(error, "The GPU's own {what} is wrong here: the plain operations draw, which are slower");
            false
        }
        Ok((what, error)) => {
            tracing::debug!(error, "The GPU's own operations are right, {what} the least");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "The GPU's own operations fail here: the plain ones draw, which are slower");
            false
        }
    })
}

/// The operation that is off the most, and by how much of what it may be.
fn worst(device: &Device) -> Result<(&'static str, f32)> {
    let mut worst = ("none", 0.0);
    for (dtype, tolerance) in [(DType::F32, 1e-4), (DType::F16, 1e-2), (DType::BF16, 6e-2)] {
        for (what, error) in errors(device, dtype)? {
            // What is not a number is worse than anything.
            if error.is_nan() || error / tolerance > worst.1 {
                worst = (what, error / tolerance);
            }
        }
    }
    Ok(worst)
}

/// How far each operation is from the plain one in f32, as a share of the largest number.
fn errors(device: &Device, dtype: DType) -> Result<Vec<(&'static str, f32)>> {
    let random = |seed: u64, shape: &[usize]| -> Result<Tensor> {
        let values = TorchCudaRng::new(seed).normal(shape.iter().product());
        Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
    };
    // As exact as can be, of the same numbers.
    let exact = |x: &Tensor| x.to_dtype(DType::F32);
    let mut errors = Vec::new();
    for (stride, padding) in [(1, Padding::same(1)), (2, Padding::same(1)), (2, Padding::AFTER)] {
        let weight = random(1, &[16, 3, 3, 24])?.permute((1, 2, 3, 0))?;
        let layer = Convolution { weight, bias: random(2, &[16])?, stride, padding };
        let x = random(3, &[2, 12, 10, 24])?;
        let plain = Convolution { weight: exact(&layer.weight)?, bias: exact(&layer.bias)?, ..layer };
        errors.push((
            "convolution",
            off(&super::convolution(&layer, &x)?, &reference::convolution(&plain, &exact(&x)?)?)?,
        ));
    }
    for silu in [false, true] {
        let layer = GroupNorm { weight: random(1, &[64])?, bias: random(2, &[64])?, groups: 8, eps: 1e-5 };
        let x = random(3, &[2, 40, 30, 64])?;
        let plain = GroupNorm { weight: exact(&layer.weight)?, bias: exact(&layer.bias)?, ..layer };
        let expected = reference::group_norm(&plain, &exact(&x)?, silu)?;
        errors.push(("group norm", off(&super::group_norm(&layer, &x, silu)?, &expected)?));
    }
    let layer = LayerNorm { weight: random(1, &[640])?, bias: random(2, &[640])?, eps: 1e-5 };
    let x = random(3, &[2, 77, 640])?;
    let plain = LayerNorm { weight: exact(&layer.weight)?, bias: exact(&layer.bias)?, ..layer };
    errors.push(("layer norm", off(&super::layer_norm(&layer, &x)?, &reference::layer_norm(&plain, &exact(&x)?)?)?));
    errors.push(("GEGLU", off(&super::geglu(&x)?, &reference::geglu(&exact(&x)?)?)?));
    Ok(errors)
}

fn off(found: &Tensor, expected: &Tensor) -> Result<f32> {
    if found.dims() != expected.dims() {
        return Ok(f32::NAN);
    }
    let difference = (found.to_dtype(DType::F32)? - expected)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    Ok(difference / expected.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?)
}
