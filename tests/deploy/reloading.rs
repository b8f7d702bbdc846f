//! SIGHUP: a renamed log file is begun anew, what is logged changes, and a configuration that cannot be read changes nothing.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use nix::sys::signal::Signal;
use sqlx::PgPool;
use tokio::time::Instant;

use crate::process::{Client, Program, TestFolder, url_of};

async fn eventually_says(log: &Path, what: &str) -> String {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        if text.contains(what) {
            return text;
        }
        assert!(Instant::now() < patience, "no {what:?} in {}: {text}", log.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test]
async fn a_hangup_begins_the_log_anew_and_reads_its_level_again(pool: PgPool) {
    let folder = TestFolder::new();
    let [config, log, rotated] = ["config.toml", "log", "log.1"].map(|name| folder.0.join(name));
    fs::write(&config, "[log]\nlevel = \"fourstep=warn\"\n").unwrap();
    let variables = [
        ("FOURSTEP_CONFIG", config.to_str().unwrap()),
        ("FOURSTEP_LOG__FILE", log.to_str().unwrap()),
        // It would go before what the file says.
        ("RUST_LOG", ""),
    ];
    let mut server = Program::serve_logging(&folder.0, &url_of(&pool), &variables, &folder.0.join("standard-error"));
    let client = Client::of(&server, &folder.0);
    let first = client.create().await.unwrap();
    assert_eq!(client.terminal(&first).await["status"], "succeeded");
    assert!(!fs::read_to_string(&log).unwrap().contains(&first), "a prediction that succeeds is no warning");

    fs::rename(&log, &rotated).unwrap();
    fs::write(&config, "[log]\nlevel = \"fourstep=info\"\n").unwrap();
    server.signal(Signal::SIGHUP);
    eventually_says(&log, "Received SIGHUP").await;
    for file in [&log, &rotated] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    let second = client.create().await.unwrap();
    assert_eq!(client.terminal(&second).await["status"], "succeeded");
    eventually_says(&log, &second).await;
    assert!(!fs::read_to_string(&rotated).unwrap().contains(&second), "the rotated file is left alone");

    fs::write(&config, "[log]\nlevel = \"fourstep=info\"\n[server]\nmax_connections = 7\n").unwrap();
    server.signal(Signal::SIGHUP);
    eventually_says(&log, "from the next start on").await;
    fs::write(&config, "[lgo]\nlevel = \"info\"\n").unwrap();
    server.signal(Signal::SIGHUP);
    eventually_says(&log, "nothing is changed").await;
    let third = client.create().await.unwrap();
    eventually_says(&log, &third).await;
    server.signal(Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(60)).await.success());
}
