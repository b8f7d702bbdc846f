//! Norms, in a pass or two where candle takes ten.

use candle_core::{
    CudaStorage, D, Layout, Result, Shape, Tensor, backend::BackendStorage as _,
    cuda_backend::cudarc::driver::LaunchConfig,
};

use super::{
    super::{GroupNorm, LayerNorm},
    contiguous,
    launch::{
        Kernel, NORMS, Number, Operand, VECTOR, blocks, in_vectors, launch, on_gpu, operation, result, room, view,
    },
};

/// Threads of a block of group norm, where a pixel is not more vectors than that.
const THREADS: usize = 512;
/// As `norms.cu` has it: threads of a block at most, and so vectors of a pixel.
const MOST_THREADS: usize = 1024;
/// As `norms.cu` has it.
const MOST_GROUPS: usize = 128;
/// Pixels of a part at least: fewer are not worth a block.
const PIXELS: usize = 8;
/// Parts of a picture at most: every block brings all of them together.
const MOST_PARTS: usize = 256;
/// Rows of a block of layer norm, a warp for each.
const ROWS: usize = 8;

/// Whether there is a kernel for this layer and activation.
pub(in super::super) fn normalizes_groups(layer: &GroupNorm, x: &Tensor) -> bool {
    let vectors = x.dim(D::Minus1).unwrap_or(0) * x.dtype().size_in_bytes() / VECTOR;
    in_vectors(&[x]) && vectors <= MOST_THREADS && layer.groups <= MOST_GROUPS
}

/// Whether there is a kernel for this layer and these activations, what is added to the first being the second.
pub(in super::super) fn normalizes(layer: &LayerNorm, x: &[&Tensor]) -> bool {
    in_vectors(x) && in_vectors(&[&layer.weight, &layer.bias])
}

pub(in super::super) fn group_norm(layer: &GroupNorm, x: &Tensor, silu: bool) -> Result<Tensor> {
    let op = GroupNormOp { groups: layer.groups, eps: layer.eps as f32, silu };
    contiguous(x)?.apply_op3_no_bwd(&contiguous(&layer.weight)?, &contiguous(&layer.bias)?, &op)
}

pub(in super::super) fn layer_norm(layer: &LayerNorm, x: &Tensor) -> Result<Tensor> {
    let op = LayerNormOp { eps: layer.eps as f32 };
    contiguous(x)?.apply_op3_no_bwd(&contiguous(&layer.weight)?, &contiguous(&layer.bias)?, &op)
}

pub(in super::super) fn residual_layer_norm(
    layer: &LayerNorm,
    x: &Tensor,
    residual: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let op = ResidualLayerNormOp { residual: contiguous(residual)?, eps: layer.eps as f32 };
    let both = contiguous(x)?.apply_op3_no_bwd(&contiguous(&layer.weight)?, &contiguous(&layer.bias)?, &op)?; // (2, ..., c)
    Ok((both.get(1)?, both.get(0)?))
}

struct GroupNormOp {
    groups: usize,
    eps: f32,
    silu: bool,
}

impl GroupNormOp {
    fn run<T: Number>(&self, [x, weight, bias]: [Operand<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (x.0.device(), x.1.shape());
        let (pictures, channels) = (shape.dim(0)?, shape.dim(D::Minus1)?);
        check::<T>(shape, weight, bias)?;
        if self.groups == 0 || channels % self.groups != 0 || shape.elem_count() == 0 {
            candle_core::bail!("{shape:?} has no {} groups of channels", self.groups);
        }
        let pixels = shape.elem_count() / pictures / channels;
        let part = pixels.div_ceil(MOST_PARTS).max(PIXELS);
        let parts = pixels.div_ceil(part);
        let threads = (channels / T::OF_VECTOR).next_power_of_two().max(THREADS);
        if self.groups > MOST_GROUPS || threads > MOST_THREADS {
            candle_core::bail!("there is no kernel for {} groups in {channels} channels", self.groups);
        }

        let count = pictures * self.groups * parts;
        let (means, squares) = (room::<f32>(device, count)?, room::<f32>(device, count)?);
        let y = room::<T>(device, shape.elem_count())?;
        let (x_view, weight, bias) = (view::<T>(x)?, view::<T>(weight)?, view::<T>(bias)?);
        let [pixels, part, channels, groups] = [pixels, part, channels, self.groups].map(|size| size as u32);
        let grid = blocks((parts, pictures), threads);
        let first = Kernel::new::<T>(&NORMS, device, "group_norm_parts")?;
        launch!(first, grid, &x_view, &means, &squares, &pixels, &part, &channels, &groups);
        let (second, silu) = (Kernel::new::<T>(&NORMS, device, "group_norm_apply")?, i32::from(self.silu));
        launch!(
            second, grid, &x_view, &means, &squares, &weight, &bias, &y, &pixels, &part, &channels, &groups, &self.eps,
            &silu
        );
        Ok(result(y, x.0, shape.clone()))
    }
}

struct LayerNormOp {
    eps: f32,
}

impl LayerNormOp {
    fn run<T: Number>(&self, [x, weight, bias]: [Operand<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (x.0.device(), x.1.shape());
        check::<T>(shape, weight, bias)?;
        let (rows, channels) = rows_of(shape)?;
        let y = room::<T>(device, shape.elem_count())?;
        let (x_view, weight, bias) = (view::<T>(x)?, view::<T>(weight)?, view::<T>(bias)?);
        let (kernel, grid) = (Kernel::new::<T>(&NORMS, device, "layer_norm")?, blocks_of_rows(rows));
        launch!(kernel, grid, &x_view, &weight, &bias, &y, &rows, &channels, &self.eps);
        Ok(result(y, x.0, shape.clone()))
    }
}

/// Gives one tensor, as operations do: the sum's norm and, behind it, the sum. What comes first is where cuBLASLt can
/// take it from.
struct ResidualLayerNormOp {
    residual: Tensor,
    eps: f32,
}

impl ResidualLayerNormOp {
    fn run<T: Number>(&self, [x, weight, bias]: [Operand<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (x.0.device(), x.1.shape());
        if self.residual.shape() != shape {
            candle_core::bail!("a residual of {:?} for {shape:?}", self.residual.shape());
        }
        check::<T>(shape, weight, bias)?;
        let (rows, channels) = rows_of(shape)?;
        let both = room::<T>(device, 2 * shape.elem_count())?;
        let (y, sum) = (both.slice(..shape.elem_count()), both.slice(shape.elem_count()..));
        let (x_view, weight, bias) = (view::<T>(x)?, view::<T>(weight)?, view::<T>(bias)?);
        let (storage, layout) = self.residual.storage_and_layout();
        let residual = view::<T>((on_gpu(&storage)?, layout))?;
        let (kernel, grid) = (Kernel::new::<T>(&NORMS, device, "residual_layer_norm")?, blocks_of_rows(rows));
        launch!(kernel, grid, &x_view, &residual, &weight, &bias, &sum, &y, &rows, &channels, &self.eps);
        let dims: Vec<usize> = [2].iter().chain(shape.dims()).copied().collect();
        Ok(result(both, x.0, dims))
    }
}

/// Rows of what was checked, and numbers of each.
fn rows_of(shape: &Shape) -> Result<(u32, u32)> {
    let channels = shape.dim(D::Minus1)?;
    Ok(((shape.elem_count() / channels) as u32, channels as u32))
}

fn blocks_of_rows(rows: u32) -> LaunchConfig {
    blocks(((rows as usize).div_ceil(ROWS), 1), ROWS * 32)
}

/// Rows have to be whole vectors, and the layer's weight and bias a number for each channel.
fn check<T: Number>(shape: &Shape, weight: Operand<'_>, bias: Operand<'_>) -> Result<()> {
    let channels = shape.dim(D::Minus1)?;
    let fits = |layout: &Layout| layout.dims() == [channels];
    if channels == 0 || !channels.is_multiple_of(T::OF_VECTOR) || !fits(weight.1) || !fits(bias.1) {
        candle_core::bail!("{:?} and {:?} are no norm of {shape:?}", weight.1.shape(), bias.1.shape());
    }
    Ok(())
}

operation!(GroupNormOp, "group_norm", on 3);
operation!(LayerNormOp, "layer_norm", on 3);
operation!(ResidualLayerNormOp, "residual_layer_norm", on 3);
