//! One worker: the loop that claims a prediction, runs it on its device, and concludes it.
//!
//! The loop waits only for the device, and claims the next prediction a moment before it is free (`outlook`), with
//! others that can be drawn beside it. Each runs in a task of its own: encoding, storing and finishing go on beside the
//! device (`conclude`), which takes the next at once.
//! Another task (`held`) renews the leases of everything the worker holds, whatever the device does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    Settings,
    conclude::conclude,
    device::{DevicePhase, DeviceThread, Run},
    held::{Held, HeldClaims},
    outlook::{AtDevice, Outlook},
    predictor::PredictError,
    preview,
    progress::Logs,
    seats::Seat,
    speed::Speed,
    start_image,
};
use crate::{
    artifacts::Artifacts,
    domain::chance,
    metrics, spans,
    store::{Claim, Mark, Phase, Store, WorkerRecord},
};

/// Predictions whose images are being encoded and stored while the device runs the next; more make the loop wait, so
/// that a slow artifact store slows the device down and does not fill the memory.
const CONCLUDING_AT_ONCE: usize = 8;

/// Everything one worker works with.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: Uuid,
    pub(super) store: Store,
    pub(super) artifacts: Artifacts,
    pub(super) settings: Settings,
    pub(super) device: DeviceThread,
    pub(super) held: HeldClaims,
    pub(super) outlook: Outlook,
    pub(super) speed: Speed,
    /// Whether the process shows its sign of life; without it nothing is claimed.
    pub(super) alive: watch::Receiver<bool>,
    /// Becomes true when the worker takes predictions and its row says so.
    pub(super) ready: watch::Sender<bool>,
    /// When canceled, nothing more is claimed.
    pub(super) stop_claiming: CancellationToken,
    /// Held while the worker's row is written.
    pub(super) reporting: Mutex<()>,
}

/// A prediction that was claimed, and what is known and kept of it from then on.
struct Taken {
    claim: Claim,
    /// The moment before: what was said of it since is still to be heard.
    before: Mark,
    held: Held,
    seat: Seat,
    at_device: Arc<AtDevice>,
    permit: OwnedSemaphorePermit,
}

impl Worker {
    /// Works until told to stop and everything claimed is concluded. Fails if the device never becomes ready, or fails
    /// whatever it is given.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let worker = Arc::new(self);
        let renewing = tokio::spawn(Arc::clone(&worker).keep_leases());
        let result = match worker.become_ready().await {
            Ok(()) => tokio::select! {
                done = worker.claim_and_run() => done,
                () = worker.device.hung(worker.settings.hang) => {
                    worker.held.give_all_up(&worker.store).await;
                    Err(anyhow::anyhow!("the device hangs: a prediction is over its time limit, and no step ends"))
                }
            },
            error => error,
        };
        renewing.abort();
        if let Err(error) = worker.store.forget_worker(worker.id).await {
            tracing::debug!(%error, "Could not say goodbye; the row is removed when it has been silent for a while");
        }
        result
    }

    async fn become_ready(&self) -> anyhow::Result<()> {
        let mut phase = self.device.phase();
        loop {
            let now = phase.borrow_and_update().clone();
            match now {
                DevicePhase::Ready => return Ok(()),
                DevicePhase::Failed(reason) => anyhow::bail!("the device cannot be used: {reason}"),
                DevicePhase::Loading | DevicePhase::WarmingUp => {}
            }
            self.report().await;
            tokio::select! {
                changed = phase.changed() => changed?,
                () = self.stop_claiming.cancelled() => return Ok(()),
            }
        }
    }

    async fn claim_and_run(self: &Arc<Self>) -> anyhow::Result<()> {
        self.report().await;
        self.ready.send_replace(true);
        let under_way = TaskTracker::new();
        // Those at the device and those that are claimed early hold a permit as well.
        let permits = Arc::new(Semaphore::new(CONCLUDING_AT_ONCE + 2 * (self.settings.max_batch - 1)));
        let mut result = Ok(());
        while !self.stop_claiming.is_cancelled() {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { break };
            tokio::select! {
                () = self.outlook.nearly_free() => {}
                () = self.stop_claiming.cancelled() => break,
            }
            // One that is in doubt warms up again, which a stop does not wait for.
            result = self.become_ready().await;
            if result.is_err() || self.stop_claiming.is_cancelled() {
                break;
            }
            // What is said of the prediction before we know that it is ours is not lost.
            let before = self.store.changes().mark();
            let Some(first) = self.claim_or_wait().await else { continue };
            let others = self.claim_others(&first, permits.available_permits()).await;
            let at_device = Arc::new(self.outlook.give(&first, 1 + others.len()));
            let mut seats = self.device.seats(1 + others.len()).into_iter();
            let mut permit = Some(permit);
            for claim in std::iter::once(first).chain(others) {
                // There are as many as were asked for, and only this loop takes any.
                let more = || Arc::clone(&permits).try_acquire_owned().ok();
                let Some(permit) = permit.take().or_else(more) else { break };
                let Some(seat) = seats.next() else { break };
                if claim.attempt == 1 {
                    metrics::prediction_started(&claim.model, claim.waited);
                }
                let span = tracing::info_span!(
                    "prediction",
                    prediction.id = %claim.id,
                    attempt = claim.attempt,
                    // A server's lines of the request that made it have the same.
                    request_id = claim.request_id,
                );
                if let Some(trace_parent) = &claim.trace_parent {
                    spans::go_on(&span, trace_parent);
                }
                let held = self.held.hold(&claim);
                let taken = Taken { held, seat, at_device: Arc::clone(&at_device), claim, before, permit };
                under_way.spawn(Arc::clone(self).run_and_conclude(taken).instrument(span));
            }
        }
        self.report().await;
        under_way.close();
        under_way.wait().await;
        result
    }

    async fn run_and_conclude(self: Arc<Self>, taken: Taken) {
        let Taken { claim, before, held, seat, at_device, permit } = taken;
        let mut logs = Logs::continuing(claim.logs.clone());
        let run = self.run_on_device(&claim, before, &held, seat, &mut logs).await;
        if run.result.is_ok() {
            at_device.took(run.batch_time);
        }
        drop(at_device);
        // Whoever is told of the first picture finds in the worker's row how long it took, and not only at the next
        // beat.
        if run.result.is_ok() && self.speed.made(run.device_time, claim.input.num_outputs) {
            self.report().await;
        }
        if matches!(run.result, Err(PredictError::DeviceLost)) {
            // Its lease shall run out.
            self.held.release(&held);
        }
        conclude(&self.store, &self.artifacts, &claim, &held, logs, run).await;
        self.held.release(&held);
        drop(permit);
    }

    /// The next prediction, or `None` after waiting for news, for the time between two polls, or for the stop.
    async fn claim_or_wait(&self) -> Option<Claim> {
        let mut alive = self.alive.clone();
        tokio::select! {
            // The sender lives as long as the pool.
            _ = alive.wait_for(|alive| *alive) => {}
            () = self.stop_claiming.cancelled() => return None,
        }
        // Before we look: what is queued meanwhile is heard of.
        let queued = self.store.changes().queued();
        let begun = Instant::now();
        for model in &self.settings.models {
            match self.store.claim(model, self.id, self.settings.lease).await {
                Ok(Some(claim)) => {
                    self.outlook.claimed_in(begun.elapsed());
                    return Some(claim);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "Could not look for work"),
            }
        }
        tokio::select! {
            () = queued => {}
            () = tokio::time::sleep(self.settings.poll) => {}
            () = self.stop_claiming.cancelled() => {}
        }
        None
    }

    /// Others that can be drawn beside this one, at most so many: what is queued now, and no more of it than this
    /// worker's share, so that none waits here for what another device could begin.
    async fn claim_others(&self, first: &Claim, room: usize) -> Vec<Claim> {
        let room = room.min(self.settings.max_batch.saturating_sub(1));
        if room == 0 {
            return Vec::new();
        }
        let others = self.store.claim_beside(first, room, self.settings.lease).await;
        others.unwrap_or_else(|error| {
            tracing::warn!(%error, "Could not look for more of the same work");
            Vec::new()
        })
    }

    async fn run_on_device(&self, claim: &Claim, before: Mark, held: &Held, seat: Seat, logs: &mut Logs) -> Run {
        let mut changes = self.store.changes().subscribe_since(claim.id, before);
        let seeds: Vec<String> = claim.input.seeds().map(|seed| seed.to_string()).collect();
        logs.note(&format!("Using seed: {}", seeds.join(", ")));
        let image = match start_image::load(&self.artifacts, &claim.input, held).await {
            Ok(image) => image,
            Err(error) => return Run::without_device(error),
        };
        let (sender, mut steps) = mpsc::unbounded_channel();
        let run = seat.run(claim.input.clone(), image, claim.time_limit, held.stop_token(), sender);
        tokio::pin!(run);
        // If a cancel came while we learned that it is ours, the run shall not even begin.
        if changes.changed().now_or_never().is_some() {
            self.renew_one(claim).await;
        }
        let mut record = tokio::time::interval(self.settings.record_logs);
        record.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is immediate.
        record.tick().await;
        let mut recorded = logs.text().len();
        // Ends when the sender is dropped, which is when the device is done.
        let shown = watch::Sender::new(None);
        tokio::spawn(preview::show(self.store.clone(), claim.clone(), shown.subscribe()).in_current_span());
        let run = loop {
            tokio::select! {
                biased;
                run = &mut run => break run,
                Some(step) = steps.recv() => {
                    logs.step(&step);
                    shown.send_replace(Some(step));
                }
                () = changes.changed() => self.renew_one(claim).await,
                _ = record.tick(), if logs.text().len() > recorded => {
                    recorded = logs.text().len();
                    if let Err(error) = self.store.record_logs(claim, logs.text()).await {
                        tracing::debug!(%error, "Could not record progress");
                    }
                }
            }
        };
        while let Ok(step) = steps.try_recv() {
            logs.step(&step);
        }
        if run.neighbors > 0 {
            logs.note(&format!("Drawn side by side with {} more, which share its time", run.neighbors));
        }
        run
    }

    async fn renew_one(&self, claim: &Claim) {
        self.held.renew(&self.store, self.id, &[(claim.id, claim.attempt)], self.settings.lease).await;
    }

    /// Renews all leases and the worker's own row, on a beat of its own.
    async fn keep_leases(self: Arc<Self>) {
        let mut beat = tokio::time::interval(self.settings.renew);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.report().await;
            let claims = self.held.claims();
            if !claims.is_empty() {
                self.held.renew(&self.store, self.id, &claims, self.settings.lease).await;
            }
        }
    }

    /// Writes the worker's row. One at a time, and the phase is looked at when it is this one's turn: of two writes on
    /// their way, the older news must not come last.
    async fn report(&self) {
        let _turn = self.reporting.lock().await;
        let (phase, percent) = match &*self.device.phase().borrow() {
            _ if self.stop_claiming.is_cancelled() => (Phase::Draining, 100),
            DevicePhase::Loading | DevicePhase::Failed(_) => (Phase::Loading, 0),
            DevicePhase::WarmingUp => (Phase::WarmingUp, 90),
            DevicePhase::Ready => (Phase::Ready, 100),
        };
        let record = WorkerRecord {
            id: self.id,
            models: self.settings.models.clone(),
            device: self.settings.device_name.clone(),
            host: self.settings.host.clone(),
            phase,
            percent,
            picture: self.speed.picture(),
        };
        if let Err(error) = self.store.report_worker(&record).await {
            tracing::debug!(%error, "Could not report the worker's state");
        }
    }
}

/// A duration up to a fifth longer, so that many workers do not poll in step.
pub(super) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 + chance() / 5.0)
}
