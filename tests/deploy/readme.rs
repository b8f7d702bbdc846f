//! Every shell command of the README, run as it stands there, or named here with the reason why not.

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use sqlx::PgPool;

use crate::{
    process::{Program, TestFolder},
    text,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fourstep");
/// Where `make run` serves.
const SERVED: &str = "http://127.0.0.1:8000";
/// What is not run here, by how it begins, and why.
const NOT_HERE: [(&str, &str); 6] = [
    ("make run\n", "builds the program"),
    ("make run ARGS=", "builds the program, and needs the weights"),
    ("mkdir -p target && tools/cuda/kit ", "builds for a GPU, which takes a compiler of 100 MB and half an hour"),
    ("docker build", "needs a container engine"),
    ("export FOURSTEP_ARTIFACTS__URL=", "needs a bucket, which tests/clients/s3.rs and tests/hosts have"),
    ("make test ", "runs all tests, this one among them"),
];
/// What runs until it is told to end.
const WORKER: &str = "DATABASE_URL=";

/// The README's blocks of shell commands.
fn blocks() -> Vec<String> {
    let readme = text("README.md");
    let mut blocks = Vec::new();
    for part in readme.split("\n```sh\n").skip(1) {
        blocks.push(part.split_once("\n```").unwrap().0.to_owned() + "\n");
    }
    blocks
}

fn shell(commands: &str, folder: &Path) -> Command {
    let ours = Path::new(PROGRAM).parent().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", commands]).current_dir(folder).stdin(Stdio::null());
    shell.env("PATH", format!("{}:{}", ours.display(), std::env::var("PATH").unwrap()));
    // As after `make run`, whose database is in `./data`.
    shell.env_remove("DATABASE_URL").env("FOURSTEP_WORKER__PREDICTOR", "mock").env("RUST_LOG", "warn");
    shell
}

#[tokio::test]
async fn every_shell_command_of_the_readme_works_as_it_stands_there() {
    let folder = TestFolder::new();
    let data = folder.0.join("data");
    fs::create_dir_all(folder.0.join("target/release")).unwrap();
    symlink(PROGRAM, folder.0.join("target/release/fourstep")).unwrap();
    fs::create_dir(&data).unwrap();
    // The receiver of the README's webhook is nobody, here.
    let variables = [("FOURSTEP_FETCH__ALLOWED_NETWORKS", "127.0.0.1/32"), ("FOURSTEP_MOCK_STEP_MS", "1")];
    let mut serve = Command::new(PROGRAM);
    serve.args(["serve", "--listen", "127.0.0.1:0", "--predictor", "mock", "--data-dir"]).arg(&data);
    serve.env_remove("DATABASE_URL").envs(variables).stdout(Stdio::piped());
    let mut server = Program::server(serve);
    let pool = PgPool::connect(&fourstep::postgres::running_url(&data).unwrap()).await.unwrap();

    let blocks = blocks();
    let (skipped, run): (Vec<_>, Vec<_>) =
        blocks.iter().partition(|block| NOT_HERE.iter().any(|(begin, _)| block.starts_with(begin)));
    assert_eq!(skipped.len(), NOT_HERE.len(), "{skipped:#?}");
    let (forever, run): (Vec<_>, Vec<_>) = run.into_iter().partition(|block| block.starts_with(WORKER));
    // In one shell, since later blocks use the variables and the files of earlier ones.
    let commands: String = run.iter().map(|block| block.as_str()).collect();
    let commands = commands.replace(SERVED, &server.url).replace("https://example.com", "http://127.0.0.1:9");
    let output = shell(&commands, &folder.0).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{out}\n{err}");
    for picture in ["picture.png", "green.png"] {
        assert!(fs::read(folder.0.join(picture)).unwrap().starts_with(b"\x89PNG\r\n"), "{picture}");
    }
    let file: serde_json::Value = serde_json::from_slice(&fs::read(folder.0.join("file.json")).unwrap()).unwrap();
    assert!(file["url"].is_string(), "{file}");
    assert!(out.contains("fourstep_database_up 1"), "the metrics: {out}");
    let prepaid: i64 =
        sqlx::query_scalar("select count(*) from accounts where name = 'acme'").fetch_one(&pool).await.unwrap();
    assert_eq!(prepaid, 1);

    let [forever] = forever[..] else { panic!("{forever:?}") };
    let mut worker = shell(forever, &folder.0).process_group(0).stdout(Stdio::null()).spawn().unwrap();
    let mut joined = async || {
        while sqlx::query_scalar::<_, i64>("select count(*) from workers").fetch_one(&pool).await.unwrap() < 2 {
            assert!(worker.try_wait().unwrap().is_none(), "{forever}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), joined()).await.unwrap();
    killpg(Pid::from_raw(worker.id().cast_signed()), Signal::SIGTERM).unwrap();
    worker.wait().unwrap();
    pool.close().await;
    // It stops its Postgres.
    server.signal(Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(60)).await.success());
}
