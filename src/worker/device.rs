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
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tracing::Span;

use super::{
    predictor::{Drawn, PredictError, Predictor, Request, Step},
    seats::{Assignment, Seat, seats},
    shares::Shares,
};
use crate::{
    domain::{Failure, FailureCode},
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
    batches: Option<mpsc::UnboundedSender<Vec<Assignment>>>,
    phase: watch::Receiver<DevicePhase>,
    busy: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How a run went and how long it kept the device.
#[derive(Debug)]
pub struct Run {
    /// The pictures, or why there are none.
    pub result: Result<Drawn, PredictError>,
    /// From the first thing the predictor did to the last; of what ran side by side, its share.
    pub device_time: Duration,
    /// How long the device was kept by everything that ran side by side.
    pub batch_time: Duration,
    /// How many others it ran beside.
    pub neighbors: usize,
}

impl Run {
    /// One that never came to the device.
    pub(super) const fn without_device(error: PredictError) -> Self {
        Self { result: Err(error), device_time: Duration::ZERO, batch_time: Duration::ZERO, neighbors: 0 }
    }
}

impl DeviceThread {
    /// Starts the thread; it loads the model at once.
    pub fn start(name: &str, load: Load) -> std::io::Result<Self> {
        let (batches, inbox) = mpsc::unbounded_channel();
        let (phase_sender, phase) = watch::channel(DevicePhase::Loading);
        let busy = Arc::new(AtomicBool::new(false));
        let (working, named) = (Arc::clone(&busy), name.to_owned());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let clock = metrics::Device::register(&named);
            if let Err(error) = own_device(load, inbox, &phase_sender, &working, &clock) {
                phase_sender.send_replace(DevicePhase::Failed(format!("{error:#}")));
            }
        })?;
        Ok(Self { batches: Some(batches), phase, busy, thread: Some(thread) })
    }

    /// How far the device is, and news of it.
    pub fn phase(&self) -> watch::Receiver<DevicePhase> {
        self.phase.clone()
    }

    /// Places for predictions that shall run side by side.
    pub fn seats(&self, count: usize) -> Vec<Seat> {
        // Whoever sits down when the thread is told to end is turned away.
        seats(self.batches.as_ref().map(mpsc::UnboundedSender::downgrade), count)
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.batches = None;
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
    mut inbox: mpsc::UnboundedReceiver<Vec<Assignment>>,
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
    while let Some(batch) = inbox.blocking_recv() {
        let (stopped, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(Assignment::is_stopped);
        stopped.into_iter().for_each(|one| one.reply(Run::without_device(PredictError::Canceled)));
        if batch.is_empty() {
            continue;
        }
        // Each has a span of its own; what is logged meanwhile is in the first one's.
        let spans: Vec<Span> = batch.iter().map(Assignment::span).collect();
        let entered = spans.first().map(Span::enter);
        busy.store(true, Relaxed);
        clock.begin();
        let runs = run(&mut *predictor, &batch);
        clock.end();
        clock.set_memory(predictor.memory());
        busy.store(false, Relaxed);
        drop(entered);
        drop(spans);
        batch.into_iter().zip(runs).for_each(|(assignment, run)| assignment.reply(run));
    }
    Ok(())
}

/// Runs what was put together, and splits the device's time between those who were there.
fn run(predictor: &mut dyn Predictor, batch: &[Assignment]) -> Vec<Run> {
    let mut shares = Shares::begin(batch.len());
    let mut is_late = vec![false; batch.len()];
    let mut on_step = |place: usize, step: Step| {
        let assignment = &batch[place];
        assignment.tell(step);
        is_late[place] = assignment.time_limit.is_some_and(|limit| shares.of(place) > limit);
        if assignment.is_stopped() || is_late[place] {
            shares.leave(place);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let requests: Vec<Request<'_>> = batch.iter().map(Assignment::request).collect();
    let run = || predictor.predict_batch(&requests, &mut on_step);
    let results =
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| batch.iter().map(|_| Err(crashed())).collect());
    let (times, batch_time) = shares.end();
    let neighbors = batch.len() - 1;
    let runs = results.into_iter().zip(times).zip(batch).zip(is_late);
    runs.map(|(((result, device_time), assignment), is_late)| {
        let result = match (result, assignment.time_limit) {
            // A cancel that was asked for as well is a cancel.
            (Err(PredictError::Canceled), Some(limit)) if is_late && !assignment.is_stopped() => Err(too_slow(limit)),
            (result, _) => result,
        };
        Run { result, device_time, batch_time, neighbors }
    })
    .collect()
}

fn too_slow(limit: Duration) -> PredictError {
    let message = format!("it took longer than the {} seconds that it may take", limit.as_secs());
    PredictError::Failed(Failure { code: FailureCode::TimeLimit, message })
}

pub(super) fn crashed() -> PredictError {
    PredictError::Failed(Failure { code: FailureCode::Internal, message: "the model crashed".to_owned() })
}

#[cfg(test)]
mod tests {
    use image::RgbImage;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::domain::{Input, OutputFormat, Safety, Scheduler};

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

    impl DeviceThread {
        async fn run(&self, limit: Option<Duration>, stop: CancellationToken) -> Run {
            let seat = self.seats(1).pop().expect("a seat");
            seat.run(input(), None, limit, stop, mpsc::unbounded_channel().0).await
        }
    }

    #[tokio::test]
    async fn a_panic_in_the_model_fails_one_prediction_and_not_the_next() {
        let device = DeviceThread::start("clumsy", Box::new(|| Ok(Box::new(Clumsy { runs: 0 })))).expect("a thread");
        let first = device.run(None, CancellationToken::new()).await;
        assert!(matches!(first.result, Err(PredictError::Failed(_))));
        let second = device.run(None, CancellationToken::new()).await;
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
        let run = device.run(Some(Duration::from_millis(5)), CancellationToken::new()).await;
        let Err(PredictError::Failed(failure)) = run.result else { panic!("{:?}", run.result) };
        assert_eq!(failure.code, FailureCode::TimeLimit);
        assert!(run.device_time > Duration::from_millis(5));
    }

    #[tokio::test]
    async fn a_run_that_is_stopped_while_it_waits_never_starts_and_takes_no_time() {
        let device = DeviceThread::start("stopped", Box::new(|| Ok(Box::new(Clumsy { runs: 0 })))).expect("a thread");
        let stop = CancellationToken::new();
        stop.cancel();
        let run = device.run(None, stop).await;
        assert!(matches!(run.result, Err(PredictError::Canceled)));
        assert_eq!(run.device_time, Duration::ZERO);
    }

    /// Takes some time for each of three steps of all that run side by side.
    struct Together;

    impl Predictor for Together {
        fn warm_up(&mut self) -> Result<(), Failure> {
            Ok(())
        }

        fn predict(
            &mut self,
            _: &Input,
            _: Option<&RgbImage>,
            _: &mut dyn FnMut(Step) -> ControlFlow<()>,
        ) -> Result<Drawn, PredictError> {
            unreachable!("nothing runs alone here")
        }

        fn predict_batch(
            &mut self,
            requests: &[Request<'_>],
            on_step: &mut dyn FnMut(usize, Step) -> ControlFlow<()>,
        ) -> Vec<Result<Drawn, PredictError>> {
            let mut results: Vec<_> = requests
                .iter()
                .map(|_| Ok(Drawn { images: Vec::new(), safety: Safety::Unavailable, notes: Vec::new() }))
                .collect();
            for done in 1..=3 {
                std::thread::sleep(Duration::from_millis(2));
                for (place, result) in results.iter_mut().enumerate().filter(|(_, result)| result.is_ok()) {
                    let step = Step { done, total: 3, finished_images: 0, elapsed: Duration::ZERO, preview: None };
                    if on_step(place, step).is_break() {
                        *result = Err(PredictError::Canceled);
                    }
                }
            }
            results
        }
    }

    #[tokio::test]
    async fn what_runs_side_by_side_shares_the_time_to_the_microsecond_and_one_that_is_stopped_leaves_the_others() {
        let device = DeviceThread::start("together", Box::new(|| Ok(Box::new(Together)))).expect("a thread");
        let stop = CancellationToken::new();
        let (steps, mut first_step) = mpsc::unbounded_channel();
        let mut runs = Vec::new();
        for (place, seat) in device.seats(5).into_iter().enumerate() {
            match place {
                // Given up: nobody waits for it.
                4 => drop(seat),
                0 => {
                    // Stops itself with its first step.
                    let (token, steps) = (stop.clone(), steps.clone());
                    runs.push(tokio::spawn(seat.run(input(), None, None, token, steps)));
                }
                _ => {
                    let quiet = mpsc::unbounded_channel().0;
                    runs.push(tokio::spawn(seat.run(input(), None, None, CancellationToken::new(), quiet)));
                }
            }
        }
        first_step.recv().await.expect("a step");
        stop.cancel();
        let mut ended = Vec::new();
        for run in runs {
            ended.push(run.await.expect("no panic"));
        }
        let left = ended.remove(0);
        assert!(matches!(left.result, Err(PredictError::Canceled)));
        assert!(ended.iter().all(|run| run.result.is_ok() && run.neighbors == 3));
        let whole = left.batch_time;
        assert!(ended.iter().all(|run| run.batch_time == whole && run.device_time > left.device_time));
        let billed: Duration = ended.iter().map(|run| run.device_time).sum::<Duration>() + left.device_time;
        assert_eq!(billed, whole, "nothing is lost or billed twice");
    }
}
