//! What a pull will do: which files of a model are here, which are not, and how large they are.

use std::path::PathBuf;

use super::client::Metadata;
use crate::domain::WeightFile;

/// What a pull of a model will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The model's files, in the order of the catalog.
    pub files: Vec<PlannedFile>,
    /// The folder of the model, once all its files are here.
    pub folder: PathBuf,
}

/// A file of a model, and how much of it is here.
#[derive(Clone, Debug)]
pub struct PlannedFile {
    /// Which file.
    pub file: WeightFile,
    /// Its size in bytes. `None` if it is not here and nobody may be asked.
    pub size: Option<u64>,
    /// How many of its bytes are here.
    pub present: u64,
    pub(super) source: Source,
}

/// Where a file's bytes will come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In the cache, under its path.
    Cache(PathBuf),
    /// On the hub, or in the cache but not under this path yet.
    Hub(Metadata),
    /// Not here, and nobody may be asked.
    Nowhere,
}

impl PlannedFile {
    /// Whether all of it is here.
    pub fn is_complete(&self) -> bool {
        self.size == Some(self.present)
    }

    /// How many bytes are to be downloaded, as far as that is known.
    pub fn missing(&self) -> u64 {
        self.size.unwrap_or(0).saturating_sub(self.present)
    }
}

impl Plan {
    /// How many bytes the model has, as far as that is known.
    pub fn size(&self) -> u64 {
        self.files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add)
    }

    /// How many bytes are to be downloaded, as far as that is known.
    pub fn missing(&self) -> u64 {
        self.files.iter().map(PlannedFile::missing).fold(0, u64::saturating_add)
    }
}
