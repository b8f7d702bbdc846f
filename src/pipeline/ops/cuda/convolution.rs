//! Convolutions by cuDNN, of channels-last pictures, with sums in f32 whatever the pictures are in. candle's own goes
//! through channels-first pictures, and sums f16 in f16.

use std::{cell::RefCell, collections::HashSet};

use candle_core::{
    CudaStorage, DType, Layout, Result, Shape, Tensor,
    backend::BackendStorage as _,
    cuda_backend::{DeviceId, cudarc::cudnn::CudnnDataType},
};

use super::{
    super::{Convolution, Padding},
    Operation, contiguous,
    cudnn::{Descriptors, Geometry, IMPLICIT_GEMM, Place},
    elementwise, has,
    launch::{Number, Operand, on_gpu, operation, result, room, view},
};

thread_local! {
    /// Convolutions that cuDNN does not add more to in the same pass, or not as fast.
    static IN_TWO_PASSES: RefCell<HashSet<(DeviceId, DType, Geometry)>> = RefCell::default();
}

/// A convolution with its bias and, where there is one, a residual: in one pass where cuDNN does that, in two
/// otherwise.
pub(in super::super) fn convolution(layer: &Convolution, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let call = Call::new(layer, x)?;
    if !has(Operation::ConvolutionAndSum, x) {
        return call.in_two_passes(&layer.bias, residual);
    }
    let key = (x.device().as_cuda_device()?.id(), x.dtype(), call.op.geometry(call.x.layout(), call.filter.layout())?);
    if IN_TWO_PASSES.with_borrow(|all| all.contains(&key)) {
        return call.in_two_passes(&layer.bias, residual);
    }
    call.in_one_pass(&layer.bias, residual, false).or_else(|error| {
        let y = call.in_two_passes(&layer.bias, residual)?;
        tracing::debug!(%error, geometry = ?key.2, "A convolution's bias is added by itself");
        IN_TWO_PASSES.with_borrow_mut(|all| all.insert(key));
        Ok(y)
    })
}

/// What cuDNN is given: pictures that it need not pad unevenly, and filters `(out, k, k, in)`.
pub(super) struct Call {
    x: Tensor,
    filter: Tensor,
    op: ConvolutionOp,
}

impl Call {
    pub(super) fn new(layer: &Convolution, x: &Tensor) -> Result<Self> {
        let Padding { before, after } = layer.padding;
        let (x, padding) = if before == after {
            (contiguous(x)?, before)
        } else {
            (x.pad_with_zeros(1, before, after)?.pad_with_zeros(2, before, after)?.contiguous()?, 0)
        };
        // The order weights are kept in on a GPU: this changes nothing in memory.
        let filter = contiguous(&layer.weight.permute((3, 0, 1, 2))?)?.to_dtype(x.dtype())?;
        let exact = layer.precision == DType::F32;
        Ok(Self { x, filter, op: ConvolutionOp { stride: layer.stride, padding, exact } })
    }

    /// The convolution without its bias.
    pub(super) fn convolve(&self) -> Result<Tensor> {
        self.x.apply_op2_no_bwd(&self.filter, &self.op)
    }

    fn in_two_passes(&self, bias: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let (y, channels) = (self.convolve()?, bias.unsqueeze(0)?);
        if has(Operation::AddChannels, &y) && elementwise::adds_channels(&y, &channels, residual) {
            return elementwise::add_channels(&y, &channels, residual);
        }
        let y = y.broadcast_add(bias)?;
        match residual {
            Some(residual) => y + residual,
            None => Ok(y),
        }
    }

    /// The convolution with its bias and, where there is one, a residual, in one pass. Fails where cuDNN thinks another
    /// way better, unless it is wanted `anyway`.
    pub(super) fn in_one_pass(&self, bias: &Tensor, residual: Option<&Tensor>, anyway: bool) -> Result<Tensor> {
        let residual = residual.map(contiguous).transpose()?;
        let op = ConvolutionAndSumOp { convolution: self.op, residual, anyway };
        self.x.apply_op3_no_bwd(&self.filter, &contiguous(bias)?, &op)
    }
}

#[derive(Clone, Copy)]
struct ConvolutionOp {
    stride: usize,
    padding: usize,
    exact: bool,
}

impl ConvolutionOp {
    fn geometry(&self, x: &Layout, filter: &Layout) -> Result<Geometry> {
        Geometry::new(x, filter, self.stride, self.padding, self.exact)
    }

    fn run<T: Number + CudnnDataType>(&self, [x, filter]: [Operand<'_>; 2]) -> Result<(CudaStorage, Shape)> {
        let (device, geometry) = (x.0.device(), self.geometry(x.1, filter.1)?);
        let descriptors = Descriptors::<T>::new(device, &geometry)?;
        let plan = descriptors.plan(device, &geometry)?;
        let mut y = room::<T>(device, geometry.result().elem_count())?;
        let mut workspace = room::<u8>(device, plan.workspace.max(1))?;
        let (x_view, filter) = (view::<T>(x)?, view::<T>(filter)?);
        let (call, factors) = (descriptors.convolution(), (T::from_f64(1.0), T::from_f64(0.0)));
        // SAFETY: `geometry` has the shapes of both operands, which are contiguous, and the result's, for which `y` has
        // room; the descriptors repeat it. The workspace is as large as the plan asks for.
        #[expect(unsafe_code)]
        unsafe {
            call.launch(plan.algorithm, Some(&mut workspace), factors, &x_view, &filter, &mut y)?;
        }
        Ok(result(y, x.0, geometry.result()))
    }
}

struct ConvolutionAndSumOp {
    convolution: ConvolutionOp,
    residual: Option<Tensor>,
    anyway: bool,
}

impl ConvolutionAndSumOp {
    fn run<T: Number + CudnnDataType>(&self, [x, filter, bias]: [Operand<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let (device, geometry) = (x.0.device(), self.convolution.geometry(x.1, filter.1)?);
        let shape = geometry.result();
        if bias.1.dims() != [shape.dim(3)?] {
            candle_core::bail!("a bias of {:?} for {shape:?}", bias.1.shape());
        }
        let descriptors = Descriptors::<T>::new(device, &geometry)?;
        let plan = match descriptors.plan(device, &geometry)? {
            plan if plan.algorithm == IMPLICIT_GEMM => plan,
            _ if self.anyway => descriptors.plan_by(IMPLICIT_GEMM)?,
            other => candle_core::bail!("cuDNN chooses {:?}", other.algorithm),
        };
        let (y, mut workspace) = (room::<T>(device, shape.elem_count())?, room::<u8>(device, plan.workspace.max(1))?);
        let (x_view, filter, bias) = (view::<T>(x)?, view::<T>(filter)?, view::<T>(bias)?);
        let residual = self.residual.as_ref().map(Tensor::storage_and_layout);
        // Without a residual its place is the result's own, which cuDNN does not read for a factor of zero.
        let (residual, factor) = match &residual {
            Some((storage, layout)) if *layout.shape() == shape => (view::<T>((on_gpu(storage)?, layout))?, 1.0),
            Some((_, layout)) => candle_core::bail!("a residual of {:?} for {shape:?}", layout.shape()),
            None => (y.as_view(), 0.0),
        };
        let (call, factors) = (descriptors.convolution_and_sum(), (T::from_f64(1.0), T::from_f64(factor)));
        let (workspace, mut place) = (Some(&mut workspace), Place(y.as_view()));
        // SAFETY: as without the sum. The bias has a number for each channel and the residual the result's shape;
        // nobody else has `y`, which is written through its view.
        #[expect(unsafe_code)]
        unsafe {
            call.launch(plan.algorithm, workspace, factors, &x_view, &filter, &residual, &bias, &mut place)?;
        }
        Ok(result(y, x.0, shape))
    }
}

operation!(ConvolutionOp, "convolution", on 2);
operation!(ConvolutionAndSumOp, "convolution_and_sum", on 3);
