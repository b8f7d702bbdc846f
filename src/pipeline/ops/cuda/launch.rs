//! Kernels by name and the type of their numbers, and slices to give them.

use std::sync::Arc;

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, Layout, Result, Shape, Storage,
    backend::BackendStorage as _,
    cuda_backend::{
        CudaDType, WrapErr as _,
        cudarc::driver::{CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig},
    },
};
use half::{bf16, f16};

/// Threads of a block, as `kernels.cu` has it.
const THREADS: u32 = 256;

/// Kernels that are loaded together.
pub(super) struct Module {
    name: &'static str,
    ptx: &'static str,
}

/// `attention.cu`. Apart from the others, which a GPU that does not take it may still have.
pub(super) const ATTENTION: Module = Module { name: "fourstep_attention", ptx: include_str!("attention.ptx") };
/// `kernels.cu`.
const KERNELS: Module = Module { name: "fourstep", ptx: include_str!("kernels.ptx") };

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

/// The kernel of this name in `kernels.cu` for numbers of type `T`.
pub(super) fn kernel<T: Number>(device: &CudaDevice, name: &str) -> Result<Kernel> {
    kernel_of::<T>(&KERNELS, device, name)
}

/// The module's kernel of this name for numbers of type `T`.
pub(super) fn kernel_of<T: Number>(module: &Module, device: &CudaDevice, name: &str) -> Result<Kernel> {
    let function = device.get_or_load_custom_func(&format!("{name}_{}", T::NAME), module.name, module.ptx)?;
    Ok(Kernel { function: function.into_cuda_function(), stream: device.cuda_stream() })
}

/// A contiguous tensor's numbers.
pub(super) fn view<'a, T: Number>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("the operation needs a contiguous tensor, not {layout:?}");
    };
    Ok(storage.as_cuda_slice::<T>()?.slice(start..end))
}

/// A GPU's part of a tensor that an operation brings along beside its operands.
pub(super) fn on_gpu(storage: &Storage) -> Result<&CudaStorage> {
    match storage {
        Storage::Cuda(storage) => Ok(storage),
        _ => candle_core::bail!("the tensor is not on the GPU"),
    }
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

/// Makes `$op`, which has a `run` for each type of numbers, candle's operation on three tensors of one type.
macro_rules! operation_on_three {
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
                first: &candle_core::CudaStorage,
                first_layout: &candle_core::Layout,
                second: &candle_core::CudaStorage,
                second_layout: &candle_core::Layout,
                third: &candle_core::CudaStorage,
                third_layout: &candle_core::Layout,
            ) -> candle_core::Result<(candle_core::CudaStorage, candle_core::Shape)> {
                let (first, second, third) = ((first, first_layout), (second, second_layout), (third, third_layout));
                match candle_core::backend::BackendStorage::dtype(first.0) {
                    candle_core::DType::F32 => self.run::<f32>(first, second, third),
                    candle_core::DType::F16 => self.run::<half::f16>(first, second, third),
                    candle_core::DType::BF16 => self.run::<half::bf16>(first, second, third),
                    other => candle_core::bail!("there is no kernel for {other:?}"),
                }
            }
        }
    };
}
pub(super) use operation_on_three;
