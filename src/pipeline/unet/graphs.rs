//! Calls of the UNet as CUDA graphs: its some three thousand kernels launched as one, since candle takes longer to
//! launch them one by one than a fast GPU to run them. A graph reads its inputs where they lay when it was captured, so
//! each replay first copies its own there.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};

use candle_core::{DType, Tensor, TensorId};

use super::{
    super::{
        captures::{Captures, Replayable},
        device::{self, Graph},
        error::Error,
    },
    UNet, UNetConditioning,
};

/// The largest relative difference, in the root mean square, between a replay and the same call run: operations of half
/// precision may choose another order of sums.
const TOLERANCE: f32 = 1e-2;

/// Two pictures of four steps: for a size that is drawn once, capturing takes longer than it saves.
const WARMUP: usize = 8;

/// A UNet, as long as it is there, and its captures.
type OfUNet = (Weak<()>, Captures<Vec<usize>, Capture>);

thread_local! {
    /// They belong to a thread, as do the small uploads they read, and cuDNN.
    static CAPTURES: RefCell<Vec<OfUNet>> = RefCell::default();
}

/// A captured call, and the places in memory that it reads and writes.
pub(super) struct Capture {
    graph: Graph,
    sample: Tensor,
    time: Tensor,
    conditioning: UNetConditioning,
    /// Whose conditioning that is.
    conditioned_for: TensorId,
    output: Tensor,
}

/// A call: latents, the timestep's sinusoid, a request's conditioning.
pub(super) struct Prediction<'a> {
    pub(super) unet: &'a UNet,
    pub(super) sample: &'a Tensor,
    pub(super) time: &'a Tensor,
    pub(super) conditioning: &'a UNetConditioning,
}

impl Prediction<'_> {
    /// Its output, replayed where there is a capture that is trusted. `unet` is there as long as the UNet is.
    pub(super) fn call(&self, unet: &Arc<()>) -> Result<Tensor, Error> {
        // What calls upload has to be there when they are captured.
        let _kept = device::keep_small_uploads(&self.unet.device);
        let unet = Arc::downgrade(unet);
        CAPTURES.with_borrow_mut(|all| {
            all.retain(|(unet, _)| unet.strong_count() > 0);
            let index = all.iter().position(|(known, _)| known.ptr_eq(&unet)).unwrap_or_else(|| {
                all.push((unet, Captures::at_call(WARMUP)));
                all.len() - 1
            });
            all[index].1.call(self)
        })
    }
}

impl Replayable for Prediction<'_> {
    /// The shapes of everything.
    type Kind = Vec<usize>;
    type Output = Tensor;
    type Capture = Capture;

    fn kind(&self) -> Vec<usize> {
        [self.sample.dims(), self.conditioning.text_dims()].concat()
    }

    fn run(&self) -> Result<Tensor, Error> {
        Ok(self.unet.predict(self.sample, self.time, self.conditioning)?)
    }

    /// A graph has memory of its own for all activations, which the VAE cannot have.
    fn has_room(&self) -> bool {
        device::is_mostly_free(&self.unet.device)
    }

    fn capture(&self, output: &Tensor) -> Result<Capture, Error> {
        let (sample, time, output) = (copy(self.sample)?, copy(self.time)?, copy(output)?);
        let conditioning = self.conditioning.copy()?;
        self.unet.device.synchronize()?;
        let graph = Graph::capture(&self.unet.device, || {
            output.slice_set(&self.unet.predict(&sample, &time, &conditioning)?.contiguous()?, 0, 0)
        })?;
        Ok(Capture { graph, sample, time, conditioning, conditioned_for: self.conditioning.aug_emb.id(), output })
    }

    fn replay(&self, capture: &mut Capture) -> Result<Tensor, Error> {
        capture.sample.slice_set(&self.sample.contiguous()?, 0, 0)?;
        capture.time.slice_set(&self.time.contiguous()?, 0, 0)?;
        // The same in all calls for a request.
        let conditioned_for = self.conditioning.aug_emb.id();
        if capture.conditioned_for != conditioned_for {
            capture.conditioning.set(self.conditioning)?;
            capture.conditioned_for = conditioned_for;
        }
        capture.graph.launch()?;
        Ok(capture.output.copy()?)
    }

    fn agree(&self, replayed: &Tensor, run: &Tensor) -> Result<bool, Error> {
        let (replayed, run) = (replayed.to_dtype(DType::F32)?, run.to_dtype(DType::F32)?);
        let squares = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f32>();
        // Not a number agrees with nothing.
        Ok(squares(&(replayed - &run)?)? <= TOLERANCE * TOLERANCE * squares(&run)?)
    }
}

/// The same numbers in a place of their own.
pub(super) fn copy(x: &Tensor) -> candle_core::Result<Tensor> {
    x.contiguous()?.copy()
}
