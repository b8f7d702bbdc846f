//! Two-dimensional convolution.

use candle_core::{DType, Tensor};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{
    super::{error::Error, weights::Source},
    cpu, has_cpu_version, reference, upsample_nearest,
};

/// Zeros around a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Above and to the left.
    pub before: usize,
    /// Below and to the right.
    pub after: usize,
}

impl Padding {
    /// The same on all sides.
    pub const fn same(width: usize) -> Self {
        Self { before: width, after: width }
    }

    /// Below and to the right only: how the VAE's encoder makes 3x3 kernels halve a picture
    /// (diffusers: `downsampling.py`, `Downsample2D` with `padding=0`).
    pub const AFTER: Self = Self { before: 0, after: 1 };
}

/// A convolution with a square kernel.
#[derive(Clone, Debug)]
pub struct Convolution {
    /// `(kernel, kernel, in, out)`: rows of the kernel are contiguous with the pixels they meet.
    pub weight: Tensor,
    /// `(out)`.
    pub bias: Tensor,
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
    /// The type the weight was asked for in: how exactly it multiplies. On the CPU the weight itself may be kept in a
    /// narrower type that holds all of its numbers, on a GPU in f32 for its range.
    pub precision: DType,
}

impl Convolution {
    /// A convolution that multiplies as exactly as its weight's type has it, of `(kernel, kernel, in, out)`.
    pub fn new(weight: Tensor, bias: Tensor, stride: usize, padding: Padding) -> Self {
        Self { precision: weight.dtype(), weight, bias, stride, padding }
    }

    /// A 3x3 kernel that keeps the size.
    pub fn load(source: &Source<'_>, inputs: usize, outputs: usize) -> Result<Self, Error> {
        Self::load_strided(source, inputs, outputs, 1, Padding::same(1))
    }

    /// A 3x3 kernel with this stride and padding.
    pub fn load_strided(
        source: &Source<'_>,
        inputs: usize,
        outputs: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<Self, Error> {
        let weight = source.weight("weight", &[outputs, inputs, 3, 3])?;
        let weight = if source.device().is_cpu() {
            cpu::taps_first(&weight)?
        } else {
            // Of the same order to look at, of the one that cuDNN takes in memory: `(out, kernel, kernel, in)`.
            let outputs_first = weight.permute((0, 2, 3, 1))?.contiguous()?.to_device(source.device())?;
            outputs_first.permute((1, 2, 3, 0))?
        };
        Ok(Self {
            precision: source.precision(),
            ..Self::new(weight, source.vector("bias", outputs)?, stride, padding)
        })
    }

    /// Applies it to `(b, h, w, in)`.
    pub fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.apply(x, None)
    }

    /// Applies it to `(b, h, w, in)` and adds `residual`, of the result's shape.
    pub fn forward_residual(&self, x: &Tensor, residual: &Tensor) -> candle_core::Result<Tensor> {
        self.apply(x, Some(residual))
    }

    fn apply(&self, x: &Tensor, residual: Option<&Tensor>) -> candle_core::Result<Tensor> {
        #[cfg(feature = "cuda")]
        if cuda::has(cuda::Operation::Convolution, x) {
            return cuda::convolution(self, x, residual);
        }
        if has_cpu_version(x) {
            return cpu::convolution(self, x, residual);
        }
        let y = reference::convolution(self, x)?;
        match residual {
            Some(residual) => y + residual,
            None => Ok(y),
        }
    }

    /// Applies it to `(b, h, w, in)` enlarged to this height and width as [`upsample_nearest`] does.
    pub fn forward_upsampled(&self, x: &Tensor, height: usize, width: usize) -> candle_core::Result<Tensor> {
        if has_cpu_version(x)
            && let Some(y) = cpu::upsampled_convolution(self, x, (height, width))?
        {
            return Ok(y);
        }
        self.forward(&upsample_nearest(x, height, width)?)
    }

    /// Output rows or columns for so many of the input.
    pub(super) fn output_size(&self, input: usize) -> candle_core::Result<usize> {
        let kernel = self.weight.dim(0)?;
        let padded = input + self.padding.before + self.padding.after;
        if padded < kernel {
            candle_core::bail!("a picture of {input} is too small for a kernel of {kernel}");
        }
        Ok((padded - kernel) / self.stride + 1)
    }
}
