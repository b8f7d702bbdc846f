//! Data directories that go away, and a second server process.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fourstep::postgres::{Options, PrivateCluster};
use nix::sys::signal::{self, Signal};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Pid, Uid};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Tells the second process which data directory to serve.
const DATA_DIR: &str = "FOURSTEP_TEST_DATA_DIR";

/// A folder of one test, removed at its end.
pub(crate) struct TestFolder(PathBuf);

impl TestFolder {
    pub(crate) fn new() -> Self {
        let path = roomy_folder().join(format!("fourstep-test-{}", Uuid::new_v4().simple()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The data directory, which does not exist yet.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.0.join("data")
    }

    /// A place for anything else.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Starts a cluster here that puts nothing anywhere else.
    pub(crate) async fn start(&self) -> PrivateCluster {
        PrivateCluster::start(&self.data_dir(), self.options()).await.unwrap()
    }

    pub(crate) fn options(&self) -> Options {
        Options { outside_folder: self.join("outside"), ..Options::default() }
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        // A failed test may leave Postgres running, as a killed server would.
        if let Some(pid) = postmaster_pid(&self.data_dir().join("postgres/cluster")) {
            let _ = signal::kill(pid, Signal::SIGQUIT);
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// In memory, where writing to disk costs nothing, if a few clusters of 50 MB fit there (in containers they do not).
/// Not below the build folder in any case: that may be closed to the account Postgres runs under.
fn roomy_folder() -> &'static Path {
    let in_memory = Path::new("/dev/shm");
    let fits = statvfs(in_memory).is_ok_and(|stats| stats.blocks_available() * stats.fragment_size() > 1 << 30);
    if fits { in_memory } else { Path::new("/tmp") }
}

pub(crate) async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.unwrap()
}

/// The answer to a query with one text.
pub(crate) async fn text(connection: &mut PgConnection, query: &'static str) -> String {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

/// The process that runs on a cluster, by its own account.
pub(crate) fn postmaster_pid(cluster: &Path) -> Option<Pid> {
    let text = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    text.lines().next()?.parse().ok().map(Pid::from_raw)
}

/// Whether there is such a process, even a zombie.
pub(crate) fn exists(pid: Pid) -> bool {
    signal::kill(pid, None).is_ok()
}

/// Whether a process does anything: an orphan that has ended stays a zombie until process 1 looks at it.
pub(crate) fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    exists(pid) && !stat.contains(") Z ")
}

pub(crate) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Another process that runs a cluster until it is killed.
pub(crate) struct OtherServer {
    process: Child,
    pub(crate) url: String,
}

impl OtherServer {
    pub(crate) fn start(data_dir: &Path) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["support::hold_a_cluster", "--exact", "--ignored", "--nocapture"])
            .env(DATA_DIR, data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let url = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("serving ").map(str::to_owned));
        Self { url: url.expect("the other server says where it serves"), process }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test]
#[ignore = "it is the second process of other tests"]
async fn hold_a_cluster() {
    let Some(data_dir) = env::var_os(DATA_DIR) else { return };
    let cluster = PrivateCluster::start(Path::new(&data_dir), Options::default()).await.unwrap();
    // After a line break, because the test harness has begun a line.
    writeln!(io::stdout(), "\nserving {}", cluster.url()).unwrap();
    std::future::pending::<()>().await;
}
