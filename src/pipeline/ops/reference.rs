//! Every operation in candle's own terms: slow, short, and right on any device.
//!
//! These are what the fast versions are tested against, and what a device without fast versions runs.

use candle_core::{D, DType, Result, Tensor};

use super::{Activation, Convolution, GroupNorm, LayerNorm, Linear, Mask, resample::nearest_source};

/// [`Linear::forward`].
pub fn linear(layer: &Linear, x: &Tensor) -> Result<Tensor> {
    let y = candle_nn::Linear::new(layer.weight.to_tensor()?.to_dtype(x.dtype())?, layer.bias.clone());
    candle_nn::Module::forward(&y, x)
}

/// [`Convolution::forward`].
pub fn convolution(layer: &Convolution, x: &Tensor) -> Result<Tensor> {
    let (before, after) = (layer.padding.before, layer.padding.after);
    let padded = x.pad_with_zeros(1, before, after)?.pad_with_zeros(2, before, after)?;
    let weight = layer.weight.to_dtype(x.dtype())?.permute((3, 2, 0, 1))?.contiguous()?; // (out, in, k, k)
    let y = padded.permute((0, 3, 1, 2))?.contiguous()?.conv2d(&weight, 0, layer.stride, 1, 1)?;
    y.permute((0, 2, 3, 1))?.contiguous()?.broadcast_add(&layer.bias)
}

/// [`GroupNorm::forward`], with SiLU after it where asked.
pub fn group_norm(layer: &GroupNorm, x: &Tensor, silu: bool) -> Result<Tensor> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    let grouped = x.to_dtype(DType::F32)?.reshape((batch, (), layer.groups, channels / layer.groups))?;
    let mean = grouped.mean_keepdim(3)?.mean_keepdim(1)?;
    let centered = grouped.broadcast_sub(&mean)?;
    let variance = centered.sqr()?.mean_keepdim(3)?.mean_keepdim(1)?;
    let normal = centered.broadcast_div(&(variance + layer.eps)?.sqrt()?)?.reshape(x.shape())?.to_dtype(x.dtype())?;
    let y = normal.broadcast_mul(&layer.weight)?.broadcast_add(&layer.bias)?;
    if silu { y.silu() } else { Ok(y) }
}

/// [`LayerNorm::forward`].
pub fn layer_norm(layer: &LayerNorm, x: &Tensor) -> Result<Tensor> {
    candle_nn::ops::layer_norm_slow(x, &layer.weight, &layer.bias, layer.eps as f32)
}

/// [`LayerNorm::forward_residual`].
pub fn residual_layer_norm(layer: &LayerNorm, x: &Tensor, residual: &Tensor) -> Result<(Tensor, Tensor)> {
    let sum = (x + residual)?;
    let y = layer_norm(layer, &sum)?;
    Ok((sum, y))
}

/// [`Activation::forward`].
pub fn activation(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Silu => x.silu(),
        Activation::Gelu => x.gelu_erf(),
        Activation::QuickGelu => x * candle_nn::ops::sigmoid(&(x * 1.702)?)?,
    }
}

/// [`super::geglu`].
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    halves[0].contiguous()? * halves[1].contiguous()?.gelu_erf()?
}

/// [`super::attention()`].
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    let (batch, queries, channels) = query.dims3()?;
    let keys = key.dim(1)?;
    let split = |x: &Tensor| x.reshape((batch, (), heads, channels / heads))?.transpose(1, 2)?.contiguous();
    let (query, key, value) = (split(query)?, split(key)?, split(value)?); // (b, heads, tokens, d)
    let scale = 1.0 / ((channels / heads) as f64).sqrt();
    let key = key.transpose(2, 3)?.contiguous()?;
    let mut blocks = Vec::new();
    for start in (0..queries).step_by(1024) {
        let count = 1024.min(queries - start);
        let scores = (query.narrow(2, start, count)?.contiguous()?.matmul(&key)? * scale)?.to_dtype(DType::F32)?;
        let scores = match mask {
            Mask::None => scores,
            Mask::Causal => scores.broadcast_add(&causal(start, count, keys, &scores)?)?,
        };
        blocks.push(candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(value.dtype())?.matmul(&value)?);
    }
    Tensor::cat(&blocks, 2)?.transpose(1, 2)?.reshape((batch, queries, channels))
}

fn causal(start: usize, count: usize, keys: usize, like: &Tensor) -> Result<Tensor> {
    let mask = (start..start + count).flat_map(|q| (0..keys).map(move |k| if k > q { f32::NEG_INFINITY } else { 0.0 }));
    Tensor::from_vec(mask.collect::<Vec<f32>>(), (1, 1, count, keys), like.device())
}

/// [`super::upsample_nearest`].
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, h, w, _) = x.dims4()?;
    let index = |input: usize, output: usize| {
        let sources: Vec<u32> = (0..output).map(|i| nearest_source(i, input, output) as u32).collect();
        Tensor::new(sources, x.device())
    };
    x.index_select(&index(h, height)?, 1)?.index_select(&index(w, width)?, 2)
}

/// [`super::concat_channels`].
pub fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[a, b], D::Minus1)
}

/// [`super::add_channels`].
pub fn add_channels(x: &Tensor, channels: &Tensor) -> Result<Tensor> {
    x.broadcast_add(&channels.unsqueeze(1)?.unsqueeze(1)?)
}
