//! The operations for f32 activations on the CPU: loops over slices, spread over cores by rayon. Matrix products go to
//! the processor's matrix units where it has any and they pay (`tiles`); others go to `lanes`, those of attention and,
//! with AVX2 or AVX-512, of linear layers, or else to `gemm`; convolutions in f32's arithmetic are made fewer products
//! by `winograd`.
//!
//! This file unwraps tensors into slices and wraps results; the arithmetic is in the files beside it.

mod attention;
mod convolution;
mod elementwise;
#[cfg(target_arch = "x86_64")]
mod int8;
#[cfg(not(target_arch = "x86_64"))]
#[path = "no_int8.rs"]
mod int8;
mod kernel_order;
mod lanes;
mod matrix;
mod norms;
mod number;
#[cfg(target_arch = "x86_64")]
mod processor;
mod shared;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(target_arch = "x86_64")]
mod transpose;
mod turns;
mod values;
mod vectors;
mod winograd;

use candle_core::{D, DType, Device, Result, Tensor};
use half::{bf16, f16, slice::HalfFloatSliceExt, vec::HalfBitsVecExt};

pub(super) use int8::Weight as Int8Weight;

use super::{Activation, Convolution, GroupNorm, LayerNorm, Linear, Mask};
use values::{RowsOf, Values, Weight};

use crate::pipeline::weights::{Numbers, WeightMatrix};

pub(super) fn has_matrix_units() -> bool {
    #[cfg(target_arch = "x86_64")]
    return tiles::units() == Some(tiles::Units::Tiles);
    #[cfg(not(target_arch = "x86_64"))]
    false
}

pub(super) fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return tiles::units().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

fn tensor(values: Vec<f32>, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
    Tensor::from_vec(values, shape.into(), &Device::Cpu)
}

/// The tensor's dimensions with another last one.
fn with_last(x: &Tensor, last: usize) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    if let Some(channels) = dims.last_mut() {
        *channels = last;
    }
    dims
}

pub(super) fn linear(layer: &Linear, x: &Tensor) -> Result<Tensor> {
    let (outputs, inputs) = layer.weight.dims()?;
    if x.dim(D::Minus1)? != inputs {
        candle_core::bail!("a linear layer of {inputs} inputs was given {:?}", x.shape());
    }
    let (x_values, weight) = (Values::of(x)?, Weight::of_linear(&layer.weight, layer.precision)?);
    let bias = layer.bias.as_ref().map(Values::of).transpose()?;
    tensor(matrix::linear(&x_values, &weight, bias.as_deref(), (inputs, outputs)), with_last(x, outputs))
}

pub(super) fn has_int8() -> bool {
    int8::available()
}

/// A weight `(out, in)` in eight-bit integers.
#[cfg_attr(not(target_arch = "x86_64"), expect(unreachable_code, reason = "none is ever made"))]
pub(super) fn quantized(weight: &WeightMatrix) -> Result<Int8Weight> {
    let (outputs, inputs) = weight.dims()?;
    let weight = Weight::of_linear(weight, weight.dtype())?;
    let row = |number: usize| match weight.numbers() {
        Numbers::F32(values) => values[number * inputs..][..inputs].to_vec(),
        Numbers::F16(values) => values[number * inputs..][..inputs].to_f32_vec(),
        Numbers::BF16(values) => values[number * inputs..][..inputs].to_f32_vec(),
    };
    Ok(Int8Weight::new(inputs, outputs, row))
}

pub(super) fn int8_linear(weight: &Int8Weight, bias: Option<&Tensor>, x: &Tensor) -> Result<Tensor> {
    let (inputs, outputs) = weight.sizes();
    if x.dim(D::Minus1)? != inputs {
        candle_core::bail!("a linear layer of {inputs} inputs was given {:?}", x.shape());
    }
    let bias = bias.map(Values::of).transpose()?;
    tensor(weight.multiply(&Values::of(x)?, bias.as_deref()), with_last(x, outputs))
}

pub(super) fn convolution(layer: &Convolution, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let (batch, height, width, _) = x.dims4()?;
    let geometry = geometry(layer, x, (height, width))?;
    let shape = (batch, geometry.out_height, geometry.out_width, geometry.out_channels);
    if let Some(residual) = residual
        && residual.dims4()? != shape
    {
        candle_core::bail!("a residual of {:?} for {shape:?}", residual.shape());
    }
    let (x, weight, bias) = (Values::of(x)?, Weight::of(&layer.weight, layer.precision)?, Values::of(&layer.bias)?);
    let residual = residual.map(Values::of).transpose()?;
    let added = convolution::Added { bias: &bias, residual: residual.as_deref() };
    tensor(convolution::convolve(&x, &weight, added, &geometry), shape)
}

/// The convolution of `x` enlarged to this size by repeating pixels, if that can be had for less than both.
pub(super) fn upsampled_convolution(
    layer: &Convolution,
    x: &Tensor,
    (height, width): (usize, usize),
) -> Result<Option<Tensor>> {
    let (batch, half_height, half_width, _) = x.dims4()?;
    if (height, width) != (2 * half_height, 2 * half_width) {
        return Ok(None);
    }
    let geometry = geometry(layer, x, (height, width))?;
    let weight = Weight::of(&layer.weight, layer.precision)?;
    if !convolution::goes_by_winograd(&weight, &geometry, true) {
        return Ok(None);
    }
    let (x, bias) = (Values::of(x)?, Values::of(&layer.bias)?);
    let added = convolution::Added { bias: &bias, residual: None };
    tensor(winograd::convolve(&x, &weight, added, &geometry, true), (batch, height, width, geometry.out_channels))
        .map(Some)
}

/// The sizes of a convolution of pictures of this size and of the channels of `x`.
fn geometry(layer: &Convolution, x: &Tensor, (height, width): (usize, usize)) -> Result<convolution::Geometry> {
    let (kernel, _, in_channels, out_channels) = layer.weight.dims4()?;
    if x.dim(D::Minus1)? != in_channels {
        candle_core::bail!("a convolution of {in_channels} channels was given {:?}", x.shape());
    }
    Ok(convolution::Geometry {
        height,
        width,
        in_channels,
        out_height: layer.output_size(height)?,
        out_width: layer.output_size(width)?,
        out_channels,
        kernel,
        stride: layer.stride,
        padding: layer.padding,
    })
}

/// A weight on the CPU from `(out, in, kernel, kernel)` to `(kernel, kernel, in, out)`.
pub(super) fn taps_first(weight: &Tensor) -> Result<Tensor> {
    let (outputs, inputs, height, width) = weight.dims4()?;
    let sizes = (outputs, inputs, height * width);
    let shape = (height, width, inputs, outputs);
    let count = weight.elem_count();
    // Zeros of these types cost nothing before they are written to.
    match Weight::of(weight, weight.dtype())?.numbers() {
        Numbers::F32(values) => {
            Tensor::from_vec(kernel_order::taps_first(values, sizes, vec![0.0; count]), shape, &Device::Cpu)
        }
        Numbers::F16(values) => {
            let turned = kernel_order::taps_first(values.reinterpret_cast(), sizes, vec![0; count]);
            Tensor::from_vec(turned.reinterpret_into::<f16>(), shape, &Device::Cpu)
        }
        Numbers::BF16(values) => {
            let turned = kernel_order::taps_first(values.reinterpret_cast(), sizes, vec![0; count]);
            Tensor::from_vec(turned.reinterpret_into::<bf16>(), shape, &Device::Cpu)
        }
    }
}

pub(super) fn group_norm(layer: &GroupNorm, x: &Tensor, silu: bool) -> Result<Tensor> {
    let (weight, bias) = (Values::of(&layer.weight)?, Values::of(&layer.bias)?);
    let affine = norms::Affine { weight: &weight, bias: &bias, eps: layer.eps };
    tensor(norms::group_norm(&Values::of(x)?, x.dim(0)?, layer.groups, &affine, silu), x.shape())
}

pub(super) fn layer_norm(layer: &LayerNorm, x: &Tensor) -> Result<Tensor> {
    let (weight, bias) = (Values::of(&layer.weight)?, Values::of(&layer.bias)?);
    let affine = norms::Affine { weight: &weight, bias: &bias, eps: layer.eps };
    tensor(norms::layer_norm(&Values::of(x)?, &affine), x.shape())
}

pub(super) fn residual_layer_norm(layer: &LayerNorm, x: &Tensor, residual: &Tensor) -> Result<(Tensor, Tensor)> {
    if residual.shape() != x.shape() {
        candle_core::bail!("a residual of {:?} for {:?}", residual.shape(), x.shape());
    }
    let (weight, bias) = (Values::of(&layer.weight)?, Values::of(&layer.bias)?);
    let affine = norms::Affine { weight: &weight, bias: &bias, eps: layer.eps };
    let (sum, y) = norms::residual_layer_norm(&Values::of(x)?, &Values::of(residual)?, &affine);
    Ok((tensor(sum, x.shape())?, tensor(y, x.shape())?))
}

pub(super) fn activation(activation: Activation, x: &Tensor) -> Result<Tensor> {
    tensor(elementwise::activation(activation, &Values::of(x)?), x.shape())
}

pub(super) fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if !width.is_multiple_of(2) {
        candle_core::bail!("rows of {:?} have no halves", x.shape());
    }
    let inner = width / 2;
    tensor(elementwise::geglu(&Values::of(x)?, inner), with_last(x, inner))
}

pub(super) fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    (heads, mask): (usize, Mask),
    precision: DType,
) -> Result<Tensor> {
    let (batch, queries, channels) = query.dims3()?;
    let keys = key.dim(1)?;
    let is_empty = batch * queries * keys * channels * heads == 0;
    if is_empty || key.dims() != [batch, keys, channels] || value.dims() != key.dims() || channels % heads != 0 {
        candle_core::bail!("attention over {:?}, {:?}, {:?} does not fit", query.shape(), key.shape(), value.shape());
    }
    let geometry = attention::Geometry { batch, queries, keys, heads, head_dim: channels / heads, mask, precision };
    let (query, key, value) = (RowsOf::of(query)?, RowsOf::of(key)?, RowsOf::of(value)?);
    tensor(attention::attend(query.rows(), key.rows(), value.rows(), &geometry), (batch, queries, channels))
}

pub(super) fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (batch, h, w, channels) = x.dims4()?;
    let values = elementwise::upsample_nearest(&Values::of(x)?, (h, w, channels), (height, width));
    tensor(values, (batch, height, width, channels))
}

pub(super) fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (first, second) = (a.dim(D::Minus1)?, b.dim(D::Minus1)?);
    if with_last(a, second) != b.dims() {
        candle_core::bail!("pictures of {:?} and {:?} are not of one size", a.shape(), b.shape());
    }
    let values = elementwise::concat_channels(&Values::of(a)?, &Values::of(b)?, (first, second));
    tensor(values, with_last(a, first + second))
}

pub(super) fn add_channels(x: &Tensor, channels: &Tensor) -> Result<Tensor> {
    let (pictures, count) = channels.dims2()?;
    if (pictures, count) != (x.dim(0)?, x.dim(D::Minus1)?) {
        candle_core::bail!("numbers {:?} for the channels of {:?}", channels.shape(), x.shape());
    }
    tensor(elementwise::add_channels(&Values::of(x)?, &Values::of(channels)?, x.dim(0)?, count), x.shape())
}
