//! Convolutions by cuDNN, of channels-last pictures, with sums in f32 whatever the pictures are in. candle's own goes through
//! channels-first pictures, and sums f16 in f16.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use candle_core::{
    CudaDevice, CudaStorage, Layout, Result, Shape, Tensor,
    backend::BackendStorage as _,
    cuda_backend::{
        DeviceId, WrapErr as _,
        cudarc::{
            cudnn::{
                ConvForward, Cudnn, CudnnDataType,
                sys::{cudnnConvolutionFwdAlgo_t, cudnnConvolutionMode_t, cudnnMathType_t, cudnnTensorFormat_t},
            },
            driver::{CudaSlice, PushKernelArg as _},
        },
    },
};

use super::{
    super::{Convolution, Padding},
    contiguous,
    launch::{Number, Operand, blocks_for, kernel, on_gpu, operation_on_three, result, room, view},
};

/// cuDNN's numbers of a picture: pictures, channels, rows, columns.
type Sizes = [i32; 4];

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

pub(in super::super) fn convolution(layer: &Convolution, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let Padding { before, after } = layer.padding;
    // cuDNN pads both sides alike.
    let (x, padding) = if before == after {
        (contiguous(x)?, before)
    } else {
        (x.pad_with_zeros(1, before, after)?.pad_with_zeros(2, before, after)?.contiguous()?, 0)
    };
    // The order weights are kept in on a GPU: this changes nothing in memory.
    let filter = contiguous(&layer.weight.permute((3, 0, 1, 2))?)?.to_dtype(x.dtype())?; // (out, k, k, in)
    let op = ConvolutionOp { stride: layer.stride, padding, residual: residual.map(contiguous).transpose()? };
    x.apply_op3_no_bwd(&filter, &layer.bias, &op)
}

struct ConvolutionOp {
    stride: usize,
    padding: usize,
    residual: Option<Tensor>,
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

    fn run<T: Number + CudnnDataType>(
        &self,
        x: Operand<'_>,
        filter: Operand<'_>,
        bias: Operand<'_>,
    ) -> Result<(CudaStorage, Shape)> {
        let device = x.0.device();
        let geometry = self.geometry(x.1, filter.1)?;
        let [pictures, outputs, height, width] = geometry.y.map(|size| size as usize);
        let mut y = room::<T>(device, pictures * outputs * height * width)?;
        convolve::<T>(device, &geometry, (&view::<T>(x.0, x.1)?, &view::<T>(filter.0, filter.1)?), &mut y)?;

        let bias = view::<T>(bias.0, bias.1)?;
        let (count, channels) = (y.len(), outputs as u32);
        let shape = (pictures, height, width, outputs);
        let residual = self.residual.as_ref().map(Tensor::storage_and_layout);
        let residual = match &residual {
            Some((storage, layout)) if layout.shape().dims4()? == shape => Some(view::<T>(on_gpu(storage)?, layout)?),
            Some((_, layout)) => candle_core::bail!("a residual of {:?} for {shape:?}", layout.shape()),
            None => None,
        };
        let name = if residual.is_some() { "add_bias_and_residual" } else { "add_bias" };
        let kernel = kernel::<T>(device, name)?;
        let mut arguments = kernel.builder();
        arguments.arg(&y).arg(&bias);
        if let Some(residual) = &residual {
            arguments.arg(residual);
        }
        arguments.arg(&count).arg(&channels);
        #[expect(unsafe_code, reason = "the arguments are the kernel's, and as large as the sizes say")]
        unsafe {
            arguments.launch(blocks_for(count)).w()?;
        }
        Ok(result(y, x.0, shape))
    }
}

type View<'a, T> = candle_core::cuda_backend::cudarc::driver::CudaView<'a, T>;

/// Without the bias.
fn convolve<T: Number + CudnnDataType>(
    device: &CudaDevice,
    geometry: &Geometry,
    (x, filter): (&View<'_, T>, &View<'_, T>),
    y: &mut CudaSlice<T>,
) -> Result<()> {
    let cudnn = handle(device)?;
    let last = cudnnTensorFormat_t::CUDNN_TENSOR_NHWC;
    let Geometry { stride, padding, .. } = *geometry;
    let mode = cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
    let mut descriptor = cudnn.create_conv2d::<f32>([padding; 2], [stride; 2], [1; 2], mode)?;
    if size_of::<T>() == 2 {
        descriptor.set_math_type(cudnnMathType_t::CUDNN_TENSOR_OP_MATH)?;
    }
    let (x_sizes, y_sizes) =
        (cudnn.create_4d_tensor::<T>(last, geometry.x)?, cudnn.create_4d_tensor::<T>(last, geometry.y)?);
    let filter_sizes = cudnn.create_4d_filter::<T>(last, geometry.filter)?;
    let call = ConvForward { conv: &descriptor, x: &x_sizes, w: &filter_sizes, y: &y_sizes };

    let key = (device.id(), T::NAME, *geometry);
    let plan = match PLANS.with_borrow(|plans| plans.get(&key).copied()) {
        Some(plan) => plan,
        None => {
            let algorithm = call.pick_algorithm()?;
            let plan = Plan { algorithm, workspace: call.get_workspace_size(algorithm)? };
            PLANS.with_borrow_mut(|plans| plans.insert(key, plan));
            plan
        }
    };
    let mut workspace = room::<u8>(device, plan.workspace.max(1))?;
    #[expect(unsafe_code, reason = "the descriptors say how large the slices are, which were made or checked so")]
    unsafe {
        call.launch(plan.algorithm, Some(&mut workspace), (T::from_f64(1.0), T::from_f64(0.0)), x, filter, y)?;
    }
    Ok(())
}

fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    if let Some(cudnn) = CUDNN.with_borrow(|handles| handles.get(&device.id()).cloned()) {
        return Ok(cudnn);
    }
    let cudnn = Cudnn::new(device.cuda_stream())?;
    CUDNN.with_borrow_mut(|handles| handles.insert(device.id(), Arc::clone(&cudnn)));
    Ok(cudnn)
}

operation_on_three!(ConvolutionOp, "convolution");
