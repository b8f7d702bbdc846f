//! Two versions at once, as while a site is upgraded process by process: the older one goes on while the schema becomes
//! the newer one's, and beside it until it is asked to end.
//!
//! The older one is the program in `FOURSTEP_PREVIOUS`, which `tools/with-previous` builds from the newest commit that
//! has fewer migrations. Without it this version is its own predecessor, of a next one that adds what the rules of
//! `CONTRIBUTING.md` let a migration add.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use sqlx::PgPool;

use crate::{
    load::{Load, another_key},
    process::{Client, Program, TestFolder, url_of},
    receiver::Receiver,
};

const PATIENCE: Duration = Duration::from_secs(60);
const NEW: &str = env!("CARGO_BIN_EXE_fourstep");

/// What a next version might add.
const NEXT_MIGRATION: &str = "
    alter table predictions add column of_the_next_version text not null default 'nothing';
    alter table workers add column of_the_next_version bigint;
    create index of_the_next_version on predictions (of_the_next_version, created_at);
    create table things_of_the_next_version (id bigint primary key, prediction_id uuid references predictions);
    insert into _sqlx_migrations (version, description, success, checksum, execution_time)
    values (9999, 'of the next version', true, '', 0)";

fn previous() -> Option<String> {
    std::env::var("FOURSTEP_PREVIOUS").ok()
}

fn fourstep(program: &str, arguments: &[&str], folder: &Path, url: &str) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).args(["--predictor", "mock", "--data-dir"]).arg(folder);
    command.env("DATABASE_URL", url).env("FOURSTEP_MOCK_STEP_MS", "5").env("RUST_LOG", "warn");
    command.env("FOURSTEP_FETCH__ALLOWED_NETWORKS", "127.0.0.2/32");
    command
        .stdout(Stdio::piped())
        .stderr(std::fs::OpenOptions::new().create(true).append(true).open(log(folder)).unwrap());
    command
}

fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("log")
}

fn serve(program: &str, folder: &Path, url: &str) -> Program {
    Program::server(fourstep(program, &["serve", "--listen", "127.0.0.1:0"], folder, url))
}

async fn migrations(pool: &PgPool) -> Vec<i64> {
    sqlx::query_scalar("select version from _sqlx_migrations order by version").fetch_all(pool).await.unwrap()
}

/// Ends a process as a supervisor does.
async fn end(mut program: Program) {
    program.signal(Signal::SIGTERM);
    assert!(program.ended_within(PATIENCE).await.success());
}

#[sqlx::test(migrations = false)]
async fn an_upgrade_process_by_process_loses_nothing(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let old = previous().unwrap_or_else(|| NEW.to_owned());
    let mut receiver = Receiver::start().await;
    let [old_server, old_worker] =
        [serve(&old, &folder.0, &url), Program::workers(fourstep(&old, &["worker"], &folder.0, &url))];
    let at_old = Client::of(&old_server, &folder.0).telling(&receiver.url());
    let another = another_key(&pool).await;
    let mut load = Load::default();
    load.run(&[at_old.clone(), at_old.clone()], 0);
    load.run(&[at_old.with_key(&another), at_old.with_key(&another)], 1);
    load.until_served(PATIENCE).await.expect("the old version serves");

    let before = migrations(&pool).await;
    if previous().is_none() {
        sqlx::raw_sql(NEXT_MIGRATION).execute(&pool).await.unwrap();
    }
    let new_server = serve(NEW, &folder.0, &url);
    let after = migrations(&pool).await;
    assert!(after.len() > before.len(), "nothing was migrated: {after:?}");
    let new_worker = Program::workers(fourstep(NEW, &["worker"], &folder.0, &url));
    let at_new = Client::of(&new_server, &folder.0).telling(&receiver.url());
    load.run(&[at_old.clone(), at_new.clone()], 2);
    load.run(&[at_old.with_key(&another), at_new.with_key(&another)], 3);
    load.until_served(PATIENCE).await.expect("both serve what the other made");

    // The old worker is gone first, so that what the old server makes is the new one's to draw; then the other way
    // round.
    end(old_worker).await;
    load.until_served(PATIENCE).await.expect("the old server and the new worker");
    end(new_worker).await;
    let old_worker = match previous() {
        None => Some(Program::workers(fourstep(&old, &["worker"], &folder.0, &url))),
        // Versions before this one do not start beside a newer schema.
        Some(_) => None,
    };
    load.until_served(PATIENCE).await.expect("workers of both servers");
    drop(old_worker);

    let mut history_of_old = load.told.history.lock().await;
    history_of_old.look(&pool).await;
    drop(history_of_old);
    load.end().await;
    end(old_server).await;
    let mut load_after = Load::default();
    load_after.run(&[at_new.clone(), at_new.clone()], 4);
    load_after.until_served(PATIENCE).await.expect("the new version alone");
    load_after.end().await;

    let artifacts = fourstep::artifacts::Artifacts::in_folder(&folder.0.join("artifacts"), false).unwrap();
    let mut history = load.told.history.lock().await;
    history.check(&pool, &artifacts, PATIENCE).await;
    history.check_webhooks(&pool, &mut receiver, PATIENCE).await;
    history.check_owners(&pool, &[at_new.clone(), at_new.with_key(&another)]).await;
    load.check_ends(&[&at_new, &at_new.with_key(&another)]).await;
    let failed: i64 = sqlx::query_scalar("select count(*) from predictions where status <> 'succeeded'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(failed, 0, "{}", std::fs::read_to_string(log(&folder.0)).unwrap());
    println!("{} predictions; migrations {before:?}, then {after:?}", history.len());
}
