//! CUDA graphs: the work given to a stream, captured, and launched again in one call.
//!
//! A graph has the addresses of everything that was there when it was captured, which must outlive it. What is
//! allocated during the capture is its own, and has to be freed by the end of it as well.

use candle_core::{
    Device, Result,
    cuda_backend::{
        WrapErr as _,
        cudarc::driver::{
            CudaGraph,
            sys::{self, CUgraphInstantiate_flags, CUstreamCaptureMode},
        },
    },
};

/// Captured work of a GPU.
pub(in super::super) struct Graph {
    /// There until it is dropped.
    graph: Option<CudaGraph>,
    device: sys::CUdevice,
}

impl Graph {
    /// Captures what `work` does on the device's stream, which does not run. After a failure the stream is as it was.
    pub(in super::super) fn capture(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let stream = device.as_cuda_device()?.cuda_stream();
        let context = stream.context();
        // Only this thread may do nothing that a graph cannot have.
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let worked = work();
        // What went wrong when something was dropped would be told to whoever is next, and that is the end of the
        // capture.
        let dropped = context.check_err();
        let graph = stream.end_capture(CUgraphInstantiate_flags(0));
        let graph = match (worked, dropped, graph) {
            (Ok(()), Ok(()), Ok(graph)) => graph,
            (worked, dropped, graph) => {
                let _ = context.check_err();
                worked?;
                dropped.w()?;
                graph.w()?
            }
        };
        let Some(graph) = graph else { candle_core::bail!("nothing was captured") };
        let graph = Self { graph: Some(graph), device: context.cu_device() };
        if let Some(graph) = &graph.graph {
            graph.upload().w()?;
        }
        Ok(graph)
    }

    /// Runs it all.
    pub(in super::super) fn launch(&self) -> Result<()> {
        match &self.graph {
            Some(graph) => graph.launch().w(),
            None => Ok(()),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.graph = None;
        // Else its memory is kept for other graphs. Where this fails, it is.
        // SAFETY: a graph was captured on this device, whose context the process keeps; memory in use is not trimmed.
        #[expect(unsafe_code)]
        let _ = unsafe { sys::cuDeviceGraphMemTrim(self.device) };
    }
}
