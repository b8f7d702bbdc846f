//! Models from the Hugging Face Hub, or a mirror of it: fetched once, verified, and shared with Python's cache.
//!
//! `Hub::plan` asks what there is and what is missing; `Hub::pull` brings it; `find_model` finds what is here without
//! asking anyone. No file counts before its size and hash are those the hub announced. The crate hf-hub (1.0.0) is not
//! used: it starts a broken transfer over, does not look at the status of the answer it saves, verifies no hash, and
//! brings 48 crates. Knows nothing of the command line; `cli::pull` shows what happens here to people.

mod cache;
mod client;
mod digest;
mod download;
mod environment;
mod error;
mod folder;
mod lock;
mod partial;
mod plan;
mod pull;
mod retry;
mod size;

use std::{fs, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};

use self::{
    cache::{Cache, is_safe},
    client::Client,
    partial::{Extent, Partial},
    plan::Source,
};
pub use self::{
    environment::{Environment, Token},
    error::Error,
    folder::find_model,
    plan::{Plan, PlannedFile},
    pull::{Event, Observer},
    size::ByteSize,
};
use crate::domain::{Model, WeightFile};

/// How bytes are fetched.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// How many connections all files together use.
    pub connections: usize,
    /// How many bytes one request asks for at most, and how many a kill costs at most.
    pub range_bytes: u64,
    /// How many attempts in a row may bring nothing.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each further one.
    pub first_backoff: Duration,
    /// How long a connection may bring nothing.
    pub stall: Duration,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            connections: 8,
            range_bytes: 32 << 20,
            attempts: 6,
            first_backoff: Duration::from_secs(1),
            stall: Duration::from_secs(30),
        }
    }
}

/// A hub, seen through a local cache.
#[derive(Clone, Debug)]
pub struct Hub {
    environment: Environment,
    cache: Cache,
    client: Client,
}

impl Hub {
    /// The hub and the cache that the environment names.
    pub fn new(environment: Environment, transfer: Transfer) -> Result<Self, Error> {
        let from_file = || environment.token_file.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let token = environment.token.clone().or_else(|| Token::new(&from_file()?));
        let client = Client::new(&environment.endpoint, token, transfer)?;
        Ok(Self { cache: Cache::new(environment.cache.clone()), client, environment })
    }

    /// Finds out what of a model is here and what is not. Downloads and changes nothing.
    pub async fn plan(&self, model: &Model) -> Result<Plan, Error> {
        if model.files.is_empty() {
            return Err(Error::NothingToPull { slug: model.slug.clone() });
        }
        if let Some(file) = model.files.iter().find(|file| !is_safe(file)) {
            return Err(Error::Catalog { repository: file.repository.clone(), path: file.path.clone() });
        }
        let files = stream::iter(model.files.clone()).map(|file| self.look_up(file));
        let files = files.buffered(self.client.transfer().connections).try_collect().await?;
        Ok(Plan { files, folder: folder::location(model, &self.environment) })
    }

    async fn look_up(&self, file: WeightFile) -> Result<PlannedFile, Error> {
        // A branch may mean another commit by now.
        let settled = client::is_commit(&file.revision) || self.environment.offline;
        if let Some(pointer) = self.cache.find(&file).filter(|_| settled) {
            let size = fs::metadata(&pointer).map_err(Error::folder(&pointer))?.len();
            return Ok(PlannedFile { file, size: Some(size), present: size, source: Source::Cache(pointer) });
        }
        if self.environment.offline {
            return Ok(PlannedFile { file, size: None, present: 0, source: Source::Nowhere });
        }
        let metadata = self.client.metadata(&file).await?;
        let extent = Extent { size: metadata.size, block: self.client.transfer().block_bytes() };
        let blob = fs::metadata(self.cache.blob(&file, &metadata.digest));
        let present = if blob.is_ok_and(|blob| blob.len() == metadata.size) {
            metadata.size
        } else {
            Partial::peek(&self.cache.blobs(&file), &metadata.digest, extent)
        };
        Ok(PlannedFile { size: Some(metadata.size), present, source: Source::Hub(metadata), file })
    }
}
