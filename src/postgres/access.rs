//! Who may connect to the private cluster, and how: over one unix socket, recognized by the kernel.
//!
//! There is no password to keep or leak. Postgres asks the kernel who is at the other end of the socket (`peer`) and
//! admits the server's own account and the one Postgres runs under, nobody else; the folder of the socket is closed
//! to others besides. The application's role owns its database and is no superuser: SQL that slips in cannot run
//! programs.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::account::Account;
use super::folder::{self, Folder};
use super::{Error, Options};

/// The database of the application.
pub(super) const DATABASE: &str = "fourstep";
/// The role that owns it.
pub(super) const OWNER: &str = "fourstep";
/// The role `initdb` makes, which may do everything.
pub(super) const SUPERUSER: &str = "postgres";
/// Only part of the socket's file name: nothing listens on the network.
pub(super) const PORT: u16 = 5432;

/// Name of the rule that ties operating system accounts to roles.
const MAP: &str = "fourstep";

/// The longest path of a unix socket that every system takes (104 bytes with the end mark on macOS, 108 on Linux).
const LONGEST_SOCKET_PATH: usize = 103;

/// The folder that holds the unix socket.
#[derive(Debug)]
pub(super) struct Socket {
    folder: PathBuf,
    is_outside: bool,
}

impl Socket {
    /// Makes the folder: beside the cluster, or, when that path is too long, under a short name derived from it.
    pub(super) fn prepare(folder: &Folder, account: &Account, options: &Options) -> Result<Self, Error> {
        let beside = folder.home().join("socket");
        let file_name_length = format!("/.s.PGSQL.{PORT}").len();
        let fits = beside.as_os_str().len() + file_name_length <= LONGEST_SOCKET_PATH && beside.to_str().is_some();
        let socket = if fits {
            Self { folder: beside, is_outside: false }
        } else {
            let digest = Sha256::digest(folder.home().as_os_str().as_bytes());
            let name = format!("fourstep-{}", hex::encode(&digest[..8]));
            Self { folder: options.short_folder.join(name), is_outside: true }
        };
        match fs::symlink_metadata(&socket.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => folder::make_private(&socket.folder, account)?,
            Err(error) => return Err(Error::io("read", &socket.folder)(error)),
            // Anybody can make the short name first and would then receive our connections.
            Ok(found) if found.is_dir() && found.uid() == account.uid().as_raw() && found.mode() & 0o077 == 0 => {}
            Ok(_) => return Err(Error::SocketFolderTaken { folder: socket.folder }),
        }
        socket.remove_files();
        Ok(socket)
    }

    /// Removes what a killed Postgres left in the folder. It would see to that itself, were it not for a predecessor
    /// that is a zombie still, which it takes for alive.
    fn remove_files(&self) {
        for name in [format!(".s.PGSQL.{PORT}"), format!(".s.PGSQL.{PORT}.lock")] {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }

    /// The socket of a cluster that somebody else has started.
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder, is_outside: true }
    }

    /// The folder as a value of the setting `unix_socket_directories`, a comma-separated list of quoted names.
    pub(super) fn setting(&self) -> OsString {
        OsString::from(format!("\"{}\"", self.folder.to_string_lossy().replace('"', "\"\"")))
    }

    /// The URL of a database behind this socket.
    pub(super) fn url(&self, role: &str, database: &str) -> String {
        // The host in front is a placeholder that every client replaces with the one in the query. The port is named
        // so that a PGPORT in the environment does not count.
        format!("postgres://{role}@localhost:{PORT}/{database}?host={}", percent_encoded(&self.folder))
    }

    /// Removes the folder if it lies where nothing else would ever remove it.
    pub(super) fn remove(&self) {
        if self.is_outside
            && let Err(error) = fs::remove_dir(&self.folder)
        {
            tracing::debug!("could not remove {}: {error}", self.folder.display());
        }
    }
}

/// The file with the rules of who may connect, in Postgres's `pg_hba.conf` format.
pub(super) fn rules_file(folder: &Folder) -> PathBuf {
    folder.home().join("access.conf")
}

/// The file that says which account may be which role, in Postgres's `pg_ident.conf` format.
pub(super) fn accounts_file(folder: &Folder) -> PathBuf {
    folder.home().join("accounts.conf")
}

/// Writes both files anew: the same folder may be used as root today and as somebody else tomorrow.
pub(super) fn write_rules(folder: &Folder, account: &Account) -> Result<(), Error> {
    let rules = format!("# Written at every start.\nlocal all {SUPERUSER},{OWNER} peer map={MAP}\n");
    let mut accounts = "# Written at every start.\n".to_owned();
    for name in account.admitted() {
        let name = name.replace('"', "\"\"");
        for role in [OWNER, SUPERUSER] {
            let _ = writeln!(accounts, "{MAP} \"{name}\" {role}");
        }
    }
    for (path, text) in [(rules_file(folder), rules), (accounts_file(folder), accounts)] {
        let write = || {
            let mut file = folder::in_place(File::options().create(true).truncate(true).write(true)).open(&path)?;
            // Whatever the umask: Postgres has to read them.
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.write_all(text.as_bytes())
        };
        write().map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// What makes the application's role and database; one statement a line, as single-user Postgres reads them.
/// `createdb` is for tests, which make a database each.
pub(super) const CREATE_DATABASE: &str = "\
create role fourstep login createdb
create database fourstep owner fourstep
";

fn percent_encoded(path: &Path) -> String {
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut encoded, &byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        encoded
    })
}
