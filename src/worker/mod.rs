//! Workers: they take predictions from the queue, run them on their devices, and write the results back.
//!
//! A worker meets the rest of the program only in the database and the artifact store, so it makes no difference
//! whether it runs in the server's process or on another machine. One path through it: `run` claims, `seats` puts
//! together what runs side by side, `device` runs it on the thread that owns the `predictor`, `conclude` stores and
//! finishes; `held` keeps the leases, `session` the sign of life, `outlook` the device from idling, `speed` tells how
//! fast it is, `sweep` the order.

mod conclude;
mod device;
mod encode;
mod files;
mod held;
mod outage;
mod outlook;
pub mod predictor;
mod preview;
mod progress;
mod run;
mod seats;
mod session;
mod shares;
mod speed;
mod start_image;
mod sweep;

use std::time::Duration;

use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::{
    device::{DevicePhase, DeviceThread, Load, Run},
    files::{expire_uploads, sweep_files},
    sweep::{prune, sweep_in_turn},
};
use self::{held::HeldClaims, outlook::Outlook, run::Worker, speed::Speed};
use crate::{artifacts::Artifacts, store::Store};

/// How long a run that was told to stop may take for the step it is in.
const LAST_STEP: Duration = Duration::from_secs(3);

/// How workers work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Slugs of the models they run, most wanted first.
    pub models: Vec<String>,
    /// The device in words.
    pub device_name: String,
    /// The machine's name.
    pub host: String,
    /// How many predictions a device draws side by side at most, where the queue has some that go together.
    pub max_batch: usize,
    /// How long a claim lasts without renewal.
    pub lease: Duration,
    /// How often leases are renewed.
    pub renew: Duration,
    /// How often the queue is looked at when nothing is heard of it.
    pub poll: Duration,
    /// How often the logs of a running prediction are written to its row.
    pub record_logs: Duration,
    /// How long a step may go on after a prediction's time limit has passed in it; then the device is taken for hung.
    pub hang: Duration,
    /// How often dead workers are looked for.
    pub sweep: Duration,
    /// How many lost workers end a prediction.
    pub max_losses: i16,
    /// How long outputs and inputs of ended predictions are kept; `None` where deleting them, and files that nobody
    /// needs, is left to others.
    pub retention: Option<Duration>,
}

/// The workers of a process.
#[derive(Debug)]
pub struct WorkerPool {
    workers: JoinSet<anyhow::Result<()>>,
    ready: Vec<watch::Receiver<bool>>,
    held: Vec<HeldClaims>,
    upkeep: JoinSet<()>,
    stop_claiming: CancellationToken,
}

impl WorkerPool {
    /// Starts a worker for each `Load`, with a device thread each, and the upkeep of the queue, which goes on even
    /// without workers.
    pub fn start(store: &Store, artifacts: &Artifacts, settings: &Settings, loads: Vec<Load>) -> std::io::Result<Self> {
        let stop_claiming = CancellationToken::new();
        let mut pool = Self {
            workers: JoinSet::new(),
            ready: Vec::new(),
            held: Vec::new(),
            upkeep: JoinSet::new(),
            stop_claiming: stop_claiming.clone(),
        };
        let mut ids = Vec::new();
        let (alive_sender, alive) = watch::channel(false);
        for (index, load) in loads.into_iter().enumerate() {
            let worker = Worker {
                id: Uuid::new_v4(),
                store: store.clone(),
                artifacts: artifacts.clone(),
                settings: Settings { poll: run::jittered(settings.poll), ..settings.clone() },
                device: DeviceThread::start(&format!("device-{index}"), load)?,
                held: HeldClaims::default(),
                outlook: Outlook::new(),
                speed: Speed::default(),
                alive: alive.clone(),
                ready: watch::Sender::new(false),
                reporting: Mutex::new(()),
                stop_claiming: stop_claiming.clone(),
            };
            ids.push(worker.id);
            pool.ready.push(worker.ready.subscribe());
            pool.held.push(worker.held.clone());
            pool.workers.spawn(worker.run());
        }
        if !ids.is_empty() {
            pool.upkeep.spawn(session::show_life(store.clone(), ids, alive_sender));
        }
        pool.upkeep.spawn(sweep::keep_sweeping(store.clone(), artifacts.clone(), settings.clone()));
        if let Some(retention) = settings.retention {
            pool.upkeep.spawn(sweep::keep_pruning(store.clone(), artifacts.clone(), retention));
        }
        Ok(pool)
    }

    /// Returns when every worker takes predictions and its row says so. A device that fails ends its worker, which
    /// `failed` tells.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let ready = self.ready.clone();
        async move {
            for mut ready in ready {
                if ready.wait_for(|ready| *ready).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Returns when a worker ends by itself, which only happens when its device does not become ready or is no good any
    /// more. Waits for ever without workers.
    pub async fn failed(&mut self) -> anyhow::Error {
        while let Some(ended) = self.workers.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(panic) => return panic.into(),
            }
        }
        std::future::pending().await
    }

    /// Stops claiming and lets running predictions finish; what is not done after `patience` goes back to the queue,
    /// at its next step or, if that takes long, in the middle of one. Returns when nothing is held any more.
    pub async fn drain(mut self, store: &Store, patience: Duration) {
        self.stop_claiming.cancel();
        if self.ended_within(patience).await {
            return;
        }
        self.held.iter().for_each(HeldClaims::hand_all_back);
        if self.ended_within(LAST_STEP).await {
            return;
        }
        for held in &self.held {
            held.abandon(store).await;
        }
    }

    async fn ended_within(&mut self, patience: Duration) -> bool {
        let ended = async { while self.workers.join_next().await.is_some() {} };
        tokio::time::timeout(patience, ended).await.is_ok()
    }
}
