//! Where tensors live: the CPU, or a GPU if this build can use one.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod graph;

use candle_core::Device;

use super::Error;
#[cfg(feature = "cuda")]
pub(super) use graph::Graph;

/// The GPU of this number, from 0, with a stream of its own: candle's default one is a different stream in every
/// thread. It is meant for one thread at a time, as a pipeline is.
pub fn gpu(number: usize) -> Result<Device, Error> {
    #[cfg(not(feature = "cuda"))]
    {
        let _ = number;
        Err(Error::NoGpuSupport)
    }
    #[cfg(feature = "cuda")]
    {
        if !cuda::has_driver() {
            return Err(Error::NoDriver);
        }
        let device = Device::new_cuda_with_stream(number).map_err(Error::UnusableGpu)?;
        cuda::prepare(&device)?;
        Ok(device)
    }
}

/// The first GPU, or the CPU where there is none.
pub fn auto() -> Device {
    gpu(0).unwrap_or_else(|error| {
        if cfg!(feature = "cuda") {
            tracing::warn!("The CPU draws, because no GPU can be used: {error}");
        }
        Device::Cpu
    })
}

/// Until it is dropped, this thread sends shapes and other small things to a GPU once, and not in every operation. What
/// is kept is a few kilobytes for each size of picture.
pub(super) fn keep_small_uploads(device: &Device) -> Option<impl Sized + use<>> {
    #[cfg(feature = "cuda")]
    return cuda::keep_small_uploads(device);
    #[cfg(not(feature = "cuda"))]
    return device.is_cuda().then_some(());
}

/// Whether more than half of a GPU's memory is free.
#[cfg(feature = "cuda")]
pub(super) fn is_mostly_free(device: &Device) -> bool {
    let info = device.as_cuda_device().ok().and_then(|gpu| gpu.cuda_stream().context().mem_get_info().ok());
    info.is_some_and(|(free, total)| free > total / 2)
}

/// Bytes of a GPU's memory that are in use, by whomever; `None` for the CPU, and where the GPU does not tell.
pub fn memory_in_use(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        let (free, total) = gpu.cuda_stream().context().mem_get_info().ok()?;
        return Some(total.saturating_sub(free) as u64);
    }
    let _ = device;
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_cannot_be_used_is_an_error_that_says_what_to_do_and_auto_is_never_without_a_device() {
        if let Err(error) = gpu(999) {
            let help = if cfg!(feature = "cuda") { "`--device cpu`" } else { "`--features cuda`" };
            assert!(error.to_string().contains(help), "{error}");
        }
        auto();
    }
}
