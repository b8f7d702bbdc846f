//! The running `postgres` process, our child: started, watched and stopped.
//!
//! Postgres takes three signals: SIGINT ends connections and checkpoints, SIGQUIT ends at once and leaves recovery to
//! the next start (nothing committed is lost), SIGKILL is for what no longer listens.

use std::future::Future;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time;

use super::Error;
use super::log::Log;
use super::pid_file::{self, PidFile};

/// How Postgres is asked to stop, and how long it may take before it is asked less kindly.
const STOP: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(10)),
    (Signal::SIGQUIT, Duration::from_secs(3)),
    (Signal::SIGKILL, Duration::from_secs(2)),
];

/// Readiness is a line in a file, so it is polled for.
const READINESS_POLL: Duration = Duration::from_millis(5);
/// How often a start that takes long says that it is still at it.
const PROGRESS_REPORT: Duration = Duration::from_secs(10);
const LOG_TRIM: Duration = Duration::from_secs(60);

/// Said by Postgres when a process of a killed predecessor is still attached; it ends by itself within moments.
const PREDECESSOR_ATTACHED: &str = "pre-existing shared memory block";
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(20);

/// A `postgres` that this process has started. Dropping it sends SIGINT and does not wait.
#[derive(Debug)]
pub(super) struct Postmaster {
    pid: Pid,
    log: Arc<Log>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Postmaster {
    /// Runs the command and returns when it takes connections on `cluster`.
    pub(super) async fn start(
        mut server: Command,
        cluster: &Path,
        log: Log,
        patience: Duration,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let log = Arc::new(log);
        loop {
            let postmaster = Self::spawn(&mut server, Arc::clone(&log))?;
            match postmaster.ready(cluster, patience).await {
                Err(Error::Exited { log_tail, .. })
                    if log_tail.contains(PREDECESSOR_ATTACHED) && started.elapsed() < PREDECESSOR_PATIENCE =>
                {
                    time::sleep(Duration::from_millis(250)).await;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(postmaster),
            }
        }
    }

    fn spawn(server: &mut Command, log: Arc<Log>) -> Result<Self, Error> {
        server.stdout(log.output()?).stderr(log.output()?);
        let child = server.spawn().map_err(Error::io("run", Path::new(server.as_std().get_program())))?;
        let id = child.id().expect("a child has an id until it is waited for");
        let (report_exit, exit) = watch::channel(None);
        tokio::spawn(watch_over(child, Arc::clone(&log), report_exit));
        Ok(Self { pid: Pid::from_raw(id.cast_signed()), log, exit })
    }

    async fn ready(&self, cluster: &Path, patience: Duration) -> Result<(), Error> {
        let started = Instant::now();
        let mut next_report = PROGRESS_REPORT;
        while !PidFile::read(cluster)?.is_some_and(|file| file.ready && file.pid == self.pid) {
            if let Ok(error) = time::timeout(READINESS_POLL, self.exited()).await {
                return Err(error);
            }
            let elapsed = started.elapsed();
            if elapsed > patience {
                let (log, log_tail) = (self.log.path().to_owned(), self.log.tail());
                return Err(Error::TooSlow { seconds: patience.as_secs(), log, log_tail });
            }
            if elapsed > next_report {
                next_report += PROGRESS_REPORT;
                tracing::info!("Postgres is still starting: {}", self.log.tail().lines().last().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Returns when the process has ended, with its status and last words.
    pub(super) async fn exited(&self) -> Error {
        let status = self.exit_status().await;
        Error::Exited { status, log: self.log.path().to_owned(), log_tail: self.log.tail() }
    }

    async fn exit_status(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status = exit.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        match status {
            Some(status) => status,
            // The watching task goes only with the whole runtime, and then nobody is left to be told.
            None => std::future::pending().await,
        }
    }

    /// Stops the process and waits for its end.
    pub(super) async fn stop(self) {
        if !escalate(self.pid, self.exit_status()).await {
            tracing::error!(pid = self.pid.as_raw(), "Postgres does not stop");
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        // A process id that was waited for may belong to somebody else by now.
        if self.exit.borrow().is_none() {
            let _ = signal::kill(self.pid, Signal::SIGINT);
        }
    }
}

/// Waits for the child, so that it leaves no zombie, and keeps its log short.
async fn watch_over(mut child: Child, log: Arc<Log>, report_exit: watch::Sender<Option<ExitStatus>>) {
    let mut trim = time::interval(LOG_TRIM);
    loop {
        tokio::select! {
            status = child.wait() => {
                match status {
                    Ok(status) => { report_exit.send_replace(Some(status)); }
                    Err(error) => tracing::error!("could not wait for Postgres: {error}"),
                }
                return;
            }
            _ = trim.tick() => {
                if let Err(error) = log.trim() {
                    tracing::warn!("could not shorten {}: {error}", log.path().display());
                }
            }
        }
    }
}

/// Stops a Postgres that an earlier, killed server has started; false when it does not go.
pub(super) async fn stop_left_behind(pid: Pid) -> bool {
    // Not our child, so its end can only be polled for.
    let gone = async {
        while !pid_file::is_gone(pid) {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    escalate(pid, gone).await
}

async fn escalate<T>(pid: Pid, gone: impl Future<Output = T>) -> bool {
    tokio::pin!(gone);
    for (signal, patience) in STOP {
        // Looked at first, lest a process that has already ended is signaled by a number that is no longer its own.
        if time::timeout(Duration::ZERO, &mut gone).await.is_ok() {
            return true;
        }
        let _ = signal::kill(pid, signal);
        if time::timeout(patience, &mut gone).await.is_ok() {
            return true;
        }
        tracing::warn!(pid = pid.as_raw(), "Postgres did not stop on {signal}");
    }
    false
}
