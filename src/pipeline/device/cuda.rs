//! How one thread has a GPU to itself: what candle and cudarc leave set for programs with many streams.

use candle_core::{
    CudaDevice, Device, Result,
    cuda_backend::{
        WrapErr as _,
        cudarc::driver::{
            result,
            sys::{CUmemPool_attribute, CUresult, cuDriverGetVersion},
        },
    },
};

/// Whether there is a driver, which tells its version even where there is no GPU. What a program has in its place where
/// there is none does not (`tools/cuda/late.py`).
pub(super) fn has_driver() -> bool {
    let mut version = 0;
    // SAFETY: it may be called at any time, and writes one number to the place that it is given.
    #[expect(unsafe_code)]
    let result = unsafe { cuDriverGetVersion(&raw mut version) };
    result == CUresult::CUDA_SUCCESS
}

/// Prepares a GPU that was opened with a stream of its own.
pub(super) fn prepare(device: &Device) -> Result<()> {
    let device = device.as_cuda_device()?;
    // Else every allocation makes two events, to be waited for by other streams.
    // SAFETY: there are no other streams: all tensors of the device live on its one, which orders what is done with
    // them.
    #[expect(unsafe_code)]
    unsafe {
        device.disable_event_tracking();
    }
    keep_freed_memory(device)
}

/// Freed memory stays with the program: by default it all goes back to the driver whenever the stream is waited for,
/// and is asked for again in the next step.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let number = device.cuda_stream().context().cu_device();
    let mut threshold = u64::MAX;
    // SAFETY: the device is open, its default pool lives as long as it, and the attribute is a u64, which is read
    // before the call returns.
    #[expect(unsafe_code)]
    unsafe {
        let pool = result::device::get_default_mem_pool(number).w()?;
        let threshold = (&raw mut threshold).cast();
        result::mem_pool::set_attribute(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, threshold).w()
    }
}

/// As [`super::keep_small_uploads`]. candle has this for its captures of whole graphs.
pub(super) fn keep_small_uploads(device: &Device) -> Option<impl Sized + use<>> {
    Some(device.as_cuda_device().ok()?.enable_cuda_graph_htod_cache())
}
