//! Norms and gates: a pass or two where candle takes ten.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor,
    backend::BackendStorage as _,
    cuda_backend::{WrapErr as _, cudarc::driver::PushKernelArg as _},
};
use half::{bf16, f16};

use super::{
    super::{GroupNorm, LayerNorm},
    contiguous,
    launch::{Number, Operand, blocks, blocks_for, kernel, not_here, on_gpu, operation_on_three, result, room, view},
};

/// Pixels a block looks at, about: small enough that all of a GPU has something to do, large enough to be worth a block.
const PIXELS: usize = 512;
/// Parts of a picture at most: every block brings all of them together.
const MOST_PARTS: usize = 64;

pub(in super::super) fn group_norm(layer: &GroupNorm, x: &Tensor, silu: bool) -> Result<Tensor> {
    let op = GroupNormOp { groups: layer.groups, eps: layer.eps as f32, silu };
    contiguous(x)?.apply_op3_no_bwd(&layer.weight, &layer.bias, &op)
}

pub(in super::super) fn layer_norm(layer: &LayerNorm, x: &Tensor) -> Result<Tensor> {
    contiguous(x)?.apply_op3_no_bwd(&layer.weight, &layer.bias, &LayerNormOp { eps: layer.eps as f32 })
}

pub(in super::super) fn residual_layer_norm(
    layer: &LayerNorm,
    x: &Tensor,
    residual: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let op = ResidualLayerNormOp { residual: contiguous(residual)?, eps: layer.eps as f32 };
    let both = contiguous(x)?.apply_op3_no_bwd(&layer.weight, &layer.bias, &op)?; // (2, ..., c)
    Ok((both.get(1)?, both.get(0)?))
}

pub(in super::super) fn geglu(x: &Tensor) -> Result<Tensor> {
    if x.dim(D::Minus1)? % 2 != 0 {
        candle_core::bail!("the last dimension of {:?} has no halves", x.shape());
    }
    contiguous(x)?.apply_op1_no_bwd(&GegluOp)
}

struct GroupNormOp {
    groups: usize,
    eps: f32,
    silu: bool,
}

impl GroupNormOp {
    fn run<T: Number>(&self, x: Operand<'_>, weight: Operand<'_>, bias: Operand<'_>) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (x.0.device(), x.1.shape());
        let (pictures, channels) = (shape.dim(0)?, shape.dim(D::Minus1)?);
        if self.groups == 0 || channels % self.groups != 0 || shape.elem_count() == 0 {
            candle_core::bail!("{shape:?} has no {} groups of channels", self.groups);
        }
        let pixels = shape.elem_count() / pictures / channels;
        let parts = pixels.div_ceil(PIXELS).min(MOST_PARTS);
        let count = pictures * self.groups * parts;
        let (means, squares) = (room::<f32>(device, count)?, room::<f32>(device, count)?);
        let y = room::<T>(device, shape.elem_count())?;
        let sizes = [pixels as u32, channels as u32, self.groups as u32];
        let grid = blocks(parts as u32, self.groups as u32, pictures as u32);
        let (x_view, weight, bias) = (view::<T>(x.0, x.1)?, view::<T>(weight.0, weight.1)?, view::<T>(bias.0, bias.1)?);

        let first = kernel::<T>(device, "group_norm_parts")?;
        let mut arguments = first.builder();
        arguments.arg(&x_view).arg(&means).arg(&squares);
        for size in &sizes {
            arguments.arg(size);
        }
        #[expect(unsafe_code, reason = "the arguments are the kernel's, and as large as the sizes say")]
        unsafe {
            arguments.launch(grid).w()?;
        }

        let second = kernel::<T>(device, "group_norm_apply")?;
        let mut arguments = second.builder();
        arguments.arg(&x_view).arg(&means).arg(&squares).arg(&weight).arg(&bias).arg(&y);
        for size in &sizes {
            arguments.arg(size);
        }
        let silu = i32::from(self.silu);
        arguments.arg(&self.eps).arg(&silu);
        #[expect(unsafe_code, reason = "the arguments are the kernel's, and as large as the sizes say")]
        unsafe {
            arguments.launch(grid).w()?;
        }
        Ok(result(y, x.0, shape.clone()))
    }
}

struct LayerNormOp {
    eps: f32,
}

impl LayerNormOp {
    fn run<T: Number>(&self, x: Operand<'_>, weight: Operand<'_>, bias: Operand<'_>) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (x.0.device(), x.1.shape());
        let channels = shape.dim(D::Minus1)?;
        let y = room::<T>(device, shape.elem_count())?;
        let (x_view, weight, bias) = (view::<T>(x.0, x.1)?, view::<T>(weight.0, weight.1)?, view::<T>(bias.0, bias.1)?);
        let kernel = kernel::<T>(device, "layer_norm")?;
        let width = channels as u32;
        let mut arguments = kernel.builder();
        arguments.arg(&x_view).arg(&weight).arg(&bias).arg(&y).arg(&width).arg(&self.eps);
        #[expect(unsafe_code, reason = "the arguments are the kernel's, and as large as the sizes say")]
        unsafe {
            arguments.launch(blocks((shape.elem_count() / channels) as u32, 1, 1)).w()?;
        }
        Ok(result(y, x.0, shape.clone()))
    }
}

/// Gives one tensor, as operations do: the sum's norm and, behind it, the sum. What comes first is where cuBLASLt can take it
/// from.
struct ResidualLayerNormOp {
    residual: Tensor,
    eps: f32,
}

impl ResidualLayerNormOp {
    fn run<T: Number>(&self, x: Operand<'_>, weight: Operand<'_>, bias: Operand<'_>) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (x.0.device(), x.1.shape());
        if self.residual.shape() != shape {
            candle_core::bail!("a residual of {:?} for {shape:?}", self.residual.shape());
        }
        let (channels, count) = (shape.dim(D::Minus1)?, shape.elem_count());
        let both = room::<T>(device, 2 * count)?;
        let (y, sum) = (both.slice(..count), both.slice(count..));
        let (x_view, weight, bias) = (view::<T>(x.0, x.1)?, view::<T>(weight.0, weight.1)?, view::<T>(bias.0, bias.1)?);
        let (storage, layout) = self.residual.storage_and_layout();
        let residual = view::<T>(on_gpu(&storage)?, layout)?;
        let kernel = kernel::<T>(device, "residual_layer_norm")?;
        let width = channels as u32;
        let mut arguments = kernel.builder();
        arguments.arg(&x_view).arg(&residual).arg(&weight).arg(&bias).arg(&sum).arg(&y).arg(&width).arg(&self.eps);
        #[expect(unsafe_code, reason = "the arguments are the kernel's, and as large as the sizes say")]
        unsafe {
            arguments.launch(blocks((count / channels) as u32, 1, 1)).w()?;
        }
        let dims: Vec<usize> = [2].iter().chain(shape.dims()).copied().collect();
        Ok(result(both, x.0, dims))
    }
}

struct GegluOp;

fn run_geglu<T: Number>(x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    let device = x.device();
    let mut dims = layout.dims().to_vec();
    let Some(last) = dims.last_mut() else { candle_core::bail!("a number has no halves") };
    *last /= 2;
    let inner = *last as u32;
    let count = dims.iter().product::<usize>();
    let y = room::<T>(device, count)?;
    let x_view = view::<T>(x, layout)?;
    let kernel = kernel::<T>(device, "geglu")?;
    let mut arguments = kernel.builder();
    arguments.arg(&x_view).arg(&y).arg(&count).arg(&inner);
    #[expect(unsafe_code, reason = "the arguments are the kernel's, and as large as the sizes say")]
    unsafe {
        arguments.launch(blocks_for(count)).w()?;
    }
    Ok(result(y, x, dims))
}

operation_on_three!(GroupNormOp, "group_norm");
operation_on_three!(LayerNormOp, "layer_norm");
operation_on_three!(ResidualLayerNormOp, "residual_layer_norm");

impl CustomOp1 for GegluOp {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        match x.dtype() {
            DType::F32 => run_geglu::<f32>(x, layout),
            DType::F16 => run_geglu::<f16>(x, layout),
            DType::BF16 => run_geglu::<bf16>(x, layout),
            other => candle_core::bail!("there is no kernel for {other:?}"),
        }
    }
}
