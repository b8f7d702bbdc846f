//! The operating system thread that owns a predictor, and with it a device.
//!
//! Tensors and device handles never leave this thread. The asynchronous side holds a channel; dropping it ends the
//! thread after what it is doing.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use image::RgbImage;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::predictor::{Drawn, PredictError, Predictor, Step};
use crate::{
    domain::{Failure, FailureCode, Input},
    metrics,
};

/// How far the device is with becoming useful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DevicePhase {
    /// Reads the model's weights.
    Loading,
    /// Runs for the first time.
    WarmingUp,
    /// Waits for predictions.
    Ready,
    /// Will never be ready; says why.
    Failed(String),
}

/// Makes a predictor on the device's own thread: what it holds need not be movable between threads.
pub type Load = Box<dyn FnOnce() -> anyhow::Result<Box<dyn Predictor>> + Send>;

/// A running device thread.
#[derive(Debug)]
pub struct DeviceThread {
    /// `None` only while dropping.
    assignments: Option<mpsc::UnboundedSender<Assignment>>,
    phase: watch::Receiver<DevicePhase>,
    busy: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked to run.
struct Assignment {
    input: Input,
    image: Option<RgbImage>,
    time_limit: Option<Duration>,
    stop: CancellationToken,
    steps: mpsc::UnboundedSender<Step>,
    reply: oneshot::Sender<Run>,
    /// For whom.
    span: Span,
}

/// How a run went and how long it kept the device.
#[derive(Debug)]
pub struct Run {
    /// The pictures, or why there are none.
    pub result: Result<Drawn, PredictError>,
    /// From the first thing the predictor did to the last.
    pub device_time: Duration,
}

impl DeviceThread {
    /// Starts the thread; it loads the model at once.
    pub fn start(name: &str, load: Load) -> std::io::Result<Self> {
        let (assignments, inbox) = mpsc::unbounded_channel();
        let (phase_sender, phase) = watch::channel(DevicePhase::Loading);
        let busy = Arc::new(AtomicBool::new(false));
        let (working, named) = (Arc::clone(&busy), name.to_owned());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let clock = metrics::Device::register(&named);
            if let Err(error) = own_device(load, inbox, &phase_sender, &working, &clock) {
                phase_sender.send_replace(DevicePhase::Failed(format!("{error:#}")));
            }
        })?;
        Ok(Self { assignments: Some(assignments), phase, busy, thread: Some(thread) })
    }

    /// How far the device is, and news of it.
    pub fn phase(&self) -> watch::Receiver<DevicePhase> {
        self.phase.clone()
    }

    /// Runs a prediction, from `image` if there is one. Steps are sent as they finish; canceling `stop` ends the run after
    /// the current one, and so does the time limit, which makes it a failure.
    pub async fn run(
        &self,
        input: Input,
        image: Option<RgbImage>,
        time_limit: Option<Duration>,
        stop: CancellationToken,
        steps: mpsc::UnboundedSender<Step>,
    ) -> Run {
        let (reply, run) = oneshot::channel();
        let span = Span::current();
        let assignment = Assignment { input, image, time_limit, stop, steps, reply, span };
        let sent = self.assignments.as_ref().is_some_and(|assignments| assignments.send(assignment).is_ok());
        match run.await {
            Ok(run) if sent => run,
            _ => Run { result: Err(crashed()), device_time: Duration::ZERO },
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.assignments = None;
        let idle =
            matches!(*self.phase.borrow(), DevicePhase::Ready | DevicePhase::Failed(_)) && !self.busy.load(Relaxed);
        // A thread that loads weights or is inside a step cannot be told to stop; it ends with the process.
        if let Some(thread) = self.thread.take().filter(|_| idle) {
            // Its panics were caught where they happened.
            let _ = thread.join();
        }
    }
}

fn own_device(
    load: Load,
    mut inbox: mpsc::UnboundedReceiver<Assignment>,
    phase: &watch::Sender<DevicePhase>,
    busy: &AtomicBool,
    clock: &metrics::Device,
) -> anyhow::Result<()> {
    let mut predictor = load()?;
    phase.send_replace(DevicePhase::WarmingUp);
    predictor.warm_up().map_err(|failure| anyhow::anyhow!("the warm-up run failed: {}", failure.message))?;
    phase.send_replace(DevicePhase::Ready);
    clock.set_memory(predictor.memory());
    clock.set_up(true);
    while let Some(Assignment { input, image, time_limit, stop, steps, reply, span }) = inbox.blocking_recv() {
        if stop.is_cancelled() {
            let _ = reply.send(Run { result: Err(PredictError::Canceled), device_time: Duration::ZERO });
            continue;
        }
        let run = tracing::info_span!(
            parent: &span,
            "device",
            width = input.width,
            height = input.height,
            steps = input.num_inference_steps,
            outputs = input.num_outputs,
        );
        let entered = run.enter();
        busy.store(true, Relaxed);
        clock.begin();
        let begun = Instant::now();
        let mut is_late = false;
        let mut on_step = |step| {
            // Nobody may listen to steps any more; the run goes on.
            let _ = steps.send(step);
            is_late = time_limit.is_some_and(|limit| begun.elapsed() > limit);
            if stop.is_cancelled() || is_late { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let result = catch_unwind(AssertUnwindSafe(|| predictor.predict(&input, image.as_ref(), &mut on_step)))
            .unwrap_or_else(|_| Err(crashed()));
        let result = match (result, time_limit) {
            // A cancel that was asked for as well is a cancel.
            (Err(PredictError::Canceled), Some(limit)) if is_late && !stop.is_cancelled() => Err(too_slow(limit)),
            (result, _) => result,
        };
        clock.end();
        clock.set_memory(predictor.memory());
        busy.store(false, Relaxed);
        drop(entered);
        // The worker may be gone; then nobody finishes the prediction and its lease runs out.
        let _ = reply.send(Run { result, device_time: begun.elapsed() });
    }
    Ok(())
}

fn too_slow(limit: Duration) -> PredictError {
    let message = format!("it took longer than the {} seconds that it may take", limit.as_secs());
    PredictError::Failed(Failure { code: FailureCode::TimeLimit, message })
}

fn crashed() -> PredictError {
    PredictError::Failed(Failure { code: FailureCode::Internal, message: "the model crashed".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{OutputFormat, Safety, Scheduler};

    /// Panics on the first run and draws on the next.
    struct Clumsy {
        runs: u32,
    }

    impl Predictor for Clumsy {
        fn warm_up(&mut self) -> Result<(), Failure> {
            Ok(())
        }

        fn predict(
            &mut self,
            _: &Input,
            _: Option<&RgbImage>,
            _: &mut dyn FnMut(Step) -> ControlFlow<()>,
        ) -> Result<Drawn, PredictError> {
            self.runs += 1;
            assert!(self.runs > 1, "clumsy on purpose");
            let images = vec![Some(RgbImage::new(8, 8))];
            Ok(Drawn { images, safety: Safety::Unavailable, notes: Vec::new() })
        }
    }

    fn input() -> Input {
        Input {
            prompt: String::new(),
            negative_prompt: None,
            width: 256,
            height: 256,
            num_outputs: 1,
            scheduler: Scheduler::KEuler,
            num_inference_steps: 4,
            guidance_scale: 0.0,
            seed: 0,
            disable_safety_checker: false,
            image: None,
            prompt_strength: 0.8,
            output_format: OutputFormat::Png,
            output_quality: 80,
            embed_metadata: true,
        }
    }

    #[tokio::test]
    async fn a_panic_in_the_model_fails_one_prediction_and_not_the_next() {
        let device = DeviceThread::start("clumsy", Box::new(|| Ok(Box::new(Clumsy { runs: 0 })))).expect("a thread");
        let steps = mpsc::unbounded_channel().0;
        let first = device.run(input(), None, None, CancellationToken::new(), steps.clone()).await;
        assert!(matches!(first.result, Err(PredictError::Failed(_))));
        let second = device.run(input(), None, None, CancellationToken::new(), steps).await;
        assert_eq!(second.result.expect("drawn").images.len(), 1);
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_loaded_says_why() {
        let device = DeviceThread::start("broken", Box::new(|| anyhow::bail!("no weights"))).expect("a thread");
        let mut phase = device.phase();
        let failed =
            phase.wait_for(|phase| matches!(phase, DevicePhase::Failed(_))).await.expect("still there").clone();
        assert_eq!(failed, DevicePhase::Failed("no weights".to_owned()));
    }

    /// Takes a millisecond for each of any number of steps.
    struct Endless;

    impl Predictor for Endless {
        fn warm_up(&mut self) -> Result<(), Failure> {
            Ok(())
        }

        fn predict(
            &mut self,
            _: &Input,
            _: Option<&RgbImage>,
            on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
        ) -> Result<Drawn, PredictError> {
            let step = Step { done: 1, total: 1, finished_images: 0, elapsed: Duration::ZERO, preview: None };
            while on_step(step.clone()).is_continue() {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(PredictError::Canceled)
        }
    }

    #[tokio::test]
    async fn a_run_beyond_its_time_limit_is_stopped_and_fails() {
        let device = DeviceThread::start("endless", Box::new(|| Ok(Box::new(Endless)))).expect("a thread");
        let (stop, steps) = (CancellationToken::new(), mpsc::unbounded_channel().0);
        let run = device.run(input(), None, Some(Duration::from_millis(5)), stop, steps).await;
        let Err(PredictError::Failed(failure)) = run.result else { panic!("{:?}", run.result) };
        assert_eq!(failure.code, FailureCode::TimeLimit);
        assert!(run.device_time > Duration::from_millis(5));
    }

    #[tokio::test]
    async fn a_run_that_is_stopped_while_it_waits_never_starts_and_takes_no_time() {
        let device = DeviceThread::start("stopped", Box::new(|| Ok(Box::new(Clumsy { runs: 0 })))).expect("a thread");
        let stop = CancellationToken::new();
        stop.cancel();
        let run = device.run(input(), None, None, stop, mpsc::unbounded_channel().0).await;
        assert!(matches!(run.result, Err(PredictError::Canceled)));
        assert_eq!(run.device_time, Duration::ZERO);
    }
}
