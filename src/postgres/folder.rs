//! Where the files of a private cluster lie, and the locks that keep a second server away from them.
//!
//! ```text
//! DATA_DIR/lock                  held for life by the server
//! DATA_DIR/postgres.log          what Postgres has to say
//! DATA_DIR/postgres/             ours; or a link to a folder like it, where Postgres could not reach this one
//!     cluster/                   Postgres's own, made by initdb
//!     socket/                    Postgres's own, its unix socket
//!     access.conf, accounts.conf who may connect
//!     lock
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::Uid;

use super::account::Account;
use super::{Error, Options};

const HOME: &str = "postgres";
const CLUSTER: &str = "cluster";
const UNFINISHED_CLUSTER: &str = "cluster.unfinished";
const LOCK: &str = "lock";

/// Others may pass through but not look around: the account of Postgres has to get to its own folders.
const PASSABLE: u32 = 0o711;

/// The folders of one private cluster, locked for this process.
#[derive(Debug)]
pub(super) struct Folder {
    data_dir: PathBuf,
    home: PathBuf,
    /// Two, because the home may be outside and a copied data directory would link to it too. Closing releases them.
    _locks: [File; 2],
}

impl Folder {
    /// Locks the data directory, making it if need be, decides which account its cluster runs under and where it lies.
    pub(super) fn open(data_dir: &Path, options: &Options) -> Result<(Self, Account), Error> {
        make_passable(data_dir)?;
        let data_dir = data_dir.canonicalize().map_err(Error::io("resolve", data_dir))?;
        let data_dir_lock = lock(&data_dir)?;

        let home = existing_home(&data_dir)?;
        let cluster = home.as_deref().unwrap_or(&data_dir).join(CLUSTER);
        let account = Account::choose(&cluster, owner(&cluster)?, options.account.as_deref())?;
        let home = match home {
            Some(home) => reachable(home, &account)?,
            None => make_home(&data_dir, &account, &options.outside_folder)?,
        };
        let home_lock = lock(&home)?;
        Ok((Self { data_dir, home, _locks: [data_dir_lock, home_lock] }, account))
    }

    /// The data directory, without links in its path.
    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The folder around the cluster, which only this process writes to.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// The folder that Postgres calls its data directory.
    pub(super) fn cluster(&self) -> PathBuf {
        self.home.join(CLUSTER)
    }

    /// The major version that made the cluster, or nothing when there is no cluster yet.
    pub(super) fn made_by(&self) -> Result<Option<String>, Error> {
        let path = self.cluster().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(version) => Ok(Some(version.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// An empty folder for `initdb`, owned by the account; what an interrupted start left there is removed.
    pub(super) fn begin_cluster(&self, account: &Account) -> Result<PathBuf, Error> {
        let unfinished = self.home.join(UNFINISHED_CLUSTER);
        match fs::remove_dir_all(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &unfinished)(error));
            }
            _ => {}
        }
        make_private(&unfinished, account)?;
        Ok(unfinished)
    }

    /// Moves what `initdb` has made to its place, for good.
    pub(super) fn finish_cluster(&self) -> Result<(), Error> {
        let cluster = self.cluster();
        fs::rename(self.home.join(UNFINISHED_CLUSTER), &cluster)
            .map_err(Error::io("move the new cluster to", &cluster))?;
        let home = File::open(&self.home).and_then(|home| home.sync_all());
        home.map_err(Error::io("write to disk", &self.home))
    }
}

/// Makes a folder that only the account can use.
pub(super) fn make_private(folder: &Path, account: &Account) -> Result<(), Error> {
    DirBuilder::new().mode(0o700).create(folder).map_err(Error::io("make", folder))?;
    account.take_over(folder)
}

/// Lets an open fail where a link leads elsewhere: root may serve a folder that belongs to somebody else, and must
/// not write wherever they point.
pub(super) fn in_place(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(OFlag::O_NOFOLLOW.bits())
}

/// The folder of the cluster that belongs to a data directory, if both are there.
pub(super) fn cluster_of(data_dir: &Path) -> Option<PathBuf> {
    Some(data_dir.join(HOME).canonicalize().ok()?.join(CLUSTER))
}

/// Makes a folder that no other account of the machine looks into, if it is missing. Only root's Postgres runs under
/// another account, which has to get through.
pub fn make_passable(folder: &Path) -> Result<(), Error> {
    let mode = if Uid::effective().is_root() { PASSABLE } else { 0o700 };
    DirBuilder::new().recursive(true).mode(mode).create(folder).map_err(Error::io("make", folder))
}

fn existing_home(data_dir: &Path) -> Result<Option<PathBuf>, Error> {
    let home = data_dir.join(HOME);
    match home.canonicalize() {
        Ok(resolved) => Ok(Some(resolved)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(&home) {
            Ok(target) => Err(Error::LinkBroken { link: home, target }),
            Err(_) => Ok(None),
        },
        Err(error) => Err(Error::io("resolve", &home)(error)),
    }
}

fn owner(cluster: &Path) -> Result<Option<Uid>, Error> {
    match fs::symlink_metadata(cluster) {
        Ok(metadata) => Ok(Some(Uid::from_raw(metadata.uid()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", cluster)(error)),
    }
}

/// In the data directory if the account can get there. Else outside, under a name that is never used again, so that
/// a data directory that was removed and made anew does not find the old database.
fn make_home(data_dir: &Path, account: &Account, outside_folder: &Path) -> Result<PathBuf, Error> {
    let inside = data_dir.join(HOME);
    let Some(blocked) = account.blocked_at(data_dir)? else {
        return make_open_folder(inside);
    };
    make_passable(outside_folder)?;
    let outside_folder = outside_folder.canonicalize().map_err(Error::io("resolve", outside_folder))?;
    let name = uuid::Uuid::new_v4().simple().to_string();
    let outside = reachable(make_open_folder(outside_folder.join(name))?, account)?;
    symlink(&outside, &inside).map_err(Error::io("make the link", &inside))?;
    tracing::info!(
        "The database is in {}, because its account {} may not enter {}",
        outside.display(),
        account.name(),
        blocked.display()
    );
    Ok(outside)
}

fn make_open_folder(folder: PathBuf) -> Result<PathBuf, Error> {
    // The mode is set after making, where the umask does not count.
    fs::create_dir(&folder)
        .and_then(|()| fs::set_permissions(&folder, Permissions::from_mode(PASSABLE)))
        .map_err(Error::io("make", &folder))?;
    Ok(folder)
}

fn reachable(home: PathBuf, account: &Account) -> Result<PathBuf, Error> {
    match account.blocked_at(&home)? {
        None => Ok(home),
        Some(blocked) => Err(Error::Unreachable { account: account.name().to_owned(), blocked, folder: home }),
    }
}

/// A lock that this process has given up lives on for a moment in a child that is being started, until the child's
/// program begins.
const OWN_LOCK_LINGERS: Duration = Duration::from_secs(1);

/// Takes the lock of a folder and writes our process id into it, for whoever comes second.
fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join(LOCK);
    let mut file = in_place(File::options().create(true).truncate(false).read(true).write(true))
        .open(&path)
        .map_err(Error::io("open", &path))?;
    let deadline = Instant::now() + OWN_LOCK_LINGERS;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.rewind().and_then(|()| file.read_to_string(&mut holder)).map_err(Error::io("read", &path))?;
                let holder: Option<u32> = holder.trim().parse().ok();
                if holder != Some(std::process::id()) || Instant::now() > deadline {
                    return Err(Error::Locked { folder: folder.to_owned(), holder });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
    }
    file.rewind().map_err(Error::io("write", &path))?;
    file.set_len(0)
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()))
        .map_err(Error::io("write", &path))?;
    Ok(file)
}
