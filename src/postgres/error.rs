//! Why a private cluster cannot run, each in words that say what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// Why a private cluster could not be started, or is no longer running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no Postgres on this machine, or not in the folder that was named.
    #[error(
        "no PostgreSQL {minimum} or newer was found ({searched}).\n{install}\nOr set DATABASE_URL to use a database of your own."
    )]
    NotInstalled {
        /// The oldest major version that will do.
        minimum: u32,
        /// Where it was looked for.
        searched: String,
        /// How to install it on this machine.
        install: String,
    },

    /// The cluster belongs to a major version of which no binaries are installed.
    #[error("{}", upgrade_recipe(made_by, installed, data_dir))]
    OtherVersion {
        /// The data directory.
        data_dir: PathBuf,
        /// The major version that made the cluster.
        made_by: String,
        /// The version found instead.
        installed: String,
    },

    /// Another server uses the same folder.
    #[error("{} is in use by another server{}; stop it, or choose another --data-dir", folder.display(), in_words(holder))]
    Locked {
        /// The folder both want.
        folder: PathBuf,
        /// The process that holds it, where it could be read.
        holder: Option<u32>,
    },

    /// The server is root and there is no account to run Postgres under.
    #[error(
        "Postgres refuses to run as root, and there is no account named {wanted} on this machine to run it under; \
         make one (useradd --system --shell /usr/sbin/nologin postgres), or set DATABASE_URL"
    )]
    NoAccount {
        /// The name that was tried.
        wanted: String,
    },

    /// The server runs under a user id without a name, which Postgres refuses.
    #[error(
        "user id {uid} has no entry in the password database, and Postgres refuses to run without one; \
         start the server as a named user (in a container: add one, or run as root), or set DATABASE_URL"
    )]
    NoName {
        /// The user id this process runs under.
        uid: u32,
    },

    /// The cluster belongs to an account that this process is not and cannot become.
    #[error("{} belongs to {owner}, but this server runs as {user}; {fix}", cluster.display())]
    ForeignOwner {
        /// The folder of the cluster.
        cluster: PathBuf,
        /// The account that owns it.
        owner: String,
        /// The account this process runs under.
        user: String,
        /// What to do.
        fix: String,
    },

    /// The account of the database cannot enter a folder on the way to the cluster.
    #[error(
        "Postgres runs as {account}, which may not enter {} on the way to {}; \
         allow it (chmod o+x {}), move the data directory, or set DATABASE_URL",
        blocked.display(), folder.display(), blocked.display()
    )]
    Unreachable {
        /// The account Postgres runs under.
        account: String,
        /// The first folder it may not enter.
        blocked: PathBuf,
        /// Where it has to get to.
        folder: PathBuf,
    },

    /// The data directory holds a link to a cluster which is no longer there.
    #[error(
        "{} points to {}, which is gone, and the database with it; put it back, \
         or remove the link to begin with an empty database",
        link.display(), target.display()
    )]
    LinkBroken {
        /// The link in the data directory.
        link: PathBuf,
        /// Where the cluster was.
        target: PathBuf,
    },

    /// Somebody else owns the folder that the socket would be put in.
    #[error("{} is needed for the database's socket, but somebody else has made it; remove it", folder.display())]
    SocketFolderTaken {
        /// The folder.
        folder: PathBuf,
    },

    /// A process that may or may not run on the cluster is named in its `postmaster.pid`.
    #[error(
        "process {pid} may be a Postgres running on {}; stop it, or, if it is something else, remove {}/postmaster.pid",
        cluster.display(), cluster.display()
    )]
    UnclearPostmaster {
        /// The process.
        pid: i32,
        /// The folder of the cluster.
        cluster: PathBuf,
    },

    /// The Postgres that an earlier server left running ignores every signal.
    #[error("Postgres process {pid}, left running on {} by an earlier server, does not stop", cluster.display())]
    WillNotStop {
        /// The process.
        pid: i32,
        /// The folder of the cluster.
        cluster: PathBuf,
    },

    /// The cluster could not be made.
    #[error("{}, which makes the database, failed:\n{output}", program.display())]
    NotMade {
        /// The program that failed.
        program: PathBuf,
        /// What it wrote to standard error.
        output: String,
    },

    /// Postgres ended, while starting or later, without being asked to.
    #[error("Postgres ended unexpectedly ({status}); the end of its log ({}):\n{log_tail}", log.display())]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// Where the whole log is.
        log: PathBuf,
        /// The last lines of it.
        log_tail: String,
    },

    /// Postgres takes too long to start.
    #[error("Postgres did not become ready within {seconds} s; the end of its log ({}):\n{log_tail}", log.display())]
    TooSlow {
        /// How long it was waited for.
        seconds: u64,
        /// Where the whole log is.
        log: PathBuf,
        /// The last lines of it.
        log_tail: String,
    },

    /// No server runs a private cluster on the data directory.
    #[error("no server runs its own database on {}; start one with: fourstep serve --data-dir {}", data_dir.display(), data_dir.display())]
    NotRunning {
        /// The data directory.
        data_dir: PathBuf,
    },

    /// A file or a program could not be used.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: says what was being done, and with what, when the system said no.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn in_words(holder: &Option<u32>) -> String {
    holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

fn upgrade_recipe(made_by: &str, installed: &str, data_dir: &Path) -> String {
    let data_dir = data_dir.display();
    format!(
        "the database in {data_dir}/postgres was made by PostgreSQL {made_by}, and here is only {installed}.\n\
         Install PostgreSQL {made_by} beside it, and it is used again. To move on to the newer one, then:\n\
         1. With the server running on {made_by}, write everything to a file:\n\
         \x20    pg_dump --format=custom --no-owner --file=fourstep.dump \"$(fourstep db url --data-dir {data_dir})\"\n\
         2. Stop the server and put the old cluster aside:\n\
         \x20    mv {data_dir}/postgres {data_dir}/postgres-{made_by}\n\
         3. Start the server, which makes a new cluster, and read everything back; once more if it says \"deadlock detected\":\n\
         \x20    pg_restore --clean --if-exists --no-owner --single-transaction \\\n\
         \x20        --dbname=\"$(fourstep db url --data-dir {data_dir})\" fourstep.dump\n\
         4. Start it again."
    )
}
