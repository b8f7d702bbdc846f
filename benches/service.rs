//! What the service itself costs: a real server with the mock predictor at 0 ms a step, driven over HTTP from this
//! process on the same machine.
//!
//! Throughput is measured twice: for an account without limits, and with everything on that keeps books: a prepaid
//! account, whose balance every prediction holds from and is settled with, a key with a daily budget, and a webhook
//! each, delivered to a receiver in this process. The audit has the last word.
//!
//! `cargo bench --bench service` prints one table; `FOURSTEP_PROGRAM` names another program to measure. Times are taken
//! from the rows' own timestamps, which are the start of the writing transaction, so each figure includes the commit
//! before it. `benches/README.md` keeps results.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::{Router, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

/// Predictions made one after the other to measure latency.
const ALONE: usize = 500;
/// Clients that create and wait without a pause, and how many predictions they make together.
const CLIENTS: usize = 64;
const TOGETHER: usize = 6000;
const WORKERS: &str = "4";

#[derive(Deserialize)]
struct Prediction {
    id: String,
    status: String,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
}

/// `FOURSTEP_PROGRAM`, to measure another version by the same clients, or the program that was just built.
fn program() -> String {
    std::env::var("FOURSTEP_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fourstep").to_owned())
}

/// A server on a data folder of its own, both gone when dropped.
struct Server {
    process: Child,
    folder: PathBuf,
    url: String,
    key: String,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("fourstep-bench-{}", uuid::Uuid::new_v4()));
        let mut process = Command::new(program())
            .args(["serve", "--listen", "127.0.0.1:0", "--predictor", "mock", "--workers", WORKERS, "--data-dir"])
            .arg(&folder)
            .env("FOURSTEP_MOCK_STEP_MS", "0")
            // What is measured is not how fast it refuses.
            .env("FOURSTEP_ADMISSION__CREATES_PER_MINUTE", "0")
            .env("FOURSTEP_ADMISSION__REQUESTS_PER_MINUTE", "0")
            // Where the webhooks lead.
            .env("FOURSTEP_FETCH__ALLOWED_NETWORKS", "127.0.0.1/32")
            .env("RUST_LOG", "warn")
            .env_remove("DATABASE_URL")
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the server")?;
        let stdout = process.stdout.take().context("piped above")?;
        let url = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned))
            .context("the server ended before it was ready")?;
        let key = std::fs::read_to_string(folder.join("key")).context("could not read the first key")?;
        Ok(Self { process, folder, url: url.trim_end_matches('/').to_owned(), key: key.trim().to_owned() })
    }

    /// Fails unless the books add up.
    fn audit(&self) -> anyhow::Result<()> {
        let program = |arguments: &[&str]| {
            let mut command = Command::new(program());
            command.args(arguments).arg("--data-dir").arg(&self.folder);
            command
        };
        let url = program(&["db", "url"]).env_remove("DATABASE_URL").output()?;
        let audit = program(&["audit"]).env("DATABASE_URL", String::from_utf8(url.stdout)?.trim()).output()?;
        ensure!(audit.status.success(), "the books do not add up: {}", String::from_utf8_lossy(&audit.stdout));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        // It may have ended by itself; then there is nothing to stop and little to tidy.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[derive(Clone)]
struct Client {
    http: reqwest::Client,
    url: String,
    key: String,
    webhook: Option<String>,
}

impl Client {
    /// The same, of an account and with a key that both have limits, told of every end.
    async fn limited(&self, webhook: String) -> anyhow::Result<Self> {
        let send = async |path: &str, body: Value| -> anyhow::Result<reqwest::Response> {
            let request = self.http.post(format!("{}/admin/{path}", self.url)).bearer_auth(&self.key).json(&body);
            Ok(request.send().await?.error_for_status()?)
        };
        send("accounts", json!({"name": "payer", "mode": "prepaid"})).await?;
        send("accounts/payer/credits", json!({"amount": "100000"})).await?;
        let key = json!({"name": "payer", "account": "payer", "budget": "100000", "budget_period": "day"});
        let made: Value = send("keys", key).await?.json().await?;
        let key = made["secret"].as_str().context("a new key is shown")?.to_owned();
        Ok(Self { key, webhook: Some(webhook), ..self.clone() })
    }

    /// Predictions a second, made by clients that create and wait without a pause.
    async fn together(&self) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let left = Arc::new(AtomicUsize::new(TOGETHER));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, left) = (self.clone(), Arc::clone(&left));
            clients.spawn(async move {
                while left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let done = client.create(true).await?;
                    ensure!(done.status == "succeeded", "prediction {} is {}", done.id, done.status);
                }
                Ok(())
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(TOGETHER as f64 / begun.elapsed().as_secs_f64())
    }

    /// Creates a prediction and, with `wait`, holds the request until it is done.
    async fn create(&self, wait: bool) -> anyhow::Result<Prediction> {
        let query = if wait { "?wait=60" } else { "" };
        let mut body = json!({"input": {"prompt": "a lighthouse", "width": 256, "height": 256}});
        if let Some(webhook) = &self.webhook {
            body["webhook"] = json!(webhook);
        }
        let request = self.http.post(format!("{}/predictions{query}", self.url)).bearer_auth(&self.key).json(&body);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    async fn wait_for(&self, id: &str) -> anyhow::Result<Prediction> {
        let request = self.http.get(format!("{}/predictions/{id}?wait=60", self.url)).bearer_auth(&self.key);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }
}

#[tokio::main(worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let server = Server::start()?;
    let http = reqwest::Client::new();
    let client = Client { http, url: server.url.clone(), key: server.key.clone(), webhook: None };
    for _ in 0..50 {
        client.create(true).await?;
    }

    let (mut reached, mut picked_up) = (Vec::new(), Vec::new());
    let (mut answered, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..ALONE {
        let (begun, sent) = (Instant::now(), Utc::now());
        let id = client.create(false).await?.id;
        let done = client.wait_for(&id).await?;
        let now = Utc::now();
        whole.push(begun.elapsed());
        ensure!(done.status == "succeeded", "prediction {id} is {}", done.status);
        let started = done.started_at.context("it was started")?;
        reached.push((started - sent).to_std()?);
        picked_up.push((started - done.created_at).to_std()?);
        // A long poll that begins after the end is answered at once: it measures reading, not waking.
        answered.push((now - done.completed_at.context("it is done")?).to_std()?);
    }

    let unlimited = client.together().await?;
    let told = Arc::new(AtomicUsize::new(0));
    let limited = client.limited(receive_webhooks(Arc::clone(&told)).await?).await?.together().await?;
    let told = told.load(Relaxed);
    server.audit()?;

    println!("mock predictor at 0 ms, 256 x 256 PNG, {WORKERS} workers, private Postgres with fsync\n");
    println!("| one at a time, {ALONE} predictions | p50 | p95 | p99 |");
    println!("|---|---|---|---|");
    print_row("POST sent → a worker claims it", &mut reached);
    print_row("created → a worker has it", &mut picked_up);
    print_row("completed → long poll answered", &mut answered);
    print_row("POST and long poll, whole", &mut whole);
    println!("\n{CLIENTS} clients, {TOGETHER} predictions: {unlimited:.0} predictions/s");
    println!("with balance, budget and webhooks, {told} of them told by the end: {limited:.0} predictions/s");
    println!("the books add up");
    Ok(())
}

/// Starts a receiver that counts what it is told, and returns its URL.
async fn receive_webhooks(told: Arc<AtomicUsize>) -> anyhow::Result<String> {
    let routes = Router::new().fallback(async move || {
        told.fetch_add(1, Relaxed);
        StatusCode::NO_CONTENT
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(url)
}

fn print_row(name: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("| {name} | {:.2} ms | {:.2} ms | {:.2} ms |", at(0.5), at(0.95), at(0.99));
}
