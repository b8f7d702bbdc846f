//! Convolutions by cuDNN, of channels-last pictures, with sums in f32 whatever the pictures are in. candle's own goes through
//! channels-first pictures, and sums f16 in f16.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use candle_core::{
    CudaDevice, CudaStorage, DType, Layout, Result, Shape, Tensor,
    backend::BackendStorage as _,
    cuda_backend::{
        DeviceId,
        cudarc::{
            cudnn::{
                ConvBiasActivationForward, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, FilterDescriptor,
                TensorDescriptor,
                sys::{
                    cudnnActivationMode_t, cudnnConvolutionFwdAlgo_t, cudnnConvolutionMode_t, cudnnMathType_t,
                    cudnnNanPropagation_t, cudnnTensorFormat_t,
                },
            },
            driver::{CudaStream, CudaView, DevicePtr as _, DevicePtrMut, DeviceSlice, SyncOnDrop, sys::CUdeviceptr},
        },
    },
};
use half::{bf16, f16};

use super::{
    super::{Convolution, Padding},
    Operation, contiguous, elementwise, has,
    launch::{Number, Operand, on_gpu, operation, result, room, view},
};

/// cuDNN's numbers of a picture: pictures, channels, rows, columns.
type Sizes = [i32; 4];

/// The memory that an algorithm may want beside its operands. Some want gigabytes for a large picture.
const MOST_WORKSPACE: usize = 1 << 30;
/// A matrix product that finds its operands in the picture. It needs little memory, and is the only one that adds more in the
/// same pass.
const IMPLICIT_GEMM: cudnnConvolutionFwdAlgo_t =
    cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;

thread_local! {
    /// A handle belongs to a thread, and so does what it thought best for each convolution so far.
    static CUDNN: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    static PLANS: RefCell<HashMap<(DeviceId, &'static str, Geometry), Plan>> = RefCell::default();
}

/// How cuDNN calculates a convolution.
#[derive(Clone, Copy)]
struct Plan {
    algorithm: cudnnConvolutionFwdAlgo_t,
    workspace: usize,
}

/// Sizes of one convolution.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Geometry {
    x: Sizes,
    filter: Sizes,
    y: Sizes,
    stride: i32,
    padding: i32,
}

/// A convolution with its bias and, where there is one, a residual: in one pass where cuDNN does that, in two otherwise.
pub(in super::super) fn convolution(layer: &Convolution, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    if has(Operation::ConvolutionAndSum, x) && is_implicit_gemm(layer, x)? {
        return convolve_and_add(layer, x, residual);
    }
    let (y, bias) = (convolve(layer, x)?, layer.bias.unsqueeze(0)?);
    if has(Operation::AddChannels, &y) && elementwise::adds_channels(&y, &bias, residual) {
        return elementwise::add_channels(&y, &bias, residual);
    }
    let y = y.broadcast_add(&layer.bias)?;
    match residual {
        Some(residual) => y + residual,
        None => Ok(y),
    }
}

/// A convolution without its bias.
pub(super) fn convolve(layer: &Convolution, x: &Tensor) -> Result<Tensor> {
    let (x, filter, op) = operands(layer, x)?;
    x.apply_op2_no_bwd(&filter, &op)
}

/// A convolution with its bias and, where there is one, a residual, in one pass.
pub(super) fn convolve_and_add(layer: &Convolution, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let (x, filter, convolution) = operands(layer, x)?;
    let op = ConvolutionAndSumOp { convolution, residual: residual.map(contiguous).transpose()? };
    x.apply_op3_no_bwd(&filter, &contiguous(&layer.bias)?, &op)
}

/// Whether cuDNN thinks that way the best for a convolution.
fn is_implicit_gemm(layer: &Convolution, x: &Tensor) -> Result<bool> {
    fn plan<T: Number + CudnnDataType>(device: &CudaDevice, geometry: &Geometry) -> Result<Plan> {
        Descriptors::<T>::new(device, geometry)?.plan(device, geometry)
    }
    let (x, filter, convolution) = operands(layer, x)?;
    let (device, geometry) = (x.device().as_cuda_device()?, convolution.geometry(x.layout(), filter.layout())?);
    let plan = match x.dtype() {
        DType::F16 => plan::<f16>(device, &geometry)?,
        DType::BF16 => plan::<bf16>(device, &geometry)?,
        _ => plan::<f32>(device, &geometry)?,
    };
    Ok(plan.algorithm == IMPLICIT_GEMM)
}

/// What cuDNN is given: pictures that it need not pad unevenly, and filters `(out, k, k, in)`.
fn operands(layer: &Convolution, x: &Tensor) -> Result<(Tensor, Tensor, ConvolutionOp)> {
    let Padding { before, after } = layer.padding;
    let (x, padding) = if before == after {
        (contiguous(x)?, before)
    } else {
        (x.pad_with_zeros(1, before, after)?.pad_with_zeros(2, before, after)?.contiguous()?, 0)
    };
    // The order weights are kept in on a GPU: this changes nothing in memory.
    let filter = contiguous(&layer.weight.permute((3, 0, 1, 2))?)?.to_dtype(x.dtype())?;
    Ok((x, filter, ConvolutionOp { stride: layer.stride, padding }))
}

struct ConvolutionOp {
    stride: usize,
    padding: usize,
}

impl ConvolutionOp {
    fn geometry(&self, x: &Layout, filter: &Layout) -> Result<Geometry> {
        let (pictures, height, width, inputs) = x.shape().dims4()?;
        let (outputs, kernel, kernel_width, filter_inputs) = filter.shape().dims4()?;
        let (padded_height, padded_width) = (height + 2 * self.padding, width + 2 * self.padding);
        if filter_inputs != inputs || padded_height < kernel || padded_width < kernel_width {
            candle_core::bail!("a convolution {:?} does not fit {:?}", filter.shape(), x.shape());
        }
        let out_height = (padded_height - kernel) / self.stride + 1;
        let out_width = (padded_width - kernel_width) / self.stride + 1;
        let sizes = |n: usize, c: usize, h: usize, w: usize| [n as i32, c as i32, h as i32, w as i32];
        Ok(Geometry {
            x: sizes(pictures, inputs, height, width),
            filter: sizes(outputs, inputs, kernel, kernel_width),
            y: sizes(pictures, outputs, out_height, out_width),
            stride: self.stride as i32,
            padding: self.padding as i32,
        })
    }

    fn run<T: Number + CudnnDataType>(&self, [x, filter]: [Operand<'_>; 2]) -> Result<(CudaStorage, Shape)> {
        let device = x.0.device();
        let geometry = self.geometry(x.1, filter.1)?;
        let descriptors = Descriptors::<T>::new(device, &geometry)?;
        let plan = descriptors.plan(device, &geometry)?;
        let mut y = room::<T>(device, geometry.results())?;
        let mut workspace = room::<u8>(device, plan.workspace.max(1))?;
        let (x_view, filter) = (view::<T>(x)?, view::<T>(filter)?);
        let factors = (T::from_f64(1.0), T::from_f64(0.0));
        #[expect(unsafe_code, reason = "the descriptors say how large the slices are, which were made or checked so")]
        unsafe {
            descriptors.call().launch(plan.algorithm, Some(&mut workspace), factors, &x_view, &filter, &mut y)?;
        }
        Ok(result(y, x.0, geometry.result()))
    }
}

struct ConvolutionAndSumOp {
    convolution: ConvolutionOp,
    residual: Option<Tensor>,
}

impl ConvolutionAndSumOp {
    fn run<T: Number + CudnnDataType>(&self, [x, filter, bias]: [Operand<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let device = x.0.device();
        let geometry = self.convolution.geometry(x.1, filter.1)?;
        let [_, outputs, ..] = geometry.y;
        if bias.1.dims() != [outputs as usize] {
            candle_core::bail!("a bias of {:?} for {outputs} channels", bias.1.shape());
        }
        let descriptors = Descriptors::<T>::new(device, &geometry)?;
        let plan = match descriptors.plan(device, &geometry)? {
            plan if plan.algorithm == IMPLICIT_GEMM => plan,
            _ => descriptors.plan_of(IMPLICIT_GEMM)?,
        };
        let (y, mut workspace) = (room::<T>(device, geometry.results())?, room::<u8>(device, plan.workspace.max(1))?);
        let (x_view, filter, bias) = (view::<T>(x)?, view::<T>(filter)?, view::<T>(bias)?);
        let residual = self.residual.as_ref().map(Tensor::storage_and_layout);
        // Without a residual its place is the result's own, which cuDNN does not read for a factor of zero.
        let (residual, factor) = match &residual {
            Some((storage, layout)) if *layout.shape() == geometry.result() => {
                (view::<T>((on_gpu(storage)?, layout))?, 1.0)
            }
            Some((_, layout)) => candle_core::bail!("a residual of {:?} for {:?}", layout.shape(), geometry.result()),
            None => (y.as_view(), 0.0),
        };

        let cudnn = handle(device)?;
        let of_bias = cudnn.create_4d_tensor::<T>(cudnnTensorFormat_t::CUDNN_TENSOR_NHWC, [1, outputs, 1, 1])?;
        let identity = cudnn.create_activation::<f32>(
            cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY,
            cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN,
            0.0,
        )?;
        let Descriptors { convolution, x: of_x, filter: of_filter, y: of_y } = &descriptors;
        let call = ConvBiasActivationForward {
            conv: convolution,
            act: &identity,
            x: of_x,
            w: of_filter,
            z: of_y,
            bias: &of_bias,
            y: of_y,
        };
        let (factors, mut place) = ((T::from_f64(1.0), T::from_f64(factor)), Place(y.as_view()));
        #[expect(unsafe_code, reason = "the descriptors say how large the slices are, which were made or checked so")]
        unsafe {
            let workspace = Some(&mut workspace);
            call.launch(plan.algorithm, workspace, factors, &x_view, &filter, &residual, &bias, &mut place)?;
        }
        Ok(result(y, x.0, geometry.result()))
    }
}

impl Geometry {
    /// The result's shape, channels last.
    fn result(&self) -> Shape {
        let [pictures, outputs, height, width] = self.y.map(|size| size as usize);
        (pictures, height, width, outputs).into()
    }

    /// Numbers of the result.
    fn results(&self) -> usize {
        self.result().elem_count()
    }
}

/// Where a result goes, which may be where something is read from as well.
struct Place<'a, T>(CudaView<'a, T>);

impl<T> DeviceSlice<T> for Place<'_, T> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.0.stream()
    }
}

impl<T> DevicePtrMut<T> for Place<'_, T> {
    fn device_ptr_mut<'a>(&'a mut self, stream: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        self.0.device_ptr(stream)
    }
}

/// What cuDNN is told of the sizes.
struct Descriptors<T: CudnnDataType> {
    convolution: ConvDescriptor<f32>,
    x: TensorDescriptor<T>,
    filter: FilterDescriptor<T>,
    y: TensorDescriptor<T>,
}

impl<T: Number + CudnnDataType> Descriptors<T> {
    fn new(device: &CudaDevice, &Geometry { x, filter, y, stride, padding }: &Geometry) -> Result<Self> {
        let cudnn = handle(device)?;
        let last = cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut convolution = cudnn.create_conv2d::<f32>([padding; 2], [stride; 2], [1; 2], mode)?;
        // What it does with f32 by itself has ten bits of each number (TF32), since Ampere.
        convolution.set_math_type(match size_of::<T>() {
            2 => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            _ => cudnnMathType_t::CUDNN_FMA_MATH,
        })?;
        let (x, y) = (cudnn.create_4d_tensor::<T>(last, x)?, cudnn.create_4d_tensor::<T>(last, y)?);
        Ok(Self { convolution, x, filter: cudnn.create_4d_filter::<T>(last, filter)?, y })
    }

    fn call(&self) -> ConvForward<'_, T, f32, T> {
        ConvForward { conv: &self.convolution, x: &self.x, w: &self.filter, y: &self.y }
    }

    /// What cuDNN thinks best, or thought when it was asked first.
    fn plan(&self, device: &CudaDevice, geometry: &Geometry) -> Result<Plan> {
        let key = (device.id(), T::NAME, *geometry);
        if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).copied()) {
            return Ok(plan);
        }
        let best = self.plan_of(self.call().pick_algorithm()?)?;
        let plan = if best.workspace > MOST_WORKSPACE { self.plan_of(IMPLICIT_GEMM)? } else { best };
        PLANS.with_borrow_mut(|plans| plans.insert(key, plan));
        Ok(plan)
    }

    fn plan_of(&self, algorithm: cudnnConvolutionFwdAlgo_t) -> Result<Plan> {
        Ok(Plan { algorithm, workspace: self.call().get_workspace_size(algorithm)? })
    }
}

fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    if let Some(cudnn) = CUDNN.with_borrow(|handles| handles.get(&device.id()).cloned()) {
        return Ok(cudnn);
    }
    let cudnn = Cudnn::new(device.cuda_stream())?;
    CUDNN.with_borrow_mut(|handles| handles.insert(device.id(), Arc::clone(&cudnn)));
    Ok(cudnn)
}

operation!(ConvolutionOp, "convolution", on 2);
operation!(ConvolutionAndSumOp, "convolution_and_sum", on 3);
