//! One download of a blob at a time, over all processes: the same locks on the same files as Python's `filelock`.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

const LOOK: Duration = Duration::from_millis(200);

/// Held until it is dropped, and released by the system if the process dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else has the lock. `on_wait` is called once, if it must wait at all.
    pub(super) async fn acquire(path: &Path, on_wait: impl FnOnce()) -> io::Result<Self> {
        let mut on_wait = Some(on_wait);
        loop {
            // Python opens its locks to the group, for caches that several users share.
            let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o664).open(path)?;
            match file.try_lock() {
                Ok(()) if is_still_at(&file, path) => return Ok(Self { _file: file }),
                // Someone removed the file in between; a lock on it would keep nobody out.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(on_wait) = on_wait.take() {
                        on_wait();
                    }
                    tokio::time::sleep(LOOK).await;
                }
                // Network file systems without locks: two downloads then write the same bytes to the same places.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Self { _file: file });
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

fn is_still_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}
