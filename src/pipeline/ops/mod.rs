//! The operations SDXL is made of, on channels-last activations: `(batch, height, width, channels)` for pictures,
//! `(batch, tokens, channels)` for text, the same memory for both.
//!
//! This is the seam for speed. Each operation has a plain version in candle's terms in [`mod@reference`], which runs on
//! any device and says what is meant, and a version of its own for f32 on the CPU in `cpu`; the tests hold the two
//! together. Some have one for NVIDIA's GPUs in `cuda`.
//! Channels-last makes every projection one matrix product and leaves nothing to transpose.

mod activation;
mod attention;
mod convolution;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod linear;
mod normalization;
mod projection;
pub mod reference;
mod resample;

pub use activation::{Activation, geglu};
pub use attention::{Mask, attention};
pub use convolution::{Convolution, Padding};
pub use linear::{Embedding, Linear};
pub use normalization::{GroupNorm, LayerNorm};
pub use projection::{Int8Linear, Projection, Projections};
pub use resample::{add_channels, concat_channels, upsample_nearest};

use candle_core::{DType, Tensor};

/// Whether the CPU has matrix units (AMX) that this program may use. With them, weights asked for in f32 are multiplied
/// with all 24 bits of every number, in f16 with 16, in bf16 with 8.
pub fn has_matrix_units() -> bool {
    cpu::has_matrix_units()
}

/// Whether the CPU multiplies bf16 numbers faster than f32, in matrix units or in vectors. Then weights asked for in
/// bf16 are multiplied with 8 bits of every number, and summed up in f32.
pub fn multiplies_bf16() -> bool {
    cpu::multiplies_bf16()
}

/// Whether the CPU multiplies eight-bit integers ([`Int8Linear`]).
pub fn has_int8() -> bool {
    cpu::has_int8()
}

/// Whether the CPU's own version of an operation applies to this activation.
fn has_cpu_version(activation: &Tensor) -> bool {
    activation.device().is_cpu() && activation.dtype() == DType::F32
}
