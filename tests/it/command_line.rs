//! What a command does, told by the program itself: exit status, standard output, standard error.

use std::process::{Command, Output};

use fourstep::{domain::ApiKey, store::Store};
use sqlx::PgPool;

use crate::process::{TestFolder, url_of};

/// The program with this database and a data folder of its own.
pub(crate) fn fourstep(database_url: Option<&str>, folder: &TestFolder, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fourstep"));
    command.args(arguments).arg("--data-dir").arg(&folder.0).env_remove("DATABASE_URL").env_remove("RUST_LOG");
    if let Some(url) = database_url {
        command.env("DATABASE_URL", url);
    }
    command.output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[sqlx::test]
async fn a_created_key_opens_the_service_until_it_is_revoked(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let run = |arguments: &[&str]| stdout(&fourstep(Some(&url), &folder, arguments));
    let store = Store::with_pool(pool.clone());

    let key = ApiKey::parse(run(&["keys", "create", "--name", "laptop", "--account", "ada"]).trim()).unwrap();
    let stored = store.find_key(key.lookup()).await.unwrap().unwrap();
    assert!(stored.caller(&key).is_some());

    let list = run(&["keys", "list"]);
    assert!(list.contains(key.lookup()) && list.contains("ada") && list.contains("laptop"), "{list}");
    assert!(!list.contains(key.expose()), "a list shows no secret");

    run(&["keys", "revoke", &format!("fs_{}", key.lookup())]);
    assert!(store.find_key(key.lookup()).await.unwrap().is_none());
    let again = stderr(&fourstep(Some(&url), &folder, &["keys", "revoke", key.expose()]));
    assert!(again.contains("keys list") && !again.contains(key.expose()), "{again}");
}

#[sqlx::test]
async fn money_is_managed_from_the_command_line_and_the_audit_fails_when_it_does_not_add_up(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let run = |arguments: &[&str]| stdout(&fourstep(Some(&url), &folder, arguments));
    run(&["accounts", "create", "acme", "--mode", "prepaid"]);
    run(&["accounts", "credit", "acme", "2.5", "--note", "invoice 7"]);
    run(&["accounts", "set", "acme", "--max-in-flight", "4"]);
    let list = run(&["accounts", "list"]);
    assert!(list.contains("$2.50") && list.contains("at most 4"), "{list}");
    let overdrawn = stderr(&fourstep(Some(&url), &folder, &["accounts", "credit", "acme", "3", "--debit"]));
    assert!(overdrawn.contains("acme does not have $3.00"), "{overdrawn}");

    let arguments = ["keys", "create", "--name", "ci", "--account", "acme", "--budget", "1", "--per", "day"];
    let key = ApiKey::parse(run(&arguments).trim()).unwrap();
    let rotated = ApiKey::parse(run(&["keys", "rotate", key.expose()]).trim()).unwrap();
    let store = Store::with_pool(pool.clone());
    for secret in [&key, &rotated] {
        assert!(store.find_key(secret.lookup()).await.unwrap().unwrap().caller(secret).is_some());
    }
    let list = run(&["keys", "list"]);
    assert!(list.contains("$0.00 of $1.00 a day") && list.contains("predictions:write"), "{list}");
    run(&["keys", "budget", rotated.lookup(), "--none"]);
    assert!(!run(&["keys", "list"]).contains("a day"));
    assert!(run(&["usage"]).ends_with("Total: $0.00\n"));

    assert!(run(&["audit"]).ends_with("Everything adds up.\n"));
    sqlx::query("update accounts set balance_nano = balance_nano - 1").execute(&pool).await.unwrap();
    let audit = fourstep(Some(&url), &folder, &["audit"]);
    let report = String::from_utf8(audit.stdout).unwrap();
    assert_eq!(audit.status.code(), Some(1));
    assert!(report.contains("account acme: 2500000000 expected, 2499999999 found"), "{report}");
}

#[sqlx::test(migrations = false)]
async fn a_database_of_somebody_elses_is_migrated_only_when_told_to(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let refused = stderr(&fourstep(Some(&url), &folder, &["keys", "list"]));
    assert!(refused.contains("`fourstep migrate`"), "{refused}");
    let doctor = stdout(&fourstep(Some(&url), &folder, &["doctor", "--listen", "127.0.0.1:0"]));
    assert!(doctor.contains("migrations behind"), "{doctor}");

    assert!(stdout(&fourstep(Some(&url), &folder, &["migrate"])).starts_with("Applied "));
    assert_eq!(stdout(&fourstep(Some(&url), &folder, &["migrate"])), "The database is up to date.\n");
    stdout(&fourstep(Some(&url), &folder, &["keys", "list"]));
}

#[test]
fn the_private_database_serves_commands_while_no_server_runs() {
    let folder = TestFolder::new();
    let url = stderr(&fourstep(None, &folder, &["db", "url"]));
    assert!(url.contains("fourstep serve --data-dir"), "{url}");

    // A key of a database that no server has opens nothing: it is not made on the way.
    let elsewhere = stderr(&fourstep(None, &folder, &["keys", "create", "--name", "laptop"]));
    assert!(elsewhere.contains("--data-dir") && !folder.0.join("postgres").exists(), "{elsewhere}");
    stdout(&fourstep(None, &folder, &["migrate"]));
    let key = stdout(&fourstep(None, &folder, &["keys", "create", "--name", "laptop"]));
    let list = stdout(&fourstep(None, &folder, &["keys", "list"]));
    assert!(list.contains(ApiKey::parse(key.trim()).unwrap().lookup()), "{list}");
    stderr(&fourstep(None, &folder, &["db", "url"]));
}

#[test]
fn doctor_names_every_fault_with_its_fix_and_fails() {
    let folder = TestFolder::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let weights = folder.0.display().to_string();
    let arguments = ["doctor", "--listen", &address, "--weights", &weights];
    let output = fourstep(Some("postgres://nobody@127.0.0.1:1/none"), &folder, &arguments);

    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stdout).unwrap();
    for (fault, fix) in
        [("BAD  database ", "correct DATABASE_URL"), ("BAD  port ", "--listen"), ("BAD  weights ", "--unet FILE")]
    {
        assert!(report.contains(fault) && report.contains(fix), "{report}");
    }
    assert!(report.contains("Connection refused"), "the reason itself: {report}");
    assert!(!report.contains('\x1b'), "no colors where nobody sees them");
}

#[test]
fn the_configuration_in_force_is_shown_without_its_secrets() {
    let folder = TestFolder::new();
    let shown = stdout(&fourstep(Some("postgres://user:hunter2@db/fourstep"), &folder, &["config", "show"]));
    let line = shown.lines().find(|line| line.starts_with("url = ")).unwrap();
    assert!(line.contains("***") && line.ends_with("# DATABASE_URL"), "{line}");
    assert!(!shown.contains("hunter2"));
}

#[test]
fn a_mistake_in_the_configuration_is_told_before_anything_starts() {
    let folder = TestFolder::new();
    let refused = stderr(&fourstep(None, &folder, &["serve", "--workers", "many"]));
    assert!(refused.starts_with("error: worker.count: "), "{refused}");
    assert!(refused.contains("--workers"), "{refused}");
    assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none(), "nothing was made");
}
