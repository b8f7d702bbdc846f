//! A Postgres on a host of its own, that others reach by TCP and the checker by a socket, whatever is cut.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid, User},
};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{network::Host, process::TestFolder};

const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when dropped.
pub(crate) struct Database {
    host: Host,
    folder: TestFolder,
    postmaster: Child,
}

impl Database {
    /// A new one, ready.
    pub(crate) async fn start(host: Host) -> Self {
        let folder = TestFolder::new();
        if let Some(account) = account() {
            std::os::unix::fs::chown(&folder.0, Some(account.uid.as_raw()), Some(account.gid.as_raw())).unwrap();
        }
        let cluster = folder.0.join("cluster");
        let mut initdb = as_account(&program("initdb"));
        initdb.arg("--pgdata").arg(&cluster);
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        let made = initdb.current_dir(&folder.0).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules = "local all all trust\nhost all all 10.77.0.0/24 trust\n";
        fs::write(cluster.join("pg_hba.conf"), rules).unwrap();
        let postmaster = postmaster(&host, &folder);
        let database = Self { host, folder, postmaster };
        database.until_ready().await;
        database
    }

    /// Where servers and workers find it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://postgres@{}:5432/postgres", self.host.address)
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Connections that no cut line touches.
    pub(crate) async fn pool(&self) -> PgPool {
        let url = format!("postgres://postgres@localhost/postgres?host={}", self.folder.0.display());
        PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap()
    }

    /// `pg_ctl restart -m immediate`: every session cut, no checkpoint, recovery.
    pub(crate) async fn crash(&mut self) {
        kill(Pid::from_raw(self.postmaster.id().cast_signed()), Signal::SIGQUIT).unwrap();
        self.postmaster.wait().unwrap();
        self.postmaster = postmaster(&self.host, &self.folder);
        self.until_ready().await;
    }

    async fn until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("postgres://postgres@localhost/postgres?host={}", self.folder.0.display());
        while PgPoolOptions::new().max_connections(1).connect(&url).await.is_err() {
            assert!(Instant::now() < deadline, "Postgres does not start: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("log")).unwrap_or_default()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Its children go with it; a postmaster that is killed leaves them behind.
        let _ = kill(Pid::from_raw(self.postmaster.id().cast_signed()), Signal::SIGQUIT);
        let _ = self.postmaster.wait();
    }
}

fn program(name: &str) -> PathBuf {
    fourstep::postgres::binaries::find().unwrap().directory().join(name)
}

/// Who runs it, if we are root, as which Postgres refuses to run.
fn account() -> Option<User> {
    let named = |name| User::from_name(name).unwrap();
    Uid::effective().is_root().then(|| named("postgres").or_else(|| named("nobody")).unwrap())
}

fn as_account(program: &std::path::Path) -> Command {
    let Some(account) = account() else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &account.uid.to_string(), "--regid", &account.gid.to_string(), "--clear-groups"]);
    command.arg(program);
    command
}

fn postmaster(host: &Host, folder: &TestFolder) -> Child {
    let mut postgres = as_account(&program("postgres"));
    postgres.arg("-D").arg(folder.0.join("cluster"));
    let sockets = format!("unix_socket_directories={}", folder.0.display());
    // Nothing here loses power. The number of connections is the default, so that dead clients that keep theirs are
    // found.
    for setting in ["listen_addresses=*", &sockets, "fsync=off", "max_connections=100"] {
        postgres.args(["-c", setting]);
    }
    let mut there = host.running(&postgres);
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.0.join("log")).unwrap();
    there.current_dir(&folder.0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    there.spawn().unwrap()
}
