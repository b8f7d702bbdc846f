//! Postgres's own log: one file in the data directory, bounded, and the last lines of it for error messages.
//!
//! Postgres writes to the file directly and not through a pipe of ours, so that it goes on doing so when this process
//! is killed. It appends, therefore the file can be emptied under its hands: that is how it is kept small.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Error;
use super::folder;

const MAXIMUM_LENGTH: u64 = 1 << 20;
const TAIL_LINES: usize = 20;
/// More than twenty lines of Postgres ever take.
const TAIL_LENGTH: u64 = 16 << 10;

/// The log file and where this start begins in it.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    begin: u64,
}

impl Log {
    /// Opens the log in a data directory for one more start.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("postgres.log");
        let file = folder::in_place(File::options().create(true).read(true).append(true).mode(0o600))
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let mut log = Self { path, file, begin: 0 };
        log.trim().map_err(Error::io("shorten", &log.path))?;
        log.begin = log.file.metadata().map_err(Error::io("read", &log.path))?.len();
        Ok(log)
    }

    /// Where the log is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle for the server to write to.
    pub(super) fn output(&self) -> Result<Stdio, Error> {
        Ok(Stdio::from(self.file.try_clone().map_err(Error::io("open", &self.path))?))
    }

    /// Moves a log that has grown too long to `postgres.log.1`. Lines written in between are lost, which a log can
    /// bear.
    pub(super) fn trim(&self) -> io::Result<()> {
        if self.file.metadata()?.len() > MAXIMUM_LENGTH {
            let aside = self.path.with_extension("log.1");
            let mut aside =
                folder::in_place(File::options().create(true).truncate(true).write(true).mode(0o600)).open(aside)?;
            io::copy(&mut File::open(&self.path)?, &mut aside)?;
            self.file.set_len(0)?;
        }
        Ok(())
    }

    /// The last lines since this start.
    pub(super) fn tail(&self) -> String {
        let read = || {
            let mut file = File::open(&self.path)?;
            let length = file.metadata()?.len();
            // A log that was emptied meanwhile is read from its beginning.
            let begin = if self.begin <= length { self.begin } else { 0 };
            file.seek(SeekFrom::Start(begin.max(length.saturating_sub(TAIL_LENGTH))))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}
