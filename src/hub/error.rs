//! What keeps a model from being pulled, each with what to do about it.

use std::{io, time::Duration};

use super::ByteSize;

/// Why a model could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `HF_HOME` nor `HOME`.
    #[error("no folder for the hub cache: set HF_HOME to one")]
    NoCacheFolder,
    /// `HF_ENDPOINT` is no address.
    #[error("HF_ENDPOINT is {endpoint:?}, which is not an http:// or https:// address")]
    Endpoint {
        /// What it is.
        endpoint: String,
    },
    /// A model that is made here has no weights to pull.
    #[error("model {slug:?} has no weights on the hub: it needs none, or they come with the program")]
    NothingToPull {
        /// Which model.
        slug: String,
    },
    /// The catalog names a file that cannot be.
    #[error("the catalog's file {path:?} of {repository:?} is not a path inside a repository and a folder")]
    Catalog {
        /// The repository.
        repository: String,
        /// The file.
        path: String,
    },
    /// A file or folder cannot be read or written.
    #[error("{path} cannot be used: {source}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It would not fit.
    #[error(
        "not enough disk space: {} to download and {} free in {folder}; free some, or set HF_HOME to a folder on another disk",
        ByteSize(*needed),
        ByteSize(*free)
    )]
    DiskFull {
        /// The cache.
        folder: String,
        /// What is still to download, bytes.
        needed: u64,
        /// What there is, bytes.
        free: u64,
    },
    /// Files are missing and the network must not be used.
    #[error("{missing} files are not here yet, first {first}, and HF_HUB_OFFLINE is set: unset it to download them")]
    Offline {
        /// How many.
        missing: usize,
        /// One of them.
        first: String,
    },
    /// 401 without a token.
    #[error(
        "{file}: the hub wants to know who asks (401): {repository} is private or gated, or does not exist; \
         set HF_TOKEN to a token from https://huggingface.co/settings/tokens or run `hf auth login`"
    )]
    TokenMissing {
        /// Which file.
        file: String,
        /// Its repository.
        repository: String,
    },
    /// 401 with a token.
    #[error(
        "{file}: the hub refused the token (401): is the one in HF_TOKEN or from `hf auth login` still valid, and may \
         it read {repository}? Tokens are at https://huggingface.co/settings/tokens"
    )]
    TokenRefused {
        /// Which file.
        file: String,
        /// Its repository.
        repository: String,
    },
    /// 403.
    #[error(
        "{file}: the hub gives no access (403): accept the license at {page}, then use a token of that account in \
         HF_TOKEN{}",
        said(message)
    )]
    Gated {
        /// Which file.
        file: String,
        /// The repository's page.
        page: String,
        /// What the hub said.
        message: String,
    },
    /// 404.
    #[error(
        "{file} is not on the hub (404): the repository, revision or path in the catalog is wrong, or the mirror lacks it{}",
        said(message)
    )]
    NotFound {
        /// Repository, path and revision.
        file: String,
        /// What the hub said.
        message: String,
    },
    /// Another answer that is no file.
    #[error("{url} answered {status}{}", said(message))]
    Status {
        /// Without its query, which may hold a signature.
        url: String,
        /// The status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// No connection, or it broke, each time it was tried.
    #[error("{url} could not be read: {reason}; what has arrived is kept, so the same command goes on from there")]
    Unreachable {
        /// Without its query.
        url: String,
        /// The cause.
        reason: String,
    },
    /// The server asks to come back later than anyone waits.
    #[error("{url} asks to come back in {} s; the same command goes on from here then", wait.as_secs())]
    Later {
        /// Without its query.
        url: String,
        /// How long.
        wait: Duration,
    },
    /// An answer that breaks HTTP's or the hub's rules.
    #[error("{url} gave a wrong answer: {reason}; is HF_ENDPOINT a hub?")]
    Answer {
        /// Without its query.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that was here is not what it should be, and cannot be fetched again.
    #[error("{file} is damaged in the cache, and HF_HUB_OFFLINE is set: unset it to download the file again")]
    Corrupt {
        /// Which file.
        file: String,
    },
    /// The bytes are not those the hub announced, twice.
    #[error("{file} arrived damaged twice: it should be {expected} and is {found}; nothing of it was kept")]
    Damaged {
        /// Which file.
        file: String,
        /// Announced.
        expected: String,
        /// Computed.
        found: String,
    },
}

impl Error {
    pub(super) fn folder(path: &std::path::Path) -> impl Fn(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Folder { path: path.clone(), source }
    }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(". The server said: {message}") }
}
