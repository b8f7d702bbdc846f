//! The operations on NVIDIA's GPUs, where candle's own take many passes over memory: kernels of ours (`norms.cu`,
//! `elementwise.cu` and `attention.cu`, in the program as PTX), cuDNN for convolutions of channels-last pictures with
//! sums in f32, and cuBLASLt for linear layers with a bias and for what may be multiplied as TF32.
//!
//! They are looked at before they are believed: what each makes on the device is compared with the plain version, once.

mod attention;
mod convolution;
mod cudnn;
mod elementwise;
mod launch;
mod linear;
mod norms;
mod scores;
mod trial;

use candle_core::{DType, Result, Tensor};

pub(super) use attention::{attends, attention};
pub(super) use convolution::convolution;
pub(super) use elementwise::{add_channels, adds_channels, gates, geglu, upsample_nearest, upsamples};
pub(super) use linear::{adds_bias, linear};
pub(super) use norms::{group_norm, layer_norm, normalizes, normalizes_groups, residual_layer_norm};
pub(super) use scores::{attends_by_scores, attention_of_one_head};
pub(super) use trial::Operation;

/// Whether this operation has a version of the GPU's own for this activation, and it is right.
pub(super) fn has(operation: Operation, activation: &Tensor) -> bool {
    activation.device().is_cuda()
        && matches!(activation.dtype(), DType::F32 | DType::F16 | DType::BF16)
        && trial::is_right(operation, activation.dtype(), activation.device())
}

/// A contiguous tensor, which most are already.
fn contiguous(x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() { Ok(x.clone()) } else { x.contiguous() }
}
