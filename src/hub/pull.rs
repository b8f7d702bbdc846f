//! Carries out a plan: room on the disk first, then every file downloaded, verified and linked, then the folder.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    Error, Hub, Plan,
    cache::{digest_behind, hash},
    client::Metadata,
    digest::Digest,
    download::{Download, Step},
    folder,
    lock::Lock,
    partial::{Extent, Partial},
    plan::{PlannedFile, Source},
};
use crate::domain::{Model, WeightFile};

/// How many files are under way at a time; the connections are shared among them.
const FILES_AT_ONCE: usize = 4;

/// Something that happens to a file of a plan, by its place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its bytes begin to arrive, or go on after these that are here.
    Started {
        /// Which file.
        file: usize,
        /// Bytes that are here from before.
        present: u64,
        /// All its bytes.
        size: u64,
    },
    /// So many more bytes have arrived.
    Arrived {
        /// Which file.
        file: usize,
        /// How many.
        bytes: u64,
    },
    /// So many bytes that had arrived must arrive again.
    Lost {
        /// Which file.
        file: usize,
        /// How many.
        bytes: u64,
    },
    /// Another program is downloading it.
    Waiting {
        /// Which file.
        file: usize,
    },
    /// The connection failed; it goes on after a while.
    Broken {
        /// Which file.
        file: usize,
        /// Why.
        reason: String,
        /// How long until the next attempt.
        wait: Duration,
    },
    /// All bytes are here and are being hashed.
    Verifying {
        /// Which file.
        file: usize,
    },
    /// The bytes do not hash to what they should and are fetched again.
    Damaged {
        /// Which file.
        file: usize,
    },
    /// It is here and right.
    Finished {
        /// Which file.
        file: usize,
    },
}

/// Hears what happens during a pull.
pub type Observer<'a> = &'a (dyn Fn(Event) + Sync);

impl Hub {
    /// Brings what is missing of a model, verifies all of it, and returns its folder. What has arrived when it is
    /// stopped, in whatever way, is not fetched again by the next pull.
    pub async fn pull(&self, model: &Model, plan: &Plan, observer: Observer<'_>) -> Result<PathBuf, Error> {
        self.check_offline(plan)?;
        self.check_space(plan)?;
        let connections = Semaphore::new(self.client.transfer().connections);
        let mut files = Vec::new();
        for (index, planned) in plan.files.iter().enumerate() {
            let task = FilePull { hub: self, index, file: &planned.file, connections: &connections, observer };
            files.push(async move { Ok((index, task.run(planned).await?)) });
        }
        let mut pointers: Vec<(usize, PathBuf)> =
            stream::iter(files).buffer_unordered(FILES_AT_ONCE).try_collect().await?;
        pointers.sort_unstable();
        let found = pointers.into_iter().map(|(index, pointer)| (&plan.files[index].file, pointer));
        folder::assemble(model, &self.environment, found)
    }

    fn check_offline(&self, plan: &Plan) -> Result<(), Error> {
        let mut absent = plan.files.iter().filter(|file| matches!(file.source, Source::Nowhere));
        let Some(first) = absent.next() else { return Ok(()) };
        let first = name(&first.file);
        Err(Error::Offline { missing: absent.count() + 1, first })
    }

    fn check_space(&self, plan: &Plan) -> Result<(), Error> {
        self.check_room(plan.missing())
    }

    fn check_room(&self, needed: u64) -> Result<(), Error> {
        let free = self.cache.free_space()?;
        if needed > free {
            return Err(Error::DiskFull { folder: self.cache.root().display().to_string(), needed, free });
        }
        Ok(())
    }
}

/// One file of a pull.
struct FilePull<'a> {
    hub: &'a Hub,
    index: usize,
    file: &'a WeightFile,
    connections: &'a Semaphore,
    observer: Observer<'a>,
}

impl FilePull<'_> {
    /// Returns the link under which the cache has the file.
    async fn run(&self, planned: &PlannedFile) -> Result<PathBuf, Error> {
        let pointer = match &planned.source {
            Source::Cache(pointer) => match self.verify_cached(pointer).await? {
                true => pointer.clone(),
                false => self.fetch(&self.hub.client.metadata(self.file).await?).await?,
            },
            Source::Hub(metadata) => self.fetch(metadata).await?,
            Source::Nowhere => unreachable!("an offline pull with files missing is refused before"),
        };
        (self.observer)(Event::Finished { file: self.index });
        Ok(pointer)
    }

    /// Whether a file that was found in the cache is what the name of its blob says; a wrong one is removed.
    async fn verify_cached(&self, pointer: &Path) -> Result<bool, Error> {
        let Some(digest) = digest_behind(pointer) else {
            // A cache without links does not know what its files should hash to; the hub does.
            return self.verify_unlinked(pointer).await;
        };
        self.verify_blob(pointer, &digest).await
    }

    async fn verify_unlinked(&self, pointer: &Path) -> Result<bool, Error> {
        if self.hub.environment.offline {
            tracing::warn!("{} cannot be verified without the network", pointer.display());
            return Ok(true);
        }
        let metadata = self.hub.client.metadata(self.file).await?;
        self.observe(|file| Event::Verifying { file });
        Ok(self.hash(pointer, &metadata.digest).await? == metadata.digest)
    }

    async fn verify_blob(&self, path: &Path, digest: &Digest) -> Result<bool, Error> {
        self.observe(|file| Event::Verifying { file });
        let found = self.hash(path, digest).await?;
        if found != *digest {
            self.observe(|file| Event::Damaged { file });
            if self.hub.environment.offline {
                return Err(Error::Corrupt { file: self.name() });
            }
            self.hub.cache.remove(self.file, digest)?;
        }
        Ok(found == *digest)
    }

    async fn hash(&self, path: &Path, digest: &Digest) -> Result<Digest, Error> {
        let (path, digest) = (path.to_owned(), digest.clone());
        blocking(move || hash(&path, &digest)).await
    }

    /// The blob that the hub describes, from the cache or from the hub, under the file's path.
    async fn fetch(&self, metadata: &Metadata) -> Result<PathBuf, Error> {
        let cache = &self.hub.cache;
        cache.prepare(self.file)?;
        let lock = cache.lock(self.file, &metadata.digest)?;
        let waiting = || self.observe(|file| Event::Waiting { file });
        let lock = Lock::acquire(&lock, waiting).await.map_err(Error::folder(&lock))?;
        let lock = Arc::new(lock);

        // Another path of the repository, another commit or another program may have brought the same bytes.
        let blob = cache.blob(self.file, &metadata.digest);
        if !blob.is_file() || !self.verify_blob(&blob, &metadata.digest).await? {
            self.download(metadata, &blob, &lock).await?;
        }
        cache.publish(self.file, &metadata.commit, &metadata.digest)
    }

    async fn download(&self, metadata: &Metadata, blob: &Path, lock: &Arc<Lock>) -> Result<(), Error> {
        // Also where the plan did not reckon with it, as it was in the cache and is damaged.
        let extent = Extent { size: metadata.size, block: self.hub.client.transfer().block_bytes() };
        let present = Partial::peek(&self.hub.cache.blobs(self.file), &metadata.digest, extent);
        self.hub.check_room(metadata.size.saturating_sub(present))?;
        let mut found = self.download_once(metadata, blob, lock).await?;
        if found != metadata.digest {
            // Once more: bytes do get damaged on their way. Twice says that the server has others than it announces.
            self.observe(|file| Event::Damaged { file });
            found = self.download_once(metadata, blob, lock).await?;
        }
        if found != metadata.digest {
            let (file, expected) = (self.name(), metadata.digest.to_string());
            return Err(Error::Damaged { file, expected, found: found.to_string() });
        }
        Ok(())
    }

    /// Returns what the bytes hash to. Only the right ones are kept.
    async fn download_once(&self, metadata: &Metadata, blob: &Path, lock: &Arc<Lock>) -> Result<Digest, Error> {
        let blobs = self.hub.cache.blobs(self.file);
        let extent = Extent { size: metadata.size, block: self.hub.client.transfer().block_bytes() };
        let partial = Partial::open(&blobs, &metadata.digest, extent).map_err(Error::folder(&blobs))?;
        let partial = Arc::new(partial);
        self.observe(|file| Event::Started { file, present: partial.arrived(), size: metadata.size });
        let report = |step: Step| self.report(step);
        let download = Download {
            client: &self.hub.client,
            file: self.file,
            metadata,
            partial: partial.clone(),
            connections: self.connections,
            report: &report,
        };
        download.run().await?;
        self.observe(|file| Event::Verifying { file });
        let (expected, blob, lock) = (metadata.digest.clone(), blob.to_owned(), lock.clone());
        blocking(move || {
            // Work that blocks goes on when the pull is dropped; nobody else may begin before it has ended.
            let _lock = lock;
            let found = partial.finish(&expected, &blob).map_err(Error::folder(&blob))?;
            if found != expected {
                partial.discard().map_err(Error::folder(&blob))?;
            }
            Ok(found)
        })
        .await
    }

    fn report(&self, step: Step) {
        self.observe(|file| match step {
            Step::Arrived(bytes) => Event::Arrived { file, bytes },
            Step::Lost(bytes) => Event::Lost { file, bytes },
            Step::Broken { reason, wait } => Event::Broken { file, reason, wait },
        });
    }

    fn name(&self) -> String {
        name(self.file)
    }

    fn observe(&self, event: impl FnOnce(usize) -> Event) {
        (self.observer)(event(self.index));
    }
}

fn name(file: &WeightFile) -> String {
    format!("{}/{}", file.repository, file.path)
}

/// Long reading and hashing, away from the threads that move bytes.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
