//! The disks that must not fill up.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::sys::statvfs::statvfs;

/// What is kept there, and a folder of it.
static WATCHED: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());

/// How much room there is on a disk, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What is kept there.
    pub of: &'static str,
    /// What may still be written by others than root.
    pub free: u64,
    /// All there is.
    pub size: u64,
}

/// From now on the disk of this folder is reported, by what is kept there.
pub fn watch_disk(of: &'static str, folder: &Path) {
    watched().insert(of, folder.to_owned());
}

/// The room on every disk that is watched and can be looked at. Blocks for as long as a file system takes, and one on
/// the network may take long.
pub fn look_at_disks() -> Vec<Disk> {
    let watched = watched().clone();
    let room = |(of, folder): (&'static str, PathBuf)| {
        let disk =
            statvfs(&folder).inspect_err(|error| tracing::debug!(%error, "Cannot look at the disk of {of}")).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        Some(Disk { of, free: bytes(disk.blocks_available()), size: bytes(disk.blocks()) })
    };
    watched.into_iter().filter_map(room).collect()
}

fn watched() -> MutexGuard<'static, BTreeMap<&'static str, PathBuf>> {
    // Nothing under the lock can leave it half changed.
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}
