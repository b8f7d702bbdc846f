//! The real binary as real processes: what tests of faults start, kill and talk to.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, PgPool};

/// A folder that is gone when dropped.
pub(crate) struct TestFolder(pub(crate) PathBuf);

impl TestFolder {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("fourstep-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The URL of a test's own database, for a program of its own.
pub(crate) fn url_of(pool: &PgPool) -> String {
    pool.connect_options().to_url_lossy().to_string()
}

/// A running `fourstep`. Killed when dropped.
pub(crate) struct Program {
    pub(crate) process: Child,
    /// What it is reached at, for `serve`.
    pub(crate) url: String,
}

impl Program {
    /// `fourstep serve` with the mock predictor on a free port, ready.
    pub(crate) fn serve(folder: &Path, database_url: Option<&str>, arguments: &[&str]) -> Self {
        let mut command = program(database_url);
        command.args(["serve", "--listen", "127.0.0.1:0", "--predictor", "mock", "--data-dir"]).arg(folder);
        command.args(arguments);
        Self::server(command)
    }

    /// The same, which writes all it has to say into a file.
    pub(crate) fn serve_logged(folder: &Path, database_url: &str, arguments: &[&str], log: &Path) -> Self {
        let mut command = program(Some(database_url));
        command.args(["serve", "--listen", "127.0.0.1:0", "--predictor", "mock", "--data-dir"]).arg(folder);
        command.args(arguments).env("RUST_LOG", "debug").stderr(std::fs::File::create(log).unwrap());
        Self::server(command)
    }

    /// The same at this address.
    pub(crate) fn serve_at(address: SocketAddr, folder: &Path, database_url: &str) -> Self {
        let mut command = program(Some(database_url));
        command.args(["serve", "--predictor", "mock", "--listen", &address.to_string(), "--data-dir"]).arg(folder);
        Self::server(command)
    }

    /// `fourstep serve` with the model a newcomer has, ready.
    pub(crate) fn serve_demo(folder: &Path, database_url: &str) -> Self {
        Self::serve_model(folder, database_url, &[])
    }

    /// `fourstep serve` with what draws pictures, and these arguments, ready.
    pub(crate) fn serve_model(folder: &Path, database_url: &str, arguments: &[&str]) -> Self {
        let mut command = program(Some(database_url));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder).args(arguments);
        // Weights that this machine may have are not to be found, and nothing of the sources: the model is in the program.
        command.env("HF_HOME", folder.join("hub")).env_remove("HF_HUB_CACHE").current_dir(folder);
        Self::server(command)
    }

    /// `fourstep worker` with the mock predictor at this many milliseconds a step, ready.
    pub(crate) fn worker(folder: &Path, database_url: &str, step_ms: u32) -> Self {
        let mut command = program(Some(database_url));
        command.args(["worker", "--predictor", "mock", "--data-dir"]).arg(folder);
        command.env("FOURSTEP_MOCK_STEP_MS", step_ms.to_string());
        Self::workers(command)
    }

    /// `fourstep serve` with the mock predictor, these variables, and its log in a file.
    pub(crate) fn serve_logging(folder: &Path, database_url: &str, variables: &[(&str, &str)], log: &Path) -> Self {
        let mut command = program(Some(database_url));
        command.args(["serve", "--listen", "127.0.0.1:0", "--predictor", "mock", "--data-dir"]).arg(folder);
        command.envs(variables.iter().copied()).stderr(std::fs::File::create(log).unwrap());
        Self::server(command)
    }

    /// `fourstep worker` with the mock predictor, these variables, and its log in a file; ready.
    pub(crate) fn worker_logging(folder: &Path, database_url: &str, variables: &[(&str, &str)], log: &Path) -> Self {
        let mut command = program(Some(database_url));
        command.args(["worker", "--predictor", "mock", "--data-dir"]).arg(folder);
        command.envs(variables.iter().copied()).stderr(std::fs::File::create(log).unwrap());
        Self::workers(command)
    }

    /// A command that becomes a server, when it is ready.
    pub(crate) fn server(command: Command) -> Self {
        let (process, line) = start(command, |line| line.contains("http://"));
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
        Self { process, url: url.trim_end_matches('/').to_owned() }
    }

    /// A command that becomes workers, when they are ready.
    pub(crate) fn workers(command: Command) -> Self {
        let (process, _) = start(command, |line| line.contains("ready"));
        Self { process, url: String::new() }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits for the end, at most this long.
    pub(crate) async fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {patience:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(database_url: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fourstep"));
    command.env_remove("DATABASE_URL").env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::piped());
    if let Some(url) = database_url {
        command.env("DATABASE_URL", url);
    }
    command
}

/// Starts a program and reads its standard output up to the line that says it is ready.
fn start(mut command: Command, is_ready: impl Fn(&str) -> bool) -> (Child, String) {
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let ready = lines.find(|line| is_ready(line));
    // What it prints later must not block it.
    std::thread::spawn(move || lines.for_each(drop));
    let Some(line) = ready else { panic!("{command:?} ended before it was ready: {:?}", process.wait()) };
    (process, line)
}

/// A client of a running server.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    url: String,
    pub(crate) key: String,
    /// Where it wants to be told what becomes of its small predictions.
    webhook: Option<String>,
}

impl Client {
    pub(crate) fn of(program: &Program, folder: &Path) -> Self {
        let key = std::fs::read_to_string(folder.join("key")).unwrap().trim().to_owned();
        Self { http: reqwest::Client::new(), url: program.url.clone(), key, webhook: None }
    }

    /// The same server, with another key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.clone() }
    }

    /// The same, that wants to be told.
    pub(crate) fn telling(&self, webhook: &str) -> Self {
        Self { webhook: Some(webhook.to_owned()), ..self.clone() }
    }

    /// Creates a small prediction. An error means that it was not acknowledged.
    pub(crate) async fn create(&self) -> Result<String, reqwest::Error> {
        let prediction: Value = self.small().send().await?.error_for_status()?.json().await?;
        Ok(prediction["id"].as_str().unwrap().to_owned())
    }

    /// Creates a small prediction and holds the request for so many seconds.
    pub(crate) async fn create_and_wait(&self, wait: u32) -> Result<Value, reqwest::Error> {
        let input = json!({"prompt": "a cat", "width": 256, "height": 256});
        self.post(wait, &input).await?.json().await
    }

    /// Creates a prediction of this input and holds the request for so many seconds.
    pub(crate) async fn post(&self, wait: u32, input: &Value) -> Result<Response, reqwest::Error> {
        let url = format!("{}/predictions?wait={wait}", self.url);
        let request = self.http.post(url).bearer_auth(&self.key).json(&json!({"input": input}));
        request.send().await?.error_for_status()
    }

    /// Creates a small prediction with an idempotency key. An error means that it was not acknowledged.
    pub(crate) async fn create_with_key(&self, key: &str) -> Result<String, reqwest::Error> {
        let response = self.small().header("Idempotency-Key", key).send().await?.error_for_status()?;
        let prediction: Value = response.json().await?;
        Ok(prediction["id"].as_str().unwrap().to_owned())
    }

    /// Asks for a small prediction, and returns whatever is answered.
    pub(crate) async fn try_create(&self) -> Result<Response, reqwest::Error> {
        self.small().send().await
    }

    fn small(&self) -> reqwest::RequestBuilder {
        let mut body = json!({"input": {"prompt": "a cat", "width": 256, "height": 256}});
        if let Some(webhook) = &self.webhook {
            body["webhook"] = json!(webhook);
        }
        self.http.post(format!("{}/predictions", self.url)).bearer_auth(&self.key).json(&body)
    }

    /// Reads what a URL of the server's has.
    pub(crate) async fn fetch(&self, url: &str) -> Result<Vec<u8>, reqwest::Error> {
        Ok(self.http.get(url).send().await?.error_for_status()?.bytes().await?.to_vec())
    }

    /// The status that asking for a prediction is answered with.
    pub(crate) async fn status_of(&self, id: &str) -> StatusCode {
        let request = self.http.get(format!("{}/predictions/{id}", self.url)).bearer_auth(&self.key);
        request.send().await.unwrap().status()
    }

    /// The ids of the newest predictions that are listed.
    pub(crate) async fn listed(&self) -> Vec<String> {
        let request = self.http.get(format!("{}/predictions", self.url)).bearer_auth(&self.key);
        let list: Value = request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
        let results = list["results"].as_array().unwrap();
        results.iter().map(|prediction| prediction["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn get(&self, id: &str, wait: u32) -> Result<Value, reqwest::Error> {
        let request = self.http.get(format!("{}/predictions/{id}?wait={wait}", self.url)).bearer_auth(&self.key);
        request.send().await?.error_for_status()?.json().await
    }

    /// The prediction when it is terminal.
    pub(crate) async fn terminal(&self, id: &str) -> Value {
        for _ in 0..3 {
            let prediction = self.get(id, 60).await.unwrap();
            if !prediction["completed_at"].is_null() {
                return prediction;
            }
        }
        panic!("prediction {id} does not end");
    }
}
