//! What makes the process measurable: the recorder, and `/metrics` on a listener of its own where there shall be one.

use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{config::Config, http, metrics, service::scrape::Scrape};

/// How often what was recorded is put in order, whether anybody asks for it or not.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// Measures until dropped.
pub(super) struct Observing {
    tasks: [Option<JoinHandle<()>>; 2],
}

impl Observing {
    /// Begins to record and opens `metrics.listen`. Scrapes are answered from now on, whatever else is not ready.
    pub(super) fn start(config: &Config, scrape: Scrape) -> anyhow::Result<Self> {
        metrics::install().context("could not start the metrics")?;
        let listening = match config.metrics.listen {
            None => None,
            Some(address) => {
                let listener =
                    http::listen(address).with_context(|| format!("could not listen on {address} for metrics"))?;
                tracing::info!("Metrics on http://{}/metrics", listener.local_addr()?);
                Some(tokio::spawn(http::serve_metrics(listener, scrape, CancellationToken::new())))
            }
        };
        let tidying = tokio::spawn(async {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                metrics::tidy_up();
            }
        });
        Ok(Self { tasks: [listening, Some(tidying)] })
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        self.tasks.iter().flatten().for_each(JoinHandle::abort);
    }
}
