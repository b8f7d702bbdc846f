//! Operations that move or spread values without mixing them.

use candle_core::{Result, Tensor};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{cpu, has_cpu_version, reference};

/// Enlarges `(b, h, w, c)` to `(b, height, width, c)` by repeating pixels, as `torch.nn.functional.interpolate` with
/// `mode="nearest"`.
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::has(cuda::Operation::UpsampleNearest, x) && cuda::upsamples(x, height, width) {
        return cuda::upsample_nearest(x, height, width);
    }
    if has_cpu_version(x) {
        cpu::upsample_nearest(x, height, width)
    } else {
        reference::upsample_nearest(x, height, width)
    }
}

/// Puts the channels of `b` after those of `a`.
pub fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if has_cpu_version(a) { cpu::concat_channels(a, b) } else { reference::concat_channels(a, b) }
}

/// Adds `channels` `(b, c)` to every pixel of `x` `(b, h, w, c)`.
pub fn add_channels(x: &Tensor, channels: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::has(cuda::Operation::AddChannels, x) && cuda::adds_channels(x, channels, None) {
        return cuda::add_channels(x, channels, None);
    }
    if has_cpu_version(x) { cpu::add_channels(x, channels) } else { reference::add_channels(x, channels) }
}

/// The pixel that `nearest` repeats at `position`: torch scales in f32 and rounds down.
pub(super) fn nearest_source(position: usize, input: usize, output: usize) -> usize {
    let scale = input as f32 / output as f32;
    ((position as f32 * scale) as usize).min(input - 1)
}
