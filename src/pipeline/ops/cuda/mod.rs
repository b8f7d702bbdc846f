//! The operations on NVIDIA's GPUs, where candle's own take many passes over memory: kernels of ours (`kernels.cu`, in the
//! program as PTX), and cuDNN for convolutions of channels-last pictures with sums in f32.
//!
//! They are looked at before they are believed: [`are_right`] compares each with the plain version on the device itself.

mod convolution;
mod launch;
mod norms;
mod trial;

use candle_core::{DType, Result, Tensor};

pub(super) use convolution::convolution;
pub(super) use norms::{geglu, group_norm, layer_norm};

/// Whether the GPU's own version of an operation applies to this activation.
pub(super) fn applies_to(activation: &Tensor) -> bool {
    activation.device().is_cuda()
        && matches!(activation.dtype(), DType::F32 | DType::F16 | DType::BF16)
        && trial::are_right(activation.device())
}

/// A contiguous tensor, which most are already.
fn contiguous(x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() { Ok(x.clone()) } else { x.contiguous() }
}
