//! A file that is being downloaded: its bytes so far, and the journal that says which of them have arrived.
//!
//! The file is written in blocks. A block is in the journal only after its bytes are safely on disk, so whatever stops
//! the program, a journal never promises what is not there. Both files end in `.incomplete`, which Python's tools show
//! and clean up as unfinished, but neither has the name older versions of `huggingface_hub` resume: they would take a
//! file of full length for a finished one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::digest::Digest;

const JOURNAL_FORMAT: &str = "fourstep-pull 1";

/// How a file is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) size: u64,
    pub(super) block: u64,
}

/// A file that is being downloaded.
#[derive(Debug)]
pub(super) struct Partial {
    extent: Extent,
    path: PathBuf,
    journal_path: PathBuf,
    bytes: File,
    journal: Mutex<Journal>,
}

#[derive(Debug)]
struct Journal {
    file: File,
    arrived: Vec<bool>,
}

impl Extent {
    fn blocks(self) -> u64 {
        self.size.div_ceil(self.block)
    }

    fn range_of(self, block: u64) -> Range<u64> {
        block * self.block..((block + 1) * self.block).min(self.size)
    }

    /// The header of a journal of such a file.
    fn header(self) -> String {
        format!("{JOURNAL_FORMAT} {} {}\n", self.size, self.block)
    }

    fn bytes_of(self, arrived: &[bool]) -> u64 {
        let ranges = (0..).zip(arrived).filter(|(_, arrived)| **arrived).map(|(block, _)| self.range_of(block));
        ranges.map(|range| range.end - range.start).sum()
    }
}

impl Partial {
    /// Goes on with what an earlier download left in the folder of blobs, or begins anew.
    pub(super) fn open(blobs: &Path, digest: &Digest, extent: Extent) -> io::Result<Self> {
        let (path, journal_path) = paths(blobs, digest);
        let mut arrived = arrived(&path, &journal_path, extent);
        arrived.resize(usize::try_from(extent.blocks()).map_err(io::Error::other)?, false);
        let bytes = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path)?;
        bytes.set_len(extent.size)?;
        // Written anew, not appended to: the last line may have been cut off in the middle of a number.
        let rewritten = journal_path.with_extension("rewritten.incomplete");
        let mut file = File::create(&rewritten)?;
        let lines =
            (0..).zip(&arrived).filter(|(_, arrived)| **arrived).map(|(block, _): (u64, _)| format!("{block}\n"));
        file.write_all((extent.header() + &lines.collect::<String>()).as_bytes())?;
        fs::rename(rewritten, &journal_path)?;
        Ok(Self { extent, path, journal_path, bytes, journal: Mutex::new(Journal { file, arrived }) })
    }

    /// How many bytes an earlier download left, without touching them.
    pub(super) fn peek(blobs: &Path, digest: &Digest, extent: Extent) -> u64 {
        let (path, journal_path) = paths(blobs, digest);
        extent.bytes_of(&arrived(&path, &journal_path, extent))
    }

    /// What has not arrived, in ranges of at most `most` bytes that begin with a block.
    pub(super) fn missing(&self, most: u64) -> Vec<Range<u64>> {
        let blocks_in_range = (most / self.extent.block).max(1);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (block, _) in (0..).zip(&self.journal().arrived).filter(|(_, arrived)| !**arrived) {
            let range = self.extent.range_of(block);
            match ranges.last_mut() {
                Some(last)
                    if last.end == range.start && range.end - last.start <= blocks_in_range * self.extent.block =>
                {
                    last.end = range.end;
                }
                _ => ranges.push(range),
            }
        }
        ranges
    }

    /// How many bytes have arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.extent.bytes_of(&self.journal().arrived)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// Keeps a block: on disk first, then in the journal.
    pub(super) fn keep(&self, start: u64, bytes: &[u8]) -> io::Result<()> {
        let block = start / self.extent.block;
        debug_assert_eq!(self.extent.range_of(block), start..start + bytes.len() as u64, "whole blocks are kept");
        self.bytes.write_all_at(bytes, start)?;
        self.bytes.sync_data()?;
        let mut journal = self.journal();
        journal.file.write_all(format!("{block}\n").as_bytes())?;
        if let Some(arrived) = usize::try_from(block).ok().and_then(|block| journal.arrived.get_mut(block)) {
            *arrived = true;
        }
        Ok(())
    }

    /// Hashes what has arrived; the right bytes become the blob. Returns what they hash to.
    pub(super) fn finish(&self, expected: &Digest, blob: &Path) -> io::Result<Digest> {
        let found = expected.of_file(&mut File::open(&self.path)?)?;
        if found == *expected {
            self.bytes.sync_all()?;
            fs::rename(&self.path, blob)?;
            if let Some(folder) = blob.parent() {
                File::open(folder)?.sync_all()?;
            }
            fs::remove_file(&self.journal_path)?;
        }
        Ok(found)
    }

    /// Throws away what has arrived.
    pub(super) fn discard(&self) -> io::Result<()> {
        fs::remove_file(&self.journal_path)?;
        fs::remove_file(&self.path)
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn paths(blobs: &Path, digest: &Digest) -> (PathBuf, PathBuf) {
    let name = digest.as_str();
    (blobs.join(format!("{name}.fourstep.incomplete")), blobs.join(format!("{name}.journal.incomplete")))
}

/// Which blocks the journal says have arrived; empty if it is of another file, or the bytes are gone.
fn arrived(path: &Path, journal_path: &Path, extent: Extent) -> Vec<bool> {
    let whole = fs::metadata(path).is_ok_and(|bytes| bytes.len() == extent.size);
    let Some(journal) = fs::read_to_string(journal_path).ok().filter(|_| whole) else {
        return Vec::new();
    };
    let (Some(lines), Ok(blocks)) = (journal.strip_prefix(&extent.header()), usize::try_from(extent.blocks())) else {
        return Vec::new();
    };
    let mut arrived = vec![false; blocks];
    for line in lines.split_inclusive('\n') {
        let block = line.strip_suffix('\n').and_then(|number| number.parse::<usize>().ok());
        if let Some(block) = block.and_then(|block| arrived.get_mut(block)) {
            *block = true;
        }
    }
    arrived
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTENT: Extent = Extent { size: 10, block: 4 };

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let folder = std::env::temp_dir().join(format!("fourstep-partial-{}", uuid::Uuid::new_v4()));
            fs::create_dir(&folder).expect("writable");
            Self(folder)
        }

        fn open(&self) -> Partial {
            Partial::open(&self.0, &digest(), EXTENT).expect("usable")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("the test's own folder");
        }
    }

    fn digest() -> Digest {
        // Of "0123456789".
        Digest::parse("84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882").expect("a hash")
    }

    #[test]
    fn what_was_kept_is_not_missing_when_it_is_opened_again() {
        let folder = Folder::new();
        let partial = folder.open();
        assert_eq!(partial.missing(8), [0..8, 8..10]);
        partial.keep(4, b"4567").expect("writable");
        drop(partial);
        let partial = folder.open();
        assert_eq!((partial.missing(8), partial.arrived()), (vec![0..4, 8..10], 4));
        assert_eq!(Partial::peek(&folder.0, &digest(), EXTENT), 4);
    }

    #[test]
    fn only_the_right_bytes_become_the_blob() {
        let folder = Folder::new();
        let blob = folder.0.join(digest().as_str());
        let partial = folder.open();
        for (start, bytes) in [(0, b"0123".as_slice()), (4, b"456X"), (8, b"89")] {
            partial.keep(start, bytes).expect("writable");
        }
        assert_ne!(partial.finish(&digest(), &blob).expect("readable"), digest());
        assert!(!blob.exists());
        partial.keep(4, b"4567").expect("writable");
        assert_eq!(partial.finish(&digest(), &blob).expect("readable"), digest());
        assert_eq!(fs::read(&blob).expect("the blob"), b"0123456789");
        assert_eq!(fs::read_dir(&folder.0).expect("readable").count(), 1, "the journal and the partial file are gone");
    }

    #[test]
    fn a_journal_cut_off_in_a_number_promises_only_whole_lines() {
        let folder = Folder::new();
        drop(folder.open());
        let (_, journal) = paths(&folder.0, &digest());
        fs::write(&journal, format!("{}1\n2", EXTENT.header())).expect("writable");
        let partial = folder.open();
        assert_eq!(partial.missing(4), [0..4, 8..10]);
        partial.keep(0, b"0123").expect("writable");
        drop(partial);
        assert_eq!(folder.open().arrived(), 8);
    }

    #[test]
    fn a_journal_without_its_bytes_or_of_another_division_promises_nothing() {
        let folder = Folder::new();
        let partial = folder.open();
        partial.keep(0, b"0123").expect("writable");
        let other = Extent { block: 5, ..EXTENT };
        assert_eq!(Partial::peek(&folder.0, &digest(), other), 0);
        fs::remove_file(paths(&folder.0, &digest()).0).expect("there");
        assert_eq!(folder.open().arrived(), 0);
    }
}
