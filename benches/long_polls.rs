//! Ten thousand clients that wait at once, each on a connection of its own for a prediction of its own; and all of them
//! for one. What they cost the server in memory and in connections to the database while they wait, and how soon each
//! is told when its prediction has ended.
//!
//! `cargo bench --bench long_polls` prints the figures, and fails if one is over its target. `FOURSTEP_PROGRAM` names a
//! program to measure instead of the one that was just built. `benches/README.md` keeps results.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const CLIENTS: usize = 10_000;
/// Clients that create.
const CREATING: usize = 32;
/// A file for each client, and some.
const FILES: u64 = 12_000;
const MOST_MEMORY_MB: f64 = 250.0;
const MOST_CONNECTIONS: i64 = 20;
const LATEST: Duration = Duration::from_millis(500);

/// A running program. Gone when dropped.
struct Process {
    child: Child,
    ready: String,
}

impl Process {
    fn start(arguments: &[&str], folder: &PathBuf, variables: &[(&str, &str)], ready: &str) -> anyhow::Result<Self> {
        let program = std::env::var("FOURSTEP_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fourstep").to_owned());
        let mut child = Command::new(program)
            .args(arguments)
            .args(["--predictor", "mock", "--data-dir"])
            .arg(folder)
            .env_remove("DATABASE_URL")
            .env("RUST_LOG", "warn")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped above")?).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.contains(ready)).context("it ended before it was ready")?;
        Ok(Self { child, ready })
    }

    /// Memory it has now and the most it had, megabytes.
    fn memory(&self) -> anyhow::Result<[f64; 2]> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
            let kib: f64 = line.trim_end_matches("kB").trim().parse()?;
            Ok(kib * 1024.0 / 1e6)
        };
        Ok([of("VmRSS:")?, of("VmHWM:")?])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // So that it ends its database, too.
        let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Where to ask, and with which key.
#[derive(Clone)]
struct Place {
    address: String,
    key: String,
}

impl Place {
    /// Asks on a connection of its own, and returns the whole answer.
    async fn ask(&self, method: &str, path: &str, body: &str, sent: Option<&AtomicUsize>) -> anyhow::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            self.key,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        sent.map(|sent| sent.fetch_add(1, SeqCst));
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    }

    async fn create(&self) -> anyhow::Result<String> {
        let body = json!({"input": {"prompt": "x", "width": 256, "height": 256}}).to_string();
        let (status, created) = read(self.ask("POST", "/predictions", &body, None).await?)?;
        ensure!(status == 202, "{status}: {created}");
        Ok(created["id"].as_str().context("no id")?.to_owned())
    }

    /// What the client of a prediction is told of its end, and when. Nobody reads it before all have been told: clients
    /// do that elsewhere, and here it would take the server's time.
    async fn wait(&self, id: &str, sent: &AtomicUsize) -> anyhow::Result<Told> {
        let answer = self.ask("GET", &format!("/predictions/{id}?wait=60"), "", Some(sent)).await?;
        Ok(Told { at: Utc::now(), answer })
    }
}

/// An answer that was waited for.
struct Told {
    at: DateTime<Utc>,
    answer: Vec<u8>,
}

impl Told {
    /// How long after the prediction's end it came.
    fn late(self) -> anyhow::Result<Duration> {
        let (status, prediction) = read(self.answer)?;
        ensure!(status == 200 && prediction["status"] == "succeeded", "{status}: {prediction}");
        let ended: DateTime<Utc> = prediction["completed_at"].as_str().context("no end")?.parse()?;
        Ok((self.at - ended).to_std().unwrap_or_default())
    }
}

/// The status and the body of an answer.
fn read(answer: Vec<u8>) -> anyhow::Result<(u16, Value)> {
    let text = String::from_utf8(answer)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, serde_json::from_str(body).with_context(|| text.clone())?))
}

/// What came of it.
struct Waited {
    /// How late each was told, in order.
    late: Vec<Duration>,
    /// Memory of the server while they waited, megabytes.
    memory: f64,
    /// And its connections to the database.
    connections: i64,
}

impl Waited {
    /// Whether every target was held.
    fn judge(&self, what: &str) -> anyhow::Result<()> {
        let last = self.late[CLIENTS - 1];
        ensure!(self.memory < MOST_MEMORY_MB, "{what}: {:.0} MB", self.memory);
        ensure!(self.connections <= MOST_CONNECTIONS, "{what}: {} connections to the database", self.connections);
        ensure!(last <= LATEST, "{what}: the last was told after {last:?}");
        Ok(())
    }
}

/// Everybody waits for what `ids` name, in turn; then `go` lets it be done.
async fn wait_for(
    place: &Place,
    server: &Process,
    database: &mut PgConnection,
    ids: &[String],
    go: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Waited> {
    let (sent, mut clients) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for number in 0..CLIENTS {
        let (place, id, sent) = (place.clone(), ids[number % ids.len()].clone(), Arc::clone(&sent));
        clients.spawn(async move { place.wait(&id, &sent).await });
        if number % 200 == 199 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    while sent.load(SeqCst) < CLIENTS {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // For the last to be heard.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let [memory, _] = server.memory()?;
    let of_the_server = "select count(*) from pg_stat_activity where application_name = 'fourstep'";
    let connections: i64 = sqlx::query_scalar(of_the_server).fetch_one(database).await?;
    println!("{CLIENTS} wait: {memory:.0} MB, {connections} connections to the database");
    go().await?;
    let mut told = Vec::with_capacity(CLIENTS);
    while let Some(one) = clients.join_next().await {
        told.push(one??);
    }
    let mut late = told.into_iter().map(Told::late).collect::<anyhow::Result<Vec<_>>>()?;
    late.sort();
    let [now, most] = server.memory()?;
    let (p50, p99, last) = (late[CLIENTS / 2], late[CLIENTS * 99 / 100], late[CLIENTS - 1]);
    println!(
        "told after the end: p50 {p50:.1?}, p99 {p99:.1?}, the last {last:.1?}; {now:.0} MB now, {most:.0} MB at most"
    );
    Ok(Waited { late, memory, connections })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ensure!(hard >= FILES, "only {hard} files may be open");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(FILES), hard)?;
    let folder = std::env::temp_dir().join(format!("fourstep-bench-{}", uuid::Uuid::new_v4()));
    let unlimited = [("FOURSTEP_ADMISSION__MAX_QUEUED", "0"), ("FOURSTEP_ADMISSION__REQUESTS_PER_MINUTE", "0")];
    let server =
        Process::start(&["serve", "--listen", "127.0.0.1:0", "--workers", "0"], &folder, &unlimited, "http://")?;
    let url = server.ready.split_whitespace().find(|word| word.starts_with("http://")).context("no URL")?;
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let place = Place { address, key: fs::read_to_string(folder.join("key"))?.trim().to_owned() };
    let database_url = fourstep::postgres::running_url(&folder)?;
    let mut database = PgConnection::connect(&database_url).await?;
    println!("nobody waits: {:.0} MB", server.memory()?[0]);

    let mut creating = JoinSet::new();
    for _ in 0..CREATING {
        let place = place.clone();
        creating.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..CLIENTS.div_ceil(CREATING) {
                ids.push(place.create().await?);
            }
            anyhow::Ok(ids)
        });
    }
    let mut ids = Vec::new();
    while let Some(created) = creating.join_next().await {
        ids.extend(created??);
    }
    println!("each for its own:");
    let mut workers = None;
    let start_workers = || {
        let variables =
            [("DATABASE_URL", database_url.as_str()), ("FOURSTEP_MOCK_STEP_MS", "0"), ("FOURSTEP_WORKER__COUNT", "2")];
        Process::start(&["worker"], &folder, &variables, "ready")
    };
    let own = wait_for(&place, &server, &mut database, &ids[..CLIENTS], async || {
        workers = Some(start_workers()?);
        Ok(())
    })
    .await?;
    while sqlx::query_scalar::<_, i64>("select count(*) from predictions where completed_at is null")
        .fetch_one(&mut database)
        .await?
        > 0
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(workers.take());
    println!("all for one:");
    let id = place.create().await?;
    let one = wait_for(&place, &server, &mut database, &[id], async || {
        workers = Some(start_workers()?);
        Ok(())
    })
    .await?;
    drop((workers, database, server));
    let _ = fs::remove_dir_all(folder);
    own.judge("each for its own")?;
    one.judge("all for one")
}
