//! Predictions on their way to a device, together.
//!
//! Each comes in a task of its own, some later than others, because their images are still being read, and some never.
//! When nobody is awaited any more, those that came go to the device's thread as one batch.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use image::RgbImage;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{
    device::Run,
    predictor::{PredictError, Request, Step},
};
use crate::domain::Input;

/// The way to a device's thread. Weak, so that it does not keep the thread from ending.
type Device = Option<mpsc::WeakUnboundedSender<Vec<Assignment>>>;

/// One place in a batch, to be taken by [`Seat::run`] or given up by dropping it.
#[derive(Debug)]
pub struct Seat(Arc<Gathering>);

/// Those who are there, until the last seat is taken or given up.
#[derive(Debug)]
struct Gathering {
    device: Device,
    came: Mutex<Vec<Assignment>>,
}

/// What the thread is asked to run.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) input: Input,
    pub(super) image: Option<RgbImage>,
    pub(super) time_limit: Option<Duration>,
    stop: CancellationToken,
    steps: mpsc::UnboundedSender<Step>,
    reply: oneshot::Sender<Run>,
    /// For whom.
    span: Span,
}

pub(super) fn seats(device: Device, count: usize) -> Vec<Seat> {
    let gathering = Arc::new(Gathering { device, came: Mutex::default() });
    (0..count).map(|_| Seat(Arc::clone(&gathering))).collect()
}

impl Seat {
    /// Runs a prediction, from `image` if there is one, as soon as all others of the batch have come or gone. Steps are
    /// sent as they finish; canceling `stop` ends the run after the current one, and so does the time limit, which
    /// makes it a failure.
    pub async fn run(
        self,
        input: Input,
        image: Option<RgbImage>,
        time_limit: Option<Duration>,
        stop: CancellationToken,
        steps: mpsc::UnboundedSender<Step>,
    ) -> Run {
        let (reply, run) = oneshot::channel();
        let assignment = Assignment { input, image, time_limit, stop, steps, reply, span: Span::current() };
        self.0.came.lock().unwrap_or_else(PoisonError::into_inner).push(assignment);
        drop(self);
        run.await.unwrap_or_else(|_| Run::without_device(PredictError::DeviceLost))
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        let came = std::mem::take(self.came.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Some(device) = self.device.as_ref().and_then(mpsc::WeakUnboundedSender::upgrade)
            && !came.is_empty()
        {
            // Should the thread be gone, everybody hears it from the dropped replies.
            let _ = device.send(came);
        }
    }
}

impl Assignment {
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request { input: &self.input, image: self.image.as_ref() }
    }

    /// The time at the device, in the trace of whoever asked for it.
    pub(super) fn span(&self) -> Span {
        let input = &self.input;
        tracing::info_span!(
            parent: &self.span,
            "device",
            width = input.width,
            height = input.height,
            steps = input.num_inference_steps,
            outputs = input.num_outputs,
        )
    }

    /// Tells of a step. Nobody may listen any more; the run goes on.
    pub(super) fn tell(&self, step: Step) {
        let _ = self.steps.send(step);
    }

    /// The worker may be gone; then nobody finishes the prediction and its lease runs out.
    pub(super) fn reply(self, run: Run) {
        let _ = self.reply.send(run);
    }
}
