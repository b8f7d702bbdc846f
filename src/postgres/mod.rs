//! The private Postgres: a cluster of the server's own, used when no `DATABASE_URL` is given.
//!
//! Owns the whole life of one `postgres` process: where its files lie, which account it runs under, who may connect,
//! how it starts, is recovered and stops. It knows nothing of what is stored in it: migrations and pools belong to
//! whoever asks for [`PrivateCluster::url`].
//!
//! `postgres` is spawned directly, not through `pg_ctl`: as a child its death is noticed at once and by its exit
//! status, it leaves no zombie, crash recovery may take as long as it needs (`pg_ctl` gives up after a minute), and
//! there is no second process whose opinion of a pid file has to be trusted.
//!
//! Nothing ties the child to the life of this process. Linux could (`PR_SET_PDEATHSIG`), but it fires when the
//! *thread* that spawned dies, is lost when the account changes and exists nowhere else; after a `kill -9` the next
//! start finds the `postmaster.pid` instead, stops what is left and starts afresh, so one path serves every system.

mod access;
mod account;
pub mod binaries;
mod error;
mod folder;
mod log;
mod pid_file;
mod postmaster;
mod settings;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;

pub use self::binaries::Binaries;
pub use self::error::Error;
pub use self::folder::make_passable;

use self::access::Socket;
use self::account::Account;
use self::folder::Folder;
use self::log::Log;
use self::pid_file::{Holder, PidFile};
use self::postmaster::Postmaster;

/// What can be chosen about a private cluster. The defaults are right for almost everybody.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder with `initdb` and `postgres`; looked for in the usual places when absent.
    pub binaries: Option<PathBuf>,
    /// Account the database runs under when the server is root; `postgres` when absent. An existing
    /// cluster keeps the account that owns it.
    pub account: Option<String>,
    /// Where a cluster is put when the server is root and its account cannot reach the data directory (`/root` is
    /// closed to everybody else). The data directory then holds a link to it.
    pub outside_folder: PathBuf,
    /// Where the socket is put when the data directory's path is too long for one.
    pub short_folder: PathBuf,
    /// How long a start may take. Generous, because recovery after a crash has to be let finish: giving up and trying
    /// again would start it from the beginning.
    pub start_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            binaries: None,
            account: None,
            outside_folder: PathBuf::from("/var/lib/fourstep"),
            short_folder: PathBuf::from("/tmp"),
            start_timeout: Duration::from_secs(600),
        }
    }
}

/// A running private cluster, held by this process alone.
///
/// [`stop`](Self::stop) it before the program ends. Dropping it only asks Postgres to stop and does not wait.
#[derive(Debug)]
pub struct PrivateCluster {
    url: String,
    socket: Socket,
    // Before `folder`: Postgres is told to stop before the locks that `folder` holds are released.
    postmaster: Postmaster,
    folder: Folder,
}

impl PrivateCluster {
    /// Starts the cluster of `data_dir`, making it first when there is none, and returns when it takes connections.
    pub async fn start(data_dir: &Path, options: Options) -> Result<Self, Error> {
        let started = Instant::now();
        let (folder, account) = Folder::open(data_dir, &options)?;
        let binaries = binaries::find_for(&folder, options.binaries.as_deref())?;
        recover(&folder).await?;
        if folder.made_by()?.is_none() {
            initialize(&folder, &account, &binaries).await?;
        }

        let socket = Socket::prepare(&folder, &account, &options)?;
        access::write_rules(&folder, &account)?;
        let log = Log::open(folder.data_dir())?;
        let mut server = account.command(&binaries.program("postgres"));
        server.args(settings::arguments(&folder, &socket));
        let postmaster = Postmaster::start(server.into(), &folder.cluster(), log, options.start_timeout).await?;

        tracing::info!(
            postgres.version = binaries.version(),
            postgres.account = account.name(),
            postgres.folder = %folder.cluster().display(),
            elapsed_ms = started.elapsed().as_millis() as u64,
            "Private Postgres is ready"
        );
        Ok(Self { url: socket.url(access::OWNER, access::DATABASE), socket, postmaster, folder })
    }

    /// Where to connect: a `postgres://` URL over the unix socket, for sqlx, psql and everything else that uses libpq.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The folder of the cluster itself, which is outside the data directory when Postgres could not reach it there.
    pub fn cluster_folder(&self) -> PathBuf {
        self.folder.cluster()
    }

    /// Returns only when Postgres has ended without being asked to, with the reason it left in its log.
    pub async fn exited(&self) -> Error {
        self.postmaster.exited().await
    }

    /// Ends all connections, writes everything to disk and stops Postgres; takes at most a quarter of a minute.
    pub async fn stop(self) {
        self.postmaster.stop().await;
        self.socket.remove();
    }
}

/// Whether `data_dir` has a private cluster, running or not.
pub fn is_there(data_dir: &Path) -> bool {
    folder::cluster_of(data_dir).is_some_and(|cluster| cluster.exists())
}

/// The URL of the cluster that another process runs on `data_dir`.
pub fn running_url(data_dir: &Path) -> Result<String, Error> {
    let not_running = || Error::NotRunning { data_dir: data_dir.to_owned() };
    let cluster = folder::cluster_of(data_dir).ok_or_else(not_running)?;
    let pid_file = PidFile::read(&cluster)?.ok_or_else(not_running)?;
    match pid_file.holder(&cluster) {
        Holder::Postmaster | Holder::Unclear if pid_file.ready => {
            Ok(Socket::at(pid_file.socket_folder).url(access::OWNER, access::DATABASE))
        }
        _ => Err(not_running()),
    }
}

/// Clears what an earlier server left behind when it was killed. The locks of `folder` are held, so that whatever
/// runs on the cluster belongs to no living server.
async fn recover(folder: &Folder) -> Result<(), Error> {
    let cluster = folder.cluster();
    let Some(pid_file) = PidFile::read(&cluster)? else { return Ok(()) };
    let pid = pid_file.pid.as_raw();
    match pid_file.holder(&cluster) {
        Holder::Nobody | Holder::Unrelated => {}
        Holder::Unclear => return Err(Error::UnclearPostmaster { pid, cluster }),
        Holder::Postmaster => {
            tracing::warn!(pid, "Stopping the Postgres that an earlier server left running");
            if !postmaster::stop_left_behind(pid_file.pid).await {
                return Err(Error::WillNotStop { pid, cluster });
            }
        }
    }
    pid_file::disown(&cluster)
}

/// Makes a cluster with an empty database. It is made beside its final place and moved there when it is whole and on
/// disk, so that an interrupted first start leaves nothing that looks like a cluster.
async fn initialize(folder: &Folder, account: &Account, binaries: &Binaries) -> Result<(), Error> {
    let unfinished = folder.begin_cluster(account)?;
    let initdb = || {
        let mut initdb = account.command(&binaries.program("initdb"));
        initdb.arg("--pgdata").arg(&unfinished);
        initdb
    };
    let mut make_cluster = initdb();
    make_cluster.args(settings::INITDB);
    run(make_cluster, "").await?;
    // No server and no connection are needed for this, and the first that can be seen of the cluster is complete.
    let mut make_database = account.command(&binaries.program("postgres"));
    make_database.arg("--single").arg("-D").arg(&unfinished).args(settings::SINGLE_USER).arg("postgres");
    run(make_database, access::CREATE_DATABASE).await?;
    let mut write_to_disk = initdb();
    write_to_disk.arg("--sync-only");
    run(write_to_disk, "").await?;
    folder.finish_cluster()
}

/// Runs a program to its end, with some text as its input.
async fn run(command: std::process::Command, input: &str) -> Result<(), Error> {
    let program = PathBuf::from(command.get_program());
    let failed = || Error::io("run", &program);
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(failed())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read its input says why in its output.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(failed())?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::NotMade { program, output })
}
