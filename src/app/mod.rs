//! Puts the parts together and takes them apart in order.
//!
//! Up: listener, database, HTTP (not ready yet, and without the database), schema, first key, workers, webhooks, ready. Down: not ready, held requests
//! answered while running predictions are finished or handed back, webhooks under way delivered, HTTP closed, database
//! stopped. Nothing else in the program knows what starts when.

mod artifacts;
mod database;
mod first_key;
mod observing;
mod signals;
mod workers;

use std::{future::Future, path::PathBuf, pin::pin, time::Duration};

use anyhow::Context;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::{
    artifacts::open as open_artifacts,
    workers::{catalog, catalog_text, open_device},
};
use self::{database::Database, observing::Observing, signals::Shutdown};
use crate::{
    config::{self, Config},
    fetch::{self, Fetcher},
    http, hub,
    service::{PredictionService, Readiness, admission::Limits, files::UploadLimits, scrape::Scrape},
    store::{Audience, Store},
    webhook,
    worker::WorkerPool,
};

/// How often a start looks whether it has succeeded.
const LOOK: Duration = Duration::from_millis(20);
/// How long it takes at most to answer with what the last worker has finished.
const TO_ANSWER: Duration = Duration::from_secs(2);

/// What a started program can say of itself.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where to reach it; none for a process of workers alone.
    pub url: Option<String>,
    /// The file that holds the first API key, if there is one in this data folder.
    pub key_file: Option<PathBuf>,
    /// Which database, in words.
    pub database: String,
    /// Which model, in words.
    pub model: String,
}

/// Runs the API, and workers beside it, until a signal or until something it cannot do without is lost.
pub async fn serve(config: &Config, hub: &hub::Environment, on_ready: impl FnOnce(&Ready)) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen()?;
    let plan = workers::plan(config, hub)?;
    let model = plan.in_words.clone();
    let settings = http_settings(config)?;
    let listener =
        http::listen(config.server.listen).with_context(|| format!("could not listen on {}", config.server.listen))?;
    let address = listener.local_addr()?;
    let url = config.server.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
    let artifacts = artifacts::open_checked(config).await?;
    let database = Database::open(config).await?;
    let store = database.store();

    let (draining, closing) = (CancellationToken::new(), CancellationToken::new());
    let fetcher = Fetcher::new(fetch_settings(config)?)?;
    let service = PredictionService::new(
        store.clone(),
        artifacts.clone(),
        plan.catalog.clone(),
        fetcher.clone(),
        admission_limits(config),
        UploadLimits { keep: config.uploads.retention, quota: config.uploads.quota_bytes },
        draining.clone(),
    );
    let _observing = Observing::start(config, service.scrape())?;
    let server = tokio::spawn(http::serve(listener, service.clone(), settings, closing.clone()));
    let spreading = spread_changes(store, Audience::Clients);
    let has_workers = !plan.loads.is_empty();
    let (mut pool, mut delivering, catalog) = (None, None, plan.catalog.clone());
    let running = async {
        database::migrate(store).await?;
        first_key::ensure(config, store).await?;
        let pool = pool.insert(WorkerPool::start(store, &artifacts, &plan.settings, plan.loads)?);
        let (settings, retention) = (webhook_settings(config), config.webhooks.retention);
        let forgetting = webhook::keep_forgetting(store.clone(), retention);
        tokio::spawn(draining.clone().run_until_cancelled_owned(forgetting));
        delivering = Some(tokio::spawn(webhook::deliver(store.clone(), fetcher, catalog, settings, draining.clone())));
        unless_failed(pool, until_ready(&service, has_workers)).await?;
        on_ready(&Ready {
            url: Some(url),
            key_file: first_key::file(config),
            database: database.in_words(),
            model: model.clone(),
        });
        unless_failed(pool, std::future::pending()).await
    };
    let outcome = until_told(running, &database, &mut shutdown).await;

    // Not ready from here on. Who waits is answered with what there is, and who cannot come back when it is done.
    let (patience, drained) = (config.server.shutdown, CancellationToken::new());
    let workers = async {
        if let Some(pool) = pool {
            pool.drain(store, patience).await;
        }
        drained.cancel();
    };
    let results_may_come = async {
        match outcome {
            // What has failed, a private database above all, has none.
            Err(_) => {}
            Ok(()) if database.is_private() => {
                drained.cancelled().await;
                tokio::time::sleep(TO_ANSWER).await;
            }
            // Workers elsewhere draw as well.
            Ok(()) => tokio::time::sleep(patience).await,
        }
    };
    tokio::join!(service.drain(results_may_come), workers);
    if let Some(delivering) = delivering {
        // Takes no longer than one attempt, and has had the time of the workers' drain for it.
        delivering.await.context("the delivery of webhooks panicked")?;
    }
    closing.cancel();
    server.await.context("the HTTP server panicked")?;
    spreading.abort();
    database.close().await;
    outcome
}

/// Runs workers alone, against a database that others serve.
pub async fn work(config: &Config, hub: &hub::Environment, on_ready: impl FnOnce(&Ready)) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen()?;
    let mut plan = workers::plan(config, hub)?;
    // A machine that was told of the database and the bucket alone must not delete what servers keep for longer.
    plan.settings.retention = None;
    let model = plan.in_words.clone();
    anyhow::ensure!(!plan.loads.is_empty(), "a worker process without workers has nothing to do: worker.count is 0");
    let artifacts = artifacts::open_checked(config).await?;
    let database = Database::join(config)?;
    let store = database.store();
    let _observing = Observing::start(config, Scrape::new(store.clone()))?;
    let spreading = spread_changes(store, Audience::Workers);
    let mut pool = None;
    let running = async {
        database::migrate(store).await?;
        // No first key: it is a server's to make, and would lie on a machine where nobody looks for it.
        let pool = pool.insert(WorkerPool::start(store, &artifacts, &plan.settings, plan.loads)?);
        let ready = pool.ready();
        unless_failed(pool, ready).await?;
        on_ready(&Ready { url: None, key_file: None, database: database.in_words(), model: model.clone() });
        unless_failed(pool, std::future::pending()).await
    };
    let outcome = until_told(running, &database, &mut shutdown).await;
    if let Some(pool) = pool {
        pool.drain(store, config.server.shutdown).await;
    }
    spreading.abort();
    database.close().await;
    outcome
}

/// Waits until a prediction made now would be run; for an API without workers, until the database answers.
async fn until_ready(service: &PredictionService, has_workers: bool) {
    loop {
        let Readiness { ready, phase, .. } = service.readiness().await;
        if ready || (!has_workers && phase != "database") {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn unless_failed(pool: &mut WorkerPool, wanted: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        () = wanted => Ok(()),
        error = pool.failed() => Err(error),
    }
}

/// Runs until it ends, a signal comes, or the private database is lost.
async fn until_told(
    running: impl Future<Output = anyhow::Result<()>>,
    database: &Database,
    shutdown: &mut Shutdown,
) -> anyhow::Result<()> {
    let running = pin!(running);
    tokio::select! {
        ended = running => ended,
        signal = shutdown.received() => {
            tracing::info!("Received {signal}; shutting down");
            Ok(())
        }
        lost = database.lost() => Err(lost),
    }
}

fn spread_changes(store: &Store, audience: Audience) -> JoinHandle<()> {
    let store = store.clone();
    tokio::spawn(async move { store.spread_changes(audience).await })
}

fn fetch_settings(config: &Config) -> anyhow::Result<fetch::Settings> {
    let network = |text: &String| text.parse().with_context(|| format!("fetch.allowed_networks: {text:?}"));
    Ok(fetch::Settings {
        allowed_networks: config.fetch.allowed_networks.iter().map(network).collect::<anyhow::Result<_>>()?,
        timeout: config.fetch.timeout,
    })
}

fn admission_limits(config: &Config) -> Limits {
    let config::Admission { creates_per_minute, requests_per_minute, max_held, max_queued, max_wait_seconds } =
        config.admission;
    let max_wait = Duration::from_secs(max_wait_seconds.into());
    Limits { creates_per_minute, requests_per_minute, max_held, max_queued, max_wait }
}

fn webhook_settings(config: &Config) -> webhook::Settings {
    webhook::Settings {
        timeout: config.webhooks.timeout,
        per_receiver: config.webhooks.per_receiver,
        per_account: config.webhooks.per_account,
        poll: config.queue.poll,
        schedule: webhook::Schedule::default(),
    }
}

fn http_settings(config: &Config) -> anyhow::Result<http::Settings> {
    let public_url = config.server.public_url.as_deref().map(str::parse).transpose().context("server.public_url")?;
    Ok(http::Settings {
        public_url,
        max_connections: config.server.max_connections,
        header_timeout: config.server.header_timeout,
        send_timeout: config.server.send_timeout,
        event_stream: config.server.event_stream,
        openai_hold: config.server.openai_hold,
        body_limit: config.server.body_limit_bytes,
        bodies_limit: config.server.bodies_limit_bytes,
    })
}
