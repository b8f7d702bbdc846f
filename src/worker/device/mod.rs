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

use anyhow::{Context, anyhow};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
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

/// After so many failures in a row a device is in doubt: some errors of a driver stay until its process ends, and each
/// prediction would fail in no time.
const DOUBTFUL: u32 = 3;

/// A running device thread.
#[derive(Debug)]
pub struct DeviceThread {
    /// `None` only while dropping.
    batches: Option<mpsc::UnboundedSender<Vec<Assignment>>>,
    phase: watch::Receiver<DevicePhase>,
    busy: Arc<AtomicBool>,
    /// By when what runs has to be over, as long as something does that has to.
    due: watch::Receiver<Option<Instant>>,
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
        let (due_sender, due) = watch::channel(None);
        let (working, named) = (Arc::clone(&busy), name.to_owned());
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let clock = metrics::Device::register(&named);
            if let Err(error) = own_device(load, inbox, &phase_sender, &working, &due_sender, &clock) {
                phase_sender.send_replace(DevicePhase::Failed(format!("{error:#}")));
            }
        })?;
        Ok(Self { batches: Some(batches), phase, busy, due, thread: Some(thread) })
    }

    /// How far the device is, and news of it.
    pub fn phase(&self) -> watch::Receiver<DevicePhase> {
        self.phase.clone()
    }

    /// Returns when what runs should have been over for so long that the device must hang: a limit, as a cancel, is
    /// looked at only between two steps.
    pub async fn hung(&self, grace: Duration) {
        let mut due = self.due.clone();
        loop {
            let end = due.borrow_and_update().map(|due| due + grace);
            let passed = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = passed => return,
                changed = due.changed() => if changed.is_err() {
                    // The thread is gone, which its phase tells.
                    std::future::pending::<()>().await;
                },
            }
        }
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
    due: &watch::Sender<Option<Instant>>,
    clock: &metrics::Device,
) -> anyhow::Result<()> {
    let mut predictor = load()?;
    warm_up(&mut *predictor, phase, clock)?;
    let mut failures = 0;
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
        // Whoever runs side by side shares the time that counts.
        due.send_replace(
            batch.iter().map(|one| one.time_limit).sum::<Option<Duration>>().map(|all| Instant::now() + all),
        );
        clock.begin();
        let runs = run(&mut *predictor, &batch);
        clock.end();
        clock.set_memory(predictor.memory());
        due.send_replace(None);
        busy.store(false, Relaxed);
        drop(entered);
        drop(spans);
        failures = failures_after(failures, &runs);
        let is_in_doubt = failures >= DOUBTFUL;
        if is_in_doubt {
            // Before anybody hears of the end, and claims the next.
            phase.send_replace(DevicePhase::WarmingUp);
        }
        batch.into_iter().zip(runs).for_each(|(assignment, run)| assignment.reply(run));
        if is_in_doubt {
            tracing::warn!("{failures} runs in a row failed; the device is warmed up again");
            warm_up(&mut *predictor, phase, clock)
                .with_context(|| format!("{failures} runs in a row failed, and so did the warm-up after them"))?;
            failures = 0;
        }
    }
    Ok(())
}

fn warm_up(
    predictor: &mut dyn Predictor,
    phase: &watch::Sender<DevicePhase>,
    clock: &metrics::Device,
) -> anyhow::Result<()> {
    phase.send_replace(DevicePhase::WarmingUp);
    clock.set_up(false);
    let warmed_up =
        catch_unwind(AssertUnwindSafe(|| predictor.warm_up())).map_err(|_| anyhow!("the warm-up run crashed"))?;
    warmed_up.map_err(|failure| anyhow!("the warm-up run failed: {}", failure.message))?;
    clock.set_memory(predictor.memory());
    clock.set_up(true);
    phase.send_replace(DevicePhase::Ready);
    Ok(())
}

/// How many runs in a row have failed by no fault of their input.
fn failures_after(before: u32, runs: &[Run]) -> u32 {
    runs.iter().fold(before, |failures, run| match &run.result {
        Ok(_) => 0,
        Err(PredictError::Failed(failure)) if failure.code == FailureCode::Internal => failures + 1,
        // Says nothing of the device.
        Err(_) => failures,
    })
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

fn crashed() -> PredictError {
    PredictError::Failed(Failure { code: FailureCode::Internal, message: "the model crashed".to_owned() })
}

#[cfg(test)]
mod tests;
