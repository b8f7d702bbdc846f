//! Kernels by name and the type of their numbers, and slices to give them.

use std::sync::Arc;

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, Layout, Result, Shape,
    backend::BackendStorage as _,
    cuda_backend::{
        CudaDType, WrapErr as _,
        cudarc::driver::{CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig},
    },
};
use half::{bf16, f16};

const PTX: &str = include_str!("kernels.ptx");
/// Threads of a block, as `kernels.cu` has it.
pub(super) const THREADS: u32 = 256;

/// A type that activations have on a GPU.
pub(super) trait Number: CudaDType + DeviceRepr + candle_core::WithDType {
    /// How kernels for it end.
    const NAME: &'static str;
}

impl Number for f32 {
    const NAME: &'static str = "f32";
}

impl Number for f16 {
    const NAME: &'static str = "f16";
}

impl Number for bf16 {
    const NAME: &'static str = "bf16";
}

/// A kernel, and where it runs.
pub(super) struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    /// A call of it, to be given arguments.
    pub(super) fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// The kernel of this name for numbers of type `T`.
pub(super) fn kernel<T: Number>(device: &CudaDevice, name: &str) -> Result<Kernel> {
    let function = device.get_or_load_custom_func(&format!("{name}_{}", T::NAME), "fourstep", PTX)?;
    Ok(Kernel { function: function.into_cuda_function(), stream: device.cuda_stream() })
}

/// A contiguous tensor's numbers.
pub(super) fn view<'a, T: Number>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("the operation needs a contiguous tensor, not {layout:?}");
    };
    Ok(storage.as_cuda_slice::<T>()?.slice(start..end))
}

/// Room for so many numbers.
pub(super) fn room<T: DeviceRepr>(device: &CudaDevice, count: usize) -> Result<CudaSlice<T>> {
    #[expect(unsafe_code, reason = "whoever asks writes every number before anything is read")]
    unsafe {
        device.cuda_stream().alloc(count).w()
    }
}

/// Blocks of [`THREADS`] threads.
pub(super) fn blocks(x: u32, y: u32, z: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (x, y, z), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// As many blocks as so many numbers keep busy; each thread goes on until all are done.
pub(super) fn blocks_for(count: usize) -> LaunchConfig {
    blocks(count.div_ceil(THREADS as usize).clamp(1, 1 << 16) as u32, 1, 1)
}

/// The storage and shape of a result.
pub(super) fn result<T: Number>(
    values: CudaSlice<T>,
    like: &CudaStorage,
    shape: impl Into<Shape>,
) -> (CudaStorage, Shape) {
    (CudaStorage::wrap_cuda_slice(values, like.device().clone()), shape.into())
}

/// These operations have a version for the CPU elsewhere.
pub(super) fn not_here() -> Result<(CpuStorage, Shape)> {
    candle_core::bail!("this version of the operation is the GPU's")
}

/// A tensor as an operation gets it.
pub(super) type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// Makes `$op`, which has a `run` for each type of numbers, candle's operation on an activation, a weight and a bias.
macro_rules! on_weight_and_bias {
    ($op:ty, $name:literal) => {
        impl candle_core::CustomOp3 for $op {
            fn name(&self) -> &'static str {
                $name
            }

            fn cpu_fwd(
                &self,
                _: &candle_core::CpuStorage,
                _: &candle_core::Layout,
                _: &candle_core::CpuStorage,
                _: &candle_core::Layout,
                _: &candle_core::CpuStorage,
                _: &candle_core::Layout,
            ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
                $crate::pipeline::ops::cuda::launch::not_here()
            }

            fn cuda_fwd(
                &self,
                x: &candle_core::CudaStorage,
                x_layout: &candle_core::Layout,
                weight: &candle_core::CudaStorage,
                weight_layout: &candle_core::Layout,
                bias: &candle_core::CudaStorage,
                bias_layout: &candle_core::Layout,
            ) -> candle_core::Result<(candle_core::CudaStorage, candle_core::Shape)> {
                let (x, weight, bias) = ((x, x_layout), (weight, weight_layout), (bias, bias_layout));
                match candle_core::backend::BackendStorage::dtype(x.0) {
                    candle_core::DType::F32 => self.run::<f32>(x, weight, bias),
                    candle_core::DType::F16 => self.run::<half::f16>(x, weight, bias),
                    candle_core::DType::BF16 => self.run::<half::bf16>(x, weight, bias),
                    other => candle_core::bail!("there is no kernel for {other:?}"),
                }
            }
        }
    };
}
pub(super) use on_weight_and_bias;
