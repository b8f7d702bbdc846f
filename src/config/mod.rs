//! The configuration: read once at the start, checked as a whole, and passed on as these structs.
//!
//! `config/default.toml` is the manual and the defaults; `layers` puts the file, the environment and the flags on top.
//! No option of `config/default.toml` is read anywhere else. What the environment says to every program (`PATH`,
//! `RUST_LOG`, `NO_COLOR`, `OTEL_…`) is read where it is used, and `FOURSTEP_MAX_CPU`, for tests, in `pipeline::ops`.
//! Durations carry their unit in the key and are `Duration` here.

mod fields;
mod layers;
mod secret;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

pub use layers::{Error, Layers, Override, Setting};
pub use secret::Secret;
pub use worker::{DeviceChoice, DtypeChoice, PredictorKind, Quantization, UnknownChoice, WorkerCount};

/// Everything that can be set. The keys are those of `config/default.toml`, which says what each means.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the sections are described in config/default.toml")]
pub struct Config {
    pub data: Data,
    pub server: Server,
    pub database: Database,
    pub queue: Queue,
    pub admission: Admission,
    pub worker: Worker,
    pub fetch: Fetch,
    pub webhooks: Webhooks,
    pub artifacts: Artifacts,
    pub uploads: Uploads,
    pub metrics: Metrics,
    pub traces: Traces,
    pub log: Log,
    pub models: Models,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// An absolute path.
    pub dir: PathBuf,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Server {
    #[serde(deserialize_with = "fields::address")]
    pub listen: SocketAddr,
    /// Without a slash at its end.
    #[serde(deserialize_with = "fields::optional")]
    pub public_url: Option<String>,
    pub max_connections: usize,
    #[serde(rename = "header_timeout_seconds", deserialize_with = "fields::seconds")]
    pub header_timeout: Duration,
    #[serde(rename = "send_timeout_seconds", deserialize_with = "fields::seconds")]
    pub send_timeout: Duration,
    #[serde(rename = "event_stream_seconds", deserialize_with = "fields::seconds")]
    pub event_stream: Duration,
    #[serde(rename = "openai_hold_seconds", deserialize_with = "fields::seconds")]
    pub openai_hold: Duration,
    pub body_limit_bytes: usize,
    pub bodies_limit_bytes: usize,
    #[serde(rename = "shutdown_seconds", deserialize_with = "fields::seconds")]
    pub shutdown: Duration,
}

/// `[database]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Database {
    #[serde(deserialize_with = "fields::optional")]
    pub url: Option<Secret>,
    pub pool_size: u32,
    #[serde(rename = "acquire_timeout_seconds", deserialize_with = "fields::seconds")]
    pub acquire_timeout: Duration,
    #[serde(rename = "statement_timeout_seconds", deserialize_with = "fields::seconds")]
    pub statement_timeout: Duration,
}

/// `[queue]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Queue {
    #[serde(rename = "lease_seconds", deserialize_with = "fields::seconds")]
    pub lease: Duration,
    #[serde(rename = "renew_seconds", deserialize_with = "fields::seconds")]
    pub renew: Duration,
    #[serde(rename = "sweep_seconds", deserialize_with = "fields::seconds")]
    pub sweep: Duration,
    #[serde(rename = "poll_seconds", deserialize_with = "fields::seconds")]
    pub poll: Duration,
    pub max_losses: i16,
    #[serde(rename = "retention_hours", deserialize_with = "fields::hours")]
    pub retention: Duration,
}

/// `[admission]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Admission {
    pub creates_per_minute: u32,
    pub requests_per_minute: u32,
    pub max_held: u32,
    pub max_queued: u32,
    pub max_wait_seconds: u32,
}

/// `[worker]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Worker {
    pub count: WorkerCount,
    pub predictor: PredictorKind,
    #[serde(rename = "mock_step_ms", deserialize_with = "fields::milliseconds")]
    pub mock_step: Duration,
    #[serde(deserialize_with = "fields::optional")]
    pub weights: Option<PathBuf>,
    pub require_weights: bool,
    #[serde(deserialize_with = "fields::optional")]
    pub unet: Option<PathBuf>,
    #[serde(deserialize_with = "fields::list")]
    pub loras: Vec<String>,
    pub device: DeviceChoice,
    pub dtype: DtypeChoice,
    pub quantize: Quantization,
    pub low_memory: bool,
    pub cuda_graphs: bool,
    pub vae_tile: usize,
    pub max_batch: usize,
    #[serde(deserialize_with = "fields::list")]
    pub models: Vec<String>,
}

/// `[fetch]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Fetch {
    #[serde(deserialize_with = "fields::list")]
    pub allowed_networks: Vec<String>,
    #[serde(rename = "timeout_seconds", deserialize_with = "fields::seconds")]
    pub timeout: Duration,
}

/// `[webhooks]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Webhooks {
    #[serde(rename = "timeout_seconds", deserialize_with = "fields::seconds")]
    pub timeout: Duration,
    pub per_receiver: u32,
    pub per_account: u32,
    #[serde(rename = "retention_hours", deserialize_with = "fields::hours")]
    pub retention: Duration,
    #[serde(deserialize_with = "fields::optional")]
    pub key: Option<Secret>,
}

/// `[artifacts]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Artifacts {
    #[serde(deserialize_with = "fields::optional")]
    pub folder: Option<PathBuf>,
    pub fsync: bool,
    #[serde(deserialize_with = "fields::optional")]
    pub url: Option<String>,
    #[serde(deserialize_with = "fields::optional")]
    pub endpoint: Option<String>,
    pub region: String,
    #[serde(deserialize_with = "fields::optional")]
    pub access_key_id: Option<String>,
    #[serde(deserialize_with = "fields::optional")]
    pub secret_access_key: Option<Secret>,
    #[serde(deserialize_with = "fields::optional")]
    pub session_token: Option<Secret>,
}

/// `[uploads]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Uploads {
    #[serde(rename = "retention_hours", deserialize_with = "fields::hours")]
    pub retention: Duration,
    pub quota_bytes: u64,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Metrics {
    #[serde(deserialize_with = "fields::optional_address")]
    pub listen: Option<SocketAddr>,
}

/// `[traces]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Traces {
    #[serde(deserialize_with = "fields::optional")]
    pub endpoint: Option<String>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Log {
    #[serde(deserialize_with = "fields::optional")]
    pub level: Option<String>,
    #[serde(deserialize_with = "fields::optional")]
    pub file: Option<PathBuf>,
}

/// `[models]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the keys are described in config/default.toml")]
pub struct Models {
    #[serde(deserialize_with = "fields::optional")]
    pub catalog: Option<PathBuf>,
}

impl Config {
    /// Reads and checks the whole configuration: the defaults, under `file`, under `environment`, under `overrides`.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: impl IntoIterator<Item = Override>,
    ) -> Result<Self, Error> {
        Layers::read(file, environment, overrides)?.resolve()
    }

    /// The folder where outputs are kept.
    pub fn artifacts_folder(&self) -> PathBuf {
        self.artifacts.folder.clone().unwrap_or_else(|| self.data.dir.join("artifacts"))
    }

    /// The bucket where outputs are kept instead of a folder, if there is one: its name, and what its keys begin with.
    pub fn bucket(&self) -> Option<(&str, &str)> {
        self.artifacts.url.as_deref().and_then(bucket_of)
    }

    /// The rules between options and the ranges no type can hold. Returns the key and what it must be.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let rule =
            |holds: bool, key: &'static str, must: &str| if holds { Ok(()) } else { Err((key, must.to_owned())) };
        let is_http = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let is_postgres = |url: &str| url.starts_with("postgres://") || url.starts_with("postgresql://");

        rule(
            self.server.public_url.as_deref().is_none_or(is_http),
            "server.public_url",
            "must begin with http:// or https://",
        )?;
        rule(self.server.max_connections > 0, "server.max_connections", "must be at least 1")?;
        rule(
            self.server.body_limit_bytes >= 1024,
            "server.body_limit_bytes",
            "must be at least 1024, or no prompt would fit",
        )?;
        rule(
            self.server.bodies_limit_bytes >= self.server.body_limit_bytes,
            "server.bodies_limit_bytes",
            "must be at least server.body_limit_bytes",
        )?;
        rule(
            self.database.url.as_ref().is_none_or(|url| is_postgres(url.expose())),
            "database.url",
            "must begin with postgres:// or postgresql://",
        )?;
        rule(self.database.pool_size > 0, "database.pool_size", "must be at least 1")?;
        rule(
            self.queue.lease > self.queue.renew * 2,
            "queue.lease_seconds",
            "must be more than twice queue.renew_seconds, so that one renewal may fail and the next still be in time",
        )?;
        rule(
            self.artifacts.url.as_deref().is_none_or(|url| bucket_of(url).is_some()),
            "artifacts.url",
            "must be like s3://bucket or s3://bucket/prefix",
        )?;
        rule(
            self.artifacts.url.is_none() || self.artifacts.folder.is_none(),
            "artifacts.url",
            "and artifacts.folder are both set; keep one",
        )?;
        rule(
            self.artifacts.url.is_none() || self.artifacts.endpoint.as_deref().is_none_or(is_http),
            "artifacts.endpoint",
            "must begin with http:// or https://",
        )?;
        rule(
            self.artifacts.url.is_none()
                || self.artifacts.access_key_id.is_some() == self.artifacts.secret_access_key.is_some(),
            "artifacts.access_key_id",
            "and artifacts.secret_access_key go together; one of them is not set",
        )?;
        rule(self.webhooks.per_receiver > 0, "webhooks.per_receiver", "must be at least 1")?;
        rule(self.webhooks.per_account > 0, "webhooks.per_account", "must be at least 1")?;
        rule(
            self.webhooks.key.as_ref().is_none_or(|key| key.expose().len() >= 32),
            "webhooks.key",
            "must have at least 32 characters, as `openssl rand -base64 32` makes them",
        )?;
        rule(
            self.traces.endpoint.as_deref().is_none_or(is_http),
            "traces.endpoint",
            "must begin with http:// or https://",
        )?;
        rule(self.queue.max_losses > 0, "queue.max_losses", "must be at least 1")?;
        rule(
            self.worker.unet.is_none() || self.worker.weights.is_some(),
            "worker.unet",
            "replaces the UNet of worker.weights, which is not set",
        )?;
        rule(self.worker.vae_tile.is_multiple_of(32), "worker.vae_tile", "must be a multiple of 32, or 0")?;
        rule((1..=8).contains(&self.worker.max_batch), "worker.max_batch", "must be from 1 to 8")
    }
}

/// `s3://bucket/prefix`.
fn bucket_of(url: &str) -> Option<(&str, &str)> {
    let place = url.strip_prefix("s3://")?.trim_end_matches('/');
    let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_usable = !name.is_empty() && name.bytes().all(is_name) && !prefix.split('/').skip(1).any(str::is_empty);
    (is_usable && !prefix.contains(['?', '#'])).then_some((name, prefix))
}
