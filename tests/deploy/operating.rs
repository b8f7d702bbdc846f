//! What `docs/operations.md` tells an operator to do, done.

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::{
    process::{Client, Program, TestFolder, url_of},
    text,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fourstep");

/// The commands after a mark in the document.
fn commands(mark: &str) -> String {
    let document = text("docs/operations.md");
    let (_, rest) = document.split_once(&format!("<!-- {mark} -->\n```sh\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs commands in a folder, with our program and Postgres's own at hand.
fn shell(commands: &str, folder: &Path, database_url: Option<&str>) {
    let postgres = fourstep::postgres::binaries::find().unwrap();
    let ours = Path::new(PROGRAM).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{path}", ours.display(), postgres.directory().display());
    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", commands]).current_dir(folder).env("PATH", path).env_remove("DATABASE_URL");
    if let Some(url) = database_url {
        shell.env("DATABASE_URL", url);
    }
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{commands}\n{}", String::from_utf8_lossy(&output.stderr));
}

async fn picture(client: &Client, url: &str, id: &str) -> Vec<u8> {
    let output = client.terminal(id).await["output"][0].as_str().unwrap().to_owned();
    let path = &output[output.find("/files/").unwrap()..];
    let response = reqwest::get(format!("{url}{path}")).await.unwrap().error_for_status().unwrap();
    response.bytes().await.unwrap().to_vec()
}

/// Makes a prediction on one server, backs it up, restores it into another, and finds it there, with its picture, by
/// its key.
async fn survives(from: Option<&str>, to: Option<&str>) {
    let folder = TestFolder::new();
    let (data, restored) = (folder.0.join("data"), folder.0.join("restored"));
    let server = Program::serve(&data, from, &[]);
    let client = Client::of(&server, &data);
    let id = client.create().await.unwrap();
    let before = client.terminal(&id).await;
    assert_eq!(before["status"], "succeeded");
    let made = picture(&client, &server.url, &id).await;
    shell(&commands("reindex"), &folder.0, from);
    shell(&commands("back up"), &folder.0, from);
    stop(server).await;

    let server = Program::serve(&restored, to, &["--workers", "0"]);
    shell(&commands("restore"), &folder.0, to);
    stop(server).await;
    let server = Program::serve(&restored, to, &[]);
    let client = Client::of(&server, &restored);
    let after = client.terminal(&id).await;
    for field in ["status", "input", "metrics", "created_at", "completed_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(picture(&client, &server.url, &id).await == made);
    // It is a server as any other.
    let next = client.create().await.unwrap();
    assert_eq!(client.terminal(&next).await["status"], "succeeded");
    stop(server).await;
}

/// Ends a server as a supervisor does, and with it its private Postgres.
async fn stop(mut server: Program) {
    server.signal(Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(60)).await.success());
}

#[sqlx::test]
async fn a_backup_of_ones_own_postgres_is_restored_as_documented(pool: PgPool) {
    let name = format!("restored_{}", uuid::Uuid::new_v4().simple());
    sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&pool).await.unwrap();
    // Without what only sqlx knows: `pg_dump` reads this URL, too.
    let from = url_of(&pool).split('?').next().unwrap().to_owned();
    let database = pool.connect_options().get_database().unwrap().to_owned();
    let to = from.replacen(&format!("/{database}"), &format!("/{name}"), 1);
    survives(Some(&from), Some(&to)).await;
    sqlx::query(AssertSqlSafe(format!("drop database {name} with (force)"))).execute(&pool).await.unwrap();
}

#[tokio::test]
async fn a_backup_of_the_private_postgres_is_restored_as_documented() {
    survives(None, None).await;
}

fn fourstep(arguments: &[&str], folder: &Path, database_url: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("--data-dir").arg(folder).env("DATABASE_URL", database_url).env_remove("RUST_LOG");
    command.output().unwrap()
}

#[sqlx::test]
async fn health_is_what_the_server_says_of_itself(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let health = |more: &[&str]| fourstep(&[&["health", "--listen", &address], more].concat(), &folder.0, &url);
    // Nobody would run a prediction.
    let unready = health(&[]);
    assert_eq!(unready.status.code(), Some(1), "{unready:?}");
    assert!(String::from_utf8_lossy(&unready.stdout).contains("\"ready\":false"), "{unready:?}");
    assert!(health(&["--live"]).status.success());

    let worker = Program::worker(&folder.0, &url, 1);
    // It may tell for a moment what it has just seen.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !health(&[]).status.success() {
        assert!(Instant::now() < deadline, "there is a worker, and the server does not see it");
    }
    drop((worker, server));
    let gone = health(&["--live"]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no server answers at http://"), "{gone:?}");
}

#[sqlx::test]
async fn workers_are_listed_with_their_machine_models_and_speed(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    let _worker = Program::worker(&folder.0, &url, 20);
    let list = || String::from_utf8(fourstep(&["workers", "list"], &folder.0, &url).stdout).unwrap();
    let text = list();
    let row = text.lines().find(|line| line.contains("sdxl-lightning-4step")).unwrap_or_else(|| panic!("{text}"));
    // What it uses, and not how that was chosen.
    assert!(row.contains("ready") && row.contains(" cpu ") && !text.contains("auto"), "{text}");

    let client = Client::of(&server, &folder.0);
    let id = client.create().await.unwrap();
    assert_eq!(client.terminal(&id).await["status"], "succeeded");
    // Four steps of 20 ms, and what it takes to draw: there as soon as the picture is, and not from the next beat on.
    let speed: Option<i64> = sqlx::query_scalar("select picture_us from workers").fetch_one(&pool).await.unwrap();
    let speed = speed.expect("told before the picture");
    assert!(speed >= 80_000, "{speed}");
    let shown = format!("{:.3} s", speed as f64 / 1e6);
    let text = list();
    assert!(text.contains(&shown), "{shown} in {text}");
}

/// Whether a process may have large pages, as far as the kernel says so.
fn has_large_pages(process: u32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).map(|value| value.trim() == "1")
}

#[tokio::test]
async fn a_server_without_workers_keeps_to_small_pages_and_its_postgres_has_what_the_system_gives() {
    let folder = TestFolder::new();
    let server = Program::serve(&folder.0, None, &["--workers", "0"]);
    let url = fourstep::postgres::running_url(&folder.0).unwrap();
    let mut session = PgConnection::connect(&url).await.unwrap();
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut session).await.unwrap();
    let ours = has_large_pages(std::process::id());
    assert_eq!(has_large_pages(server.process.id()), ours.map(|_| false));
    assert_eq!(has_large_pages(backend.unsigned_abs()), ours);
    stop(server).await;
}

/// Creates a small prediction of a model.
async fn create_of(client: &Client, url: &str, model: &str) -> String {
    let body = serde_json::json!({"model": model, "input": {"prompt": "a cat", "width": 256, "height": 256}});
    let request = client.http.post(format!("{url}/predictions")).bearer_auth(&client.key).json(&body);
    let created: serde_json::Value = request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
    created["id"].as_str().unwrap().to_owned()
}

#[sqlx::test]
async fn a_prediction_goes_only_to_workers_that_have_its_model(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    // Without workers of its own it offers the demo model only where it is told to.
    let variables = [("FOURSTEP_WORKER__COUNT", "0"), ("FOURSTEP_WORKER__MODELS", "demo-4step")];
    let server = Program::serve_logging(&folder.0, &url, &variables, &folder.0.join("server"));
    let client = Client::of(&server, &folder.0);
    let worker = |model| {
        let variables = [("FOURSTEP_WORKER__MODELS", model), ("FOURSTEP_MOCK_STEP_MS", "1")];
        Program::worker_logging(&folder.0, &url, &variables, &folder.0.join(model))
    };
    let first = create_of(&client, &server.url, "sdxl-lightning-4step").await;
    let second = create_of(&client, &server.url, "demo-4step").await;
    let _one = worker("demo-4step");
    assert_eq!(client.terminal(&second).await["status"], "succeeded");
    // It was first in the queue, and the only worker there is had nothing else to do.
    let request = client.http.get(format!("{}/predictions/{first}", server.url)).bearer_auth(&client.key);
    let waiting: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!((&waiting["status"], &waiting["started_at"]), (&"starting".into(), &serde_json::Value::Null));
    let _other = worker("sdxl-lightning-4step");
    assert_eq!(client.terminal(&first).await["status"], "succeeded");
}
