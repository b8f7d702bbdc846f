//! Where tensors live: the CPU, or a GPU if this build can use one.

use candle_core::Device;

use super::Error;

/// The GPU of this number, from 0, with a stream of its own: candle's default one is a different stream in every thread.
pub fn gpu(number: usize) -> Result<Device, Error> {
    if !cfg!(feature = "cuda") {
        return Err(Error::NoGpuSupport);
    }
    Ok(Device::new_cuda_with_stream(number)?)
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
    fn a_gpu_that_cannot_be_used_is_an_error_in_words_and_auto_is_never_without_a_device() {
        if let Err(error) = gpu(999) {
            assert!(error.to_string().contains(if cfg!(feature = "cuda") { "device" } else { "--features cuda" }));
        }
        auto();
    }
}
