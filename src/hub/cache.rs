//! The hub's cache on disk, in the layout of Python's `huggingface_hub`: what either downloads, both find.
//!
//! ```text
//! models--owner--name/blobs/<hash>                        the bytes, named by what they hash to
//! models--owner--name/snapshots/<commit>/<path>           a link to the blob
//! models--owner--name/refs/<branch>                       the commit a branch meant when it was last asked for
//! .locks/models--owner--name/<hash>.lock
//! ```

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use uuid::Uuid;

use super::{Error, client::is_commit, digest::Digest};
use crate::domain::WeightFile;

/// <https://bford.info/cachedir/>: tells backup programs that this can be had again.
const CACHE_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
                         # Files from the hub, which can be downloaded again. See https://bford.info/cachedir/\n";

/// A hub cache.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the link to a file of a commit belongs.
    pub(super) fn pointer(&self, file: &WeightFile, commit: &str) -> PathBuf {
        self.repository(file).join("snapshots").join(commit).join(&file.path)
    }

    /// The link to a file at its revision, if the file is here.
    pub(super) fn find(&self, file: &WeightFile) -> Option<PathBuf> {
        let commit = if is_commit(&file.revision) {
            file.revision.clone()
        } else {
            fs::read_to_string(self.repository(file).join("refs").join(&file.revision)).ok()?.trim().to_owned()
        };
        Some(self.pointer(file, &commit)).filter(|pointer| is_commit(&commit) && pointer.is_file())
    }

    pub(super) fn blobs(&self, file: &WeightFile) -> PathBuf {
        self.repository(file).join("blobs")
    }

    pub(super) fn blob(&self, file: &WeightFile, digest: &Digest) -> PathBuf {
        self.blobs(file).join(digest.as_str())
    }

    /// The lock on a blob, its folder made.
    pub(super) fn lock(&self, file: &WeightFile, digest: &Digest) -> Result<PathBuf, Error> {
        let folder = self.root.join(".locks").join(folder_name(&file.repository));
        make_folder(&folder)?;
        Ok(folder.join(format!("{}.lock", digest.as_str())))
    }

    /// Makes the folders a download into the cache needs.
    pub(super) fn prepare(&self, file: &WeightFile) -> Result<(), Error> {
        make_folder(&self.blobs(file))?;
        let tag = self.root.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(&tag, CACHE_TAG).map_err(Error::folder(&tag))?;
        }
        Ok(())
    }

    /// Makes a blob findable under its path at a commit, and the commit under the revision that was asked for.
    pub(super) fn publish(&self, file: &WeightFile, commit: &str, digest: &Digest) -> Result<PathBuf, Error> {
        let pointer = self.pointer(file, commit);
        // Out of the folders of the path and of the commit and of `snapshots`.
        let up = "../".repeat(file.path.split('/').count() + 1);
        replace_link(Path::new(&format!("{up}blobs/{}", digest.as_str())), &pointer)?;
        if file.revision != commit {
            let reference = self.repository(file).join("refs").join(&file.revision);
            let temporary = beside(&reference);
            make_folder_of(&reference)?;
            fs::write(&temporary, commit)
                .and_then(|()| fs::rename(&temporary, &reference))
                .map_err(Error::folder(&reference))?;
        }
        Ok(pointer)
    }

    /// Removes a blob that is not what its name says.
    pub(super) fn remove(&self, file: &WeightFile, digest: &Digest) -> Result<(), Error> {
        let blob = self.blob(file, digest);
        fs::remove_file(&blob).map_err(Error::folder(&blob))
    }

    /// Bytes free for the user on the cache's disk.
    pub(super) fn free_space(&self) -> Result<u64, Error> {
        let folder = self.root.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
        let disk = nix::sys::statvfs::statvfs(folder).map_err(|error| Error::folder(folder)(io::Error::from(error)))?;
        Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    fn repository(&self, file: &WeightFile) -> PathBuf {
        self.root.join(folder_name(&file.repository))
    }
}

/// The hash that names a pointer's blob. `None` where links are not used and the pointer is the file itself.
pub(super) fn digest_behind(pointer: &Path) -> Option<Digest> {
    Digest::parse(fs::read_link(pointer).ok()?.file_name()?.to_str()?)
}

/// Whether every part of a file's names stays inside its repository and folder.
pub(super) fn is_safe(file: &WeightFile) -> bool {
    let inside =
        |path: &str| !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let repository = file.repository.split('/').count() == 2 && !file.repository.contains("--");
    repository && [&file.repository, &file.revision, &file.path, file.destination()].into_iter().all(inside)
}

/// Puts a link where it belongs in one step, whatever was there.
pub(super) fn replace_link(target: &Path, link: &Path) -> Result<(), Error> {
    make_folder_of(link)?;
    let temporary = beside(link);
    symlink(target, &temporary).and_then(|()| fs::rename(&temporary, link)).map_err(Error::folder(link))
}

/// Hashes a file of the cache as the digest does.
pub(super) fn hash(path: &Path, digest: &Digest) -> Result<Digest, Error> {
    File::open(path).and_then(|mut file| digest.of_file(&mut file)).map_err(Error::folder(path))
}

fn make_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(Error::folder(folder))
}

fn make_folder_of(path: &Path) -> Result<(), Error> {
    path.parent().map_or(Ok(()), make_folder)
}

fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.fourstep", Uuid::new_v4()))
}

fn folder_name(repository: &str) -> String {
    format!("models--{}", repository.replace('/', "--"))
}
