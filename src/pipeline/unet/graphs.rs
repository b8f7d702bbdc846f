//! Calls of the UNet as CUDA graphs: its some three thousand operations given to the GPU in one, which candle would take longer
//! to name than a fast GPU to do. A graph reads its inputs where they lay when it was recorded, so they are brought there.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};

use candle_core::{DType, Tensor, TensorId};

use super::{
    super::{
        device::{self, Graph},
        error::Error,
        recordings::{Call, Recordings},
    },
    UNet, UNetConditioning,
};

/// How far what a graph made may be from the same call without it, in the mean: operations of half precision may choose
/// another order of sums.
const TOLERANCE: f32 = 1e-2;

/// Two pictures of four steps: of a size that is drawn once, recording takes longer than it saves.
const CALLS: usize = 8;

/// A UNet, as long as it is there, and its calls.
type OfUNet = (Weak<()>, Recordings<Vec<usize>, Recording>);

thread_local! {
    /// They belong to a thread, as do the small uploads they read, and cuDNN.
    static RECORDINGS: RefCell<Vec<OfUNet>> = RefCell::default();
}

/// A recorded call, and the places in memory that it reads and writes.
pub(super) struct Recording {
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
    /// Its result, by a graph where there is one that can be believed. `unet` is there as long as the UNet is.
    pub(super) fn call(&self, unet: &Arc<()>) -> Result<Tensor, Error> {
        // What calls upload has to be there when they are recorded.
        let _kept = device::keep_small_uploads(&self.unet.device);
        let unet = Arc::downgrade(unet);
        RECORDINGS.with_borrow_mut(|all| {
            all.retain(|(unet, _)| unet.strong_count() > 0);
            let place = all.iter().position(|(known, _)| known.ptr_eq(&unet)).unwrap_or_else(|| {
                all.push((unet, Recordings::of_call(CALLS)));
                all.len() - 1
            });
            all[place].1.call(self)
        })
    }
}

impl Call for Prediction<'_> {
    /// The sizes of everything.
    type Kind = Vec<usize>;
    type Output = Tensor;
    type Recording = Recording;

    fn kind(&self) -> Vec<usize> {
        [self.sample.dims(), self.conditioning.text_dims()].concat()
    }

    fn make(&self) -> Result<Tensor, Error> {
        Ok(self.unet.predict(self.sample, self.time, self.conditioning)?)
    }

    /// A graph has memory of its own for all activations, which the VAE cannot have.
    fn has_room(&self) -> bool {
        device::is_mostly_free(&self.unet.device)
    }

    fn record(&self, made: &Tensor) -> Result<Recording, Error> {
        let (sample, time, output) = (copy(self.sample)?, copy(self.time)?, copy(made)?);
        let conditioning = self.conditioning.copy()?;
        self.unet.device.synchronize()?;
        let graph = Graph::record(&self.unet.device, || {
            output.slice_set(&self.unet.predict(&sample, &time, &conditioning)?.contiguous()?, 0, 0)
        })?;
        Ok(Recording { graph, sample, time, conditioning, conditioned_for: self.conditioning.added.id(), output })
    }

    fn play(&self, recording: &mut Recording) -> Result<Tensor, Error> {
        recording.sample.slice_set(&self.sample.contiguous()?, 0, 0)?;
        recording.time.slice_set(&self.time.contiguous()?, 0, 0)?;
        // The same in all calls for a request.
        let conditioned_for = self.conditioning.added.id();
        if recording.conditioned_for != conditioned_for {
            recording.conditioning.set(self.conditioning)?;
            recording.conditioned_for = conditioned_for;
        }
        recording.graph.launch()?;
        Ok(recording.output.copy()?)
    }

    fn is_same(&self, played: &Tensor, made: &Tensor) -> Result<bool, Error> {
        let (played, made) = (played.to_dtype(DType::F32)?, made.to_dtype(DType::F32)?);
        let squares = |x: &Tensor| x.sqr()?.sum_all()?.to_scalar::<f32>();
        // Not a number is not the same.
        Ok(squares(&(played - &made)?)? <= TOLERANCE * TOLERANCE * squares(&made)?)
    }
}

/// The same numbers in a place of their own.
pub(super) fn copy(x: &Tensor) -> candle_core::Result<Tensor> {
    x.contiguous()?.copy()
}
