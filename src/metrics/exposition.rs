//! The text that Prometheus reads: what was recorded since the start, and the facts of this moment.

use std::{fs, sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::{Disk, SECONDS, cost, describe, record_facts};

/// What the process records into, once it does.
static RECORDED: OnceLock<PrometheusHandle> = OnceLock::new();

/// What is not counted but looked up when somebody asks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The program's.
    pub version: &'static str,
    /// What the database says; `None` when it does not answer.
    pub queue: Option<QueueFacts>,
    /// Connections to it.
    pub pool: Pool,
    /// The room on disks that could be looked at.
    pub disks: Vec<Disk>,
    /// Predictions waited for in this process.
    pub watched: usize,
}

/// What the database knows of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Model, how many wait, and how long the one has that waits longest.
    pub waiting: Vec<(String, u64, Duration)>,
    /// Phase, and how many workers are in it.
    pub workers: Vec<(String, u64)>,
    /// Rows of predictions that are dead and not yet vacuumed, as the database estimates it.
    pub dead_rows: u64,
    /// How long the transaction has been open that keeps the oldest of them.
    pub oldest_snapshot: Duration,
}

/// Connections by what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Open and free.
    pub idle: u32,
    /// Held by somebody.
    pub used: u32,
    /// As many as there may be.
    pub most: u32,
    /// Those who wait for one.
    pub waiters: usize,
}

/// Begins to record. Once for a process; the second time changes nothing.
pub fn install() -> Result<(), BuildError> {
    if RECORDED.get().is_none() {
        let handle = builder()?.install_recorder()?;
        describe();
        // Two callers at once cannot both have installed one.
        let _ = RECORDED.set(handle);
    }
    Ok(())
}

/// Whether anything is recorded.
pub(super) fn is_installed() -> bool {
    RECORDED.get().is_some()
}

/// Puts what was recorded in its buckets, which otherwise happens when somebody asks. Call it now and then, in case
/// that nobody does.
pub fn tidy_up() {
    if let Some(recorded) = RECORDED.get() {
        recorded.run_upkeep();
    }
}

/// Everything, as text. Empty but for the facts if nothing is recorded.
pub fn render(facts: &Facts) -> String {
    let mut text = String::new();
    if let Some(recorded) = RECORDED.get() {
        text = recorded.render();
        cost::render(&mut text);
    }
    // A recorder for this one time: a fact that cannot be told now is missing, not the same as before.
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || record_facts(facts));
    text.push_str(&recorder.handle().render());
    text
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
}

/// Of this process; `None` where there is no `/proc`.
pub(super) fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
