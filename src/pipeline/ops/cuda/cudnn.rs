//! cuDNN: what it is told of a convolution, and how it then calculates it.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use candle_core::{
    CudaDevice, DType, Layout, Result, Shape,
    cuda_backend::{
        DeviceId,
        cudarc::{
            cudnn::{
                ActivationDescriptor, ConvBiasActivationForward, ConvDescriptor, ConvForward, Cudnn, CudnnDataType,
                FilterDescriptor, TensorDescriptor,
                sys::{
                    cudnnActivationMode_t, cudnnConvolutionFwdAlgo_t, cudnnConvolutionMode_t, cudnnMathType_t,
                    cudnnNanPropagation_t, cudnnTensorFormat_t,
                },
            },
            driver::{CudaStream, CudaView, DevicePtr as _, DevicePtrMut, DeviceSlice, SyncOnDrop, sys::CUdeviceptr},
        },
    },
};

use super::launch::Number;

/// cuDNN's numbers of a picture: pictures, channels, rows, columns.
type Sizes = [i32; 4];

const CHANNELS_LAST: cudnnTensorFormat_t = cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
/// The memory that an algorithm may want beside its operands. Some want gigabytes for a large picture.
const MOST_WORKSPACE: usize = 1 << 30;
/// A matrix product that finds its operands in the picture. It needs little memory, and is the only one that adds more
/// in the same pass.
pub(super) const IMPLICIT_GEMM: cudnnConvolutionFwdAlgo_t =
    cudnnConvolutionFwdAlgo_t::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;

thread_local! {
    /// A handle belongs to a thread, and so does what it thought best for each convolution so far.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    static PLANS: RefCell<HashMap<(DeviceId, DType, Geometry), Plan>> = RefCell::default();
}

/// How cuDNN calculates a convolution.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) algorithm: cudnnConvolutionFwdAlgo_t,
    /// Bytes.
    pub(super) workspace: usize,
}

/// Sizes of one convolution, and whether it multiplies f32 as such. If not, it rounds to TF32, which has f32's range
/// and as many bits as f16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Geometry {
    x: Sizes,
    filter: Sizes,
    y: Sizes,
    stride: i32,
    padding: i32,
    exact: bool,
}

impl Geometry {
    /// Of pictures `(b, h, w, in)` with `(out, k, k, in)`, so many zeros around them.
    pub(super) fn new(x: &Layout, filter: &Layout, stride: usize, padding: usize, exact: bool) -> Result<Self> {
        let (pictures, height, width, inputs) = x.shape().dims4()?;
        let (outputs, kernel, kernel_width, filter_inputs) = filter.shape().dims4()?;
        let (padded_height, padded_width) = (height + 2 * padding, width + 2 * padding);
        if filter_inputs != inputs || padded_height < kernel || padded_width < kernel_width {
            candle_core::bail!("a convolution {:?} does not fit {:?}", filter.shape(), x.shape());
        }
        let (out_height, out_width) =
            ((padded_height - kernel) / stride + 1, (padded_width - kernel_width) / stride + 1);
        let sizes = |n: usize, c: usize, h: usize, w: usize| [n as i32, c as i32, h as i32, w as i32];
        Ok(Self {
            x: sizes(pictures, inputs, height, width),
            filter: sizes(outputs, inputs, kernel, kernel_width),
            y: sizes(pictures, outputs, out_height, out_width),
            stride: stride as i32,
            padding: padding as i32,
            exact,
        })
    }

    /// The result's shape, channels last.
    pub(super) fn result(&self) -> Shape {
        let [pictures, outputs, height, width] = self.y.map(|size| size as usize);
        (pictures, height, width, outputs).into()
    }
}

/// What cuDNN is told of a convolution of numbers of type `T`.
pub(super) struct Descriptors<T: CudnnDataType> {
    convolution: ConvDescriptor<f32>,
    identity: ActivationDescriptor<f32>,
    x: TensorDescriptor<T>,
    filter: FilterDescriptor<T>,
    bias: TensorDescriptor<T>,
    y: TensorDescriptor<T>,
}

impl<T: Number + CudnnDataType> Descriptors<T> {
    pub(super) fn new(device: &CudaDevice, geometry: &Geometry) -> Result<Self> {
        let &Geometry { x, filter, y, stride, padding, exact } = geometry;
        let cudnn = handle(device)?;
        let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
        let mut convolution = cudnn.create_conv2d::<f32>([padding; 2], [stride; 2], [1; 2], mode)?;
        convolution.set_math_type(match (size_of::<T>(), exact) {
            (2, _) => cudnnMathType_t::CUDNN_TENSOR_OP_MATH,
            (_, true) => cudnnMathType_t::CUDNN_FMA_MATH,
            // What it does by itself, since Ampere.
            (_, false) => cudnnMathType_t::CUDNN_DEFAULT_MATH,
        })?;
        Ok(Self {
            convolution,
            identity: cudnn.create_activation(
                cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY,
                cudnnNanPropagation_t::CUDNN_NOT_PROPAGATE_NAN,
                0.0,
            )?,
            x: cudnn.create_4d_tensor(CHANNELS_LAST, x)?,
            filter: cudnn.create_4d_filter(CHANNELS_LAST, filter)?,
            bias: cudnn.create_4d_tensor(CHANNELS_LAST, [1, y[1], 1, 1])?,
            y: cudnn.create_4d_tensor(CHANNELS_LAST, y)?,
        })
    }

    /// A convolution alone.
    pub(super) fn convolution(&self) -> ConvForward<'_, T, f32, T> {
        ConvForward { conv: &self.convolution, x: &self.x, w: &self.filter, y: &self.y }
    }

    /// With a bias and a residual.
    pub(super) fn convolution_and_sum(&self) -> ConvBiasActivationForward<'_, T, f32, f32, T> {
        ConvBiasActivationForward {
            conv: &self.convolution,
            act: &self.identity,
            x: &self.x,
            w: &self.filter,
            z: &self.y,
            bias: &self.bias,
            y: &self.y,
        }
    }

    /// What cuDNN thinks best, or thought when it was asked first.
    pub(super) fn plan(&self, device: &CudaDevice, geometry: &Geometry) -> Result<Plan> {
        let key = (device.id(), T::DTYPE, *geometry);
        if let Some(plan) = PLANS.with_borrow(|plans| plans.get(&key).copied()) {
            return Ok(plan);
        }
        let best = self.convolution().pick_algorithm().map_err(candle_core::Error::from);
        let plan = match best.and_then(|best| self.plan_by(best)) {
            Ok(plan) if plan.workspace <= MOST_WORKSPACE => plan,
            _ => self.plan_by(IMPLICIT_GEMM)?,
        };
        PLANS.with_borrow_mut(|plans| plans.insert(key, plan));
        Ok(plan)
    }

    /// That way, whatever cuDNN thinks of it.
    pub(super) fn plan_by(&self, algorithm: cudnnConvolutionFwdAlgo_t) -> Result<Plan> {
        Ok(Plan { algorithm, workspace: self.convolution().get_workspace_size(algorithm)? })
    }
}

/// Where a result goes, which may be where something is read from as well.
pub(super) struct Place<'a, T>(pub(super) CudaView<'a, T>);

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

fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    if let Some(cudnn) = HANDLES.with_borrow(|handles| handles.get(&device.id()).cloned()) {
        return Ok(cudnn);
    }
    let cudnn = Cudnn::new(device.cuda_stream())?;
    HANDLES.with_borrow_mut(|handles| handles.insert(device.id(), Arc::clone(&cudnn)));
    Ok(cudnn)
}
