//! Kernels by name and the type of their numbers, and slices to give them.

use std::sync::Arc;

use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, Layout, Result, Shape, Storage, Tensor,
    backend::BackendStorage as _,
    cuda_backend::{
        CudaDType, WrapErr as _,
        cudarc::driver::{CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig},
    },
};
use half::{bf16, f16};

/// Threads of a block, where it does not matter to the kernel.
const THREADS: usize = 256;
/// Bytes that a thread reads or writes at once.
pub(super) const VECTOR: usize = 16;

/// Kernels that are loaded together.
pub(super) struct Module {
    name: &'static str,
    ptx: &'static str,
}

/// `attention.cu`. Apart from the others, which a GPU that does not take it may still have.
pub(super) const ATTENTION: Module = Module { name: "fourstep_attention", ptx: include_str!("attention.ptx") };
/// `elementwise.cu`.
pub(super) const ELEMENTWISE: Module = Module { name: "fourstep_elementwise", ptx: include_str!("elementwise.ptx") };
/// `norms.cu`.
pub(super) const NORMS: Module = Module { name: "fourstep_norms", ptx: include_str!("norms.ptx") };

/// A type that activations have on a GPU.
pub(super) trait Number: CudaDType + DeviceRepr + candle_core::WithDType {
    /// How kernels for it end.
    const NAME: &'static str;
    /// How many a thread reads or writes at once.
    const OF_VECTOR: usize = VECTOR / size_of::<Self>();
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

/// Whether kernels that go by whole vectors take these tensors, once they are contiguous: as rows of whole vectors,
/// from the beginning of one on, and not too many.
pub(super) fn in_vectors(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|x| {
        let numbers = VECTOR / x.dtype().size_in_bytes().max(1);
        let starts_with_one = !x.is_contiguous() || x.layout().start_offset() % numbers == 0;
        let row = x.dims().last().copied().unwrap_or(1);
        starts_with_one && row > 0 && row % numbers == 0 && u32::try_from(x.elem_count() / numbers).is_ok()
    })
}

/// A kernel, and where it runs.
pub(super) struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    /// The module's kernel of this name for numbers of type `T`.
    pub(super) fn new<T: Number>(module: &Module, device: &CudaDevice, name: &str) -> Result<Self> {
        let function = device.get_or_load_custom_func(&format!("{name}_{}", T::NAME), module.name, module.ptx)?;
        Ok(Self { function: function.into_cuda_function(), stream: device.cuda_stream() })
    }

    /// A call of it, to be given arguments.
    pub(super) fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// Runs a [`Kernel`] in blocks of threads on arguments, which nobody checks: whoever writes this says that they are the
/// kernel's, in number and type, and slices as large as the sizes beside them say.
macro_rules! launch {
    ($kernel:expr, $grid:expr, $($argument:expr),+ $(,)?) => {{
        use candle_core::cuda_backend::{WrapErr as _, cudarc::driver::PushKernelArg as _};
        let kernel = $kernel;
        let mut arguments = kernel.builder();
        $(arguments.arg($argument);)+
        #[expect(unsafe_code)]
        // SAFETY: whoever writes this has checked the arguments against the kernel's, and its accesses against the
        // sizes.
        unsafe {
            arguments.launch($grid).w()?;
        }
    }};
}
pub(super) use launch;

/// A contiguous tensor's numbers.
pub(super) fn view<'a, T: Number>((storage, layout): Operand<'a>) -> Result<CudaView<'a, T>> {
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

/// Room for so many numbers, which a kernel has to write before they are read.
pub(super) fn room<T: DeviceRepr>(device: &CudaDevice, count: usize) -> Result<CudaSlice<T>> {
    // SAFETY: the memory is the GPU's, where only kernels reach it, and any bits are a number of these types; whoever
    // asks has a kernel write all of it first.
    #[expect(unsafe_code)]
    unsafe {
        device.cuda_stream().alloc(count).w()
    }
}

/// Blocks of so many threads.
pub(super) fn blocks((x, y): (usize, usize), threads: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (x as u32, y as u32, 1), block_dim: (threads as u32, 1, 1), shared_mem_bytes: 0 }
}

/// As many blocks as so many vectors keep busy; each thread goes on until all are done.
pub(super) fn blocks_for(vectors: u32) -> LaunchConfig {
    blocks(((vectors as usize).div_ceil(THREADS).clamp(1, 1 << 16), 1), THREADS)
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

/// Makes `$op`, which has a `run` for each type of numbers, candle's operation on so many tensors of one type.
macro_rules! operation {
    ($op:ty, $name:literal, on 1) => {
        $crate::pipeline::ops::cuda::launch::operation!(CustomOp1 for $op, $name, (first of_first));
    };
    ($op:ty, $name:literal, on 2) => {
        $crate::pipeline::ops::cuda::launch::operation!(CustomOp2 for $op, $name, (first of_first) (second of_second));
    };
    ($op:ty, $name:literal, on 3) => {
        $crate::pipeline::ops::cuda::launch::operation!(
            CustomOp3 for $op, $name, (first of_first) (second of_second) (third of_third)
        );
    };
    ($kind:ident for $op:ty, $name:literal, ($first:ident $of_first:ident) $(($more:ident $of_more:ident))*) => {
        impl candle_core::$kind for $op {
            fn name(&self) -> &'static str {
                $name
            }

            fn cpu_fwd(
                &self,
                _: &candle_core::CpuStorage,
                _: &candle_core::Layout,
                $($more: &candle_core::CpuStorage, $of_more: &candle_core::Layout,)*
            ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
                $(let _ = ($more, $of_more);)*
                $crate::pipeline::ops::cuda::launch::not_here()
            }

            fn cuda_fwd(
                &self,
                $first: &candle_core::CudaStorage,
                $of_first: &candle_core::Layout,
                $($more: &candle_core::CudaStorage, $of_more: &candle_core::Layout,)*
            ) -> candle_core::Result<(candle_core::CudaStorage, candle_core::Shape)> {
                let dtype = candle_core::backend::BackendStorage::dtype($first);
                let operands = [($first, $of_first) $(, ($more, $of_more))*];
                match dtype {
                    candle_core::DType::F32 => self.run::<f32>(operands),
                    candle_core::DType::F16 => self.run::<half::f16>(operands),
                    candle_core::DType::BF16 => self.run::<half::bf16>(operands),
                    other => candle_core::bail!("there is no kernel for {other:?}"),
                }
            }
        }
    };
}
pub(super) use operation;
