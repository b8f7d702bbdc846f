//! The bytes of inputs, outputs and uploads, behind `object_store`: in a local folder, or in a bucket (`bucket`).
//!
//! A key is `outputs/<prediction>/<attempt>-<random>/out-<n>.png`. The attempt keeps a late worker from overwriting the
//! winner's files; the random part makes the key, and so the URL, a permission to read. An input's is
//! `inputs/<prediction>/<random>`, and no permission at all: nobody but a worker reads it. An upload's is
//! `uploads/<upload>/<random>/picture.png`, and a permission like an output's.

mod bucket;

use std::{fs::DirBuilder, ops::Range, os::unix::fs::DirBuilderExt, path::Path as FilePath, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use futures_util::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutPayload, local::LocalFileSystem, path::Path};

pub use self::bucket::{Bucket, Credentials};
use crate::domain::{PredictionId, UploadId};

/// Where inputs and outputs are kept. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
}

/// A key longer than this is none of ours, and no file system's either.
const KEY_LENGTH: usize = 200;

/// The file that says which site's the others are. In no folder of any of them, so that no sweep finds it.
const SITE: &str = "site-id";

/// Files in a group of a list.
const LISTED: usize = 500;

/// A stored file that was found, and may be read.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// Media type, from the name's ending.
    pub content_type: &'static str,
    /// Length in bytes.
    pub size: u64,
    /// Changes whenever the bytes do.
    pub etag: Option<String>,
    path: Path,
}

/// The store refused or could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be used.
    #[error("the output folder {path} cannot be used")]
    Folder {
        /// Which folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// An operation failed. Its text has its causes.
    #[error("the artifact store failed: {0}")]
    Store(object_store::Error),
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl Error {
    /// Whether the store is away, or too busy, and may be back soon. A folder is not: what is wrong with it stays wrong.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::Generic { store: "S3", .. }))
    }

    /// Whether what was asked for is not there: a file, or the bucket itself.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Store(object_store::Error::NotFound { .. }))
    }
}

impl Artifacts {
    /// Keeps outputs in a local folder, which is made if it is missing, closed to other accounts. With `fsync` a stored file survives a power
    /// loss once `put` has returned, as the row that refers to it does.
    pub fn in_folder(folder: &FilePath, fsync: bool) -> Result<Self, Error> {
        make_closed(folder).map_err(|source| Error::Folder { path: folder.display().to_string(), source })?;
        let store = LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(true).with_fsync(fsync);
        Ok(Self { store: Arc::new(store) })
    }

    /// Keeps files in a bucket. Nothing is asked of it yet.
    pub fn in_bucket(bucket: &Bucket) -> Result<Self, Error> {
        Ok(Self { store: Arc::new(bucket::open(bucket)?) })
    }

    /// Whether the store answers, and lets us look into it.
    pub async fn check(&self) -> Result<(), Error> {
        let nothing = Path::from("uploads/check");
        // Of a list that is refused it is not told why; of a file it is.
        match self.store.get(&nothing).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.store.list(Some(&nothing)).next().await.transpose()?;
        Ok(())
    }

    /// The folder of one attempt's outputs, new and unguessable each time it is asked for.
    pub fn attempt_folder(prediction: PredictionId, attempt: i32) -> Result<String, getrandom::Error> {
        Ok(format!("outputs/{prediction}/{attempt}-{}", random_name()?))
    }

    /// A place for a file that a prediction starts from, new each time it is asked for: two creates with the same id do
    /// not touch each other's.
    pub fn input_key(prediction: PredictionId) -> Result<String, getrandom::Error> {
        Ok(format!("inputs/{prediction}/{}", random_name()?))
    }

    /// A place for an upload whose file has this ending, new and unguessable each time it is asked for.
    pub fn upload_key(upload: UploadId, extension: &str) -> Result<String, getrandom::Error> {
        Ok(format!("uploads/{upload}/{}/picture.{extension}", random_name()?))
    }

    /// A text that nobody guesses, for URLs.
    pub fn unguessable() -> Result<String, getrandom::Error> {
        random_name()
    }

    /// Which site's the files are, if that has been said.
    pub async fn site(&self) -> Result<Option<String>, Error> {
        match self.load(SITE).await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says which site's the files are.
    pub async fn set_site(&self, site: &str) -> Result<(), Error> {
        self.put(SITE, site.as_bytes().to_vec()).await
    }

    /// Stores a file whole: a reader sees all of it or none.
    pub async fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let (path, bytes) = (Path::parse(key).map_err(object_store::Error::from)?, PutPayload::from(bytes));
        if let Err(error) = self.store.put(&path, bytes.clone()).await {
            // A late worker that deletes its own files deletes empty folders with them, perhaps one that was just made here.
            tracing::debug!(%error, "Storing a file once more");
            self.store.put(&path, bytes).await?;
        }
        Ok(())
    }

    /// Reads a stored file whole, by a key of ours.
    pub async fn load(&self, key: &str) -> Result<Vec<u8>, Error> {
        let path = Path::parse(key).map_err(object_store::Error::from)?;
        Ok(self.store.get(&path).await?.bytes().await?.into())
    }

    /// Finds a stored output or upload. `None` when there is none, whatever the key looks like.
    pub async fn find(&self, key: &str) -> Result<Option<StoredFile>, Error> {
        let Some(path) = Path::parse(key).ok().filter(|_| is_public_key(key)) else {
            return Ok(None);
        };
        match self.store.head(&path).await {
            Ok(file) => {
                Ok(Some(StoredFile { content_type: content_type(key), size: file.size, etag: file.e_tag, path }))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads some of a stored file's bytes, which may fail midway.
    pub async fn read(
        &self,
        file: &StoredFile,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, Error>>, Error> {
        // Stores refuse to read nothing.
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        let bytes = self.store.get_opts(&file.path, options).await?.into_stream();
        Ok(bytes.map_ok(|chunk| chunk.to_vec()).map_err(Error::from).boxed())
    }

    /// Deletes files of an attempt that came to nothing. What cannot be deleted is left to `delete_prediction`.
    pub async fn delete(&self, keys: Vec<String>) {
        for key in keys {
            let Ok(path) = Path::parse(&key) else { continue };
            if let Err(error) = self.store.delete(&path).await.map_err(Error::from)
                && !error.is_missing()
            {
                tracing::warn!(%error, key, "Could not delete an output that belongs to no prediction");
            }
        }
    }

    /// Keys of stored files that have not changed for this long and belong to a prediction or an upload, in groups.
    pub fn list_older(&self, age: Duration) -> BoxStream<'static, Result<Vec<String>, Error>> {
        let before = Utc::now() - age;
        let files = self.store.list(None).map_err(Error::from).try_filter_map(move |file| {
            let key = (file.last_modified < before).then(|| String::from(file.location)).filter(|key| is_owned(key));
            std::future::ready(Ok(key))
        });
        files.try_chunks(LISTED).map_err(|error| error.1).boxed()
    }

    /// Deletes everything stored for a prediction, by any attempt.
    pub async fn delete_prediction(&self, prediction: PredictionId) -> Result<(), Error> {
        for kind in ["inputs", "outputs"] {
            let folder = Path::from(format!("{kind}/{prediction}"));
            let files = self.store.list(Some(&folder)).map_ok(|file| file.location).boxed();
            self.store.delete_stream(files).try_collect::<Vec<_>>().await?;
        }
        Ok(())
    }
}

/// Whether a key is one of ours, which have their owner's id in the second place.
fn is_owned(key: &str) -> bool {
    let mut parts = key.split('/');
    let kind = parts.next().unwrap_or_default();
    let has_owner = parts.next().is_some_and(|id| id.parse::<PredictionId>().is_ok());
    ["inputs", "outputs", "uploads"].contains(&kind) && has_owner
}

/// Nobody guesses it.
fn random_name() -> Result<String, getrandom::Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// Whether a key has the shape of an output's or an upload's. Nothing else is public; `Path::parse` refuses `..` and empty
/// segments, and this what a file system might choke on, or mistake for a folder.
fn is_public_key(key: &str) -> bool {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let is_public = ["outputs/", "uploads/"].iter().any(|kind| key.starts_with(kind));
    is_public && key.split('/').count() == 4 && key.len() <= KEY_LENGTH && key.bytes().all(harmless)
}

fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.').map(|(_, extension)| extension) {
        Some("png") => "image/png",
        Some("jpg") => "image/jpeg",
        Some("webp") => "image/webp",
        _ => "application/octet-stream",
    }
}

/// Makes a folder that is missing. Those above it are others' to pass.
fn make_closed(folder: &FilePath) -> std::io::Result<()> {
    if let Some(above) = folder.parent() {
        std::fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_is_read_until_its_prediction_is_deleted() {
        let folder = std::env::temp_dir().join(format!("fourstep-artifacts-{}", uuid::Uuid::new_v4()));
        let artifacts = Artifacts::in_folder(&folder, true).expect("usable folder");
        let prediction = PredictionId::generate();
        let key = format!("{}/out-0.png", Artifacts::attempt_folder(prediction, 1).expect("entropy"));

        artifacts.put(&key, b"png".to_vec()).await.expect("stored");
        let file = artifacts.find(&key).await.expect("readable").expect("present");
        assert_eq!((file.content_type, file.size), ("image/png", 3));
        for (range, expected) in [(0..3, "png"), (1..2, "n"), (1..1, "")] {
            let bytes = artifacts.read(&file, range).await.expect("readable").try_concat().await.expect("readable");
            assert_eq!(bytes, expected.as_bytes());
        }

        let input = Artifacts::input_key(prediction).expect("entropy");
        artifacts.put(&input, b"photo".to_vec()).await.expect("stored");
        assert_eq!(artifacts.load(&input).await.expect("readable"), b"photo");
        assert!(artifacts.find(&input).await.expect("readable").is_none(), "an input is public");

        artifacts.delete_prediction(prediction).await.expect("deleted");
        assert!(artifacts.find(&key).await.expect("readable").is_none());
        assert!(artifacts.load(&input).await.is_err());
        std::fs::remove_dir_all(folder).expect("the test's own folder");
    }

    #[tokio::test]
    async fn keys_that_point_elsewhere_find_nothing() {
        let folder = std::env::temp_dir().join(format!("fourstep-artifacts-{}", uuid::Uuid::new_v4()));
        let artifacts = Artifacts::in_folder(&folder, false).expect("usable folder");
        std::fs::write(folder.join("secret"), "secret").expect("writable");
        artifacts.put("outputs/folder/1-random/out-0.png", Vec::new()).await.expect("stored");
        let long = format!("outputs/folder/1-random/{}", "x".repeat(300));
        for key in [
            "secret",
            "../secret",
            "outputs/../secret",
            "outputs//x",
            "",
            "/etc/passwd",
            "outputs/%2e%2e/secret",
            "outputs",
            "outputs/folder",
            "outputs/folder/1-random",
            "outputs/folder/1-random/",
            "outputs/folder/1-random/out-0.png/x",
            "outputs/\0",
            &long,
        ] {
            assert!(artifacts.find(key).await.expect("readable").is_none(), "{key} was found");
        }
        std::fs::remove_dir_all(folder).expect("the test's own folder");
    }
}
