//! What can keep a request from being served.

use crate::{
    artifacts,
    domain::{InvalidInput, PredictionId, Scope, Shortage},
    store,
};

/// Why a request was not served. The faces put it in their own words.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such thing, or it is somebody else's.
    #[error("not found")]
    NotFound,
    /// No key, or not a valid one.
    #[error("invalid or missing API key")]
    Unauthorized,
    /// The key is valid, but not for this.
    #[error("this API key does not have the scope {0}")]
    Forbidden(Scope),
    /// The account or the key may not spend what the prediction may cost.
    #[error(transparent)]
    PaymentRequired(Shortage),
    /// The key asks too often.
    #[error("this API key makes too many requests; it may ask again in {retry_after} seconds")]
    TooManyRequests {
        /// Seconds.
        retry_after: u64,
    },
    /// As many requests of the key are held as may be.
    #[error("{most} requests of this API key are held, as many as may be; ask again when one has been answered")]
    TooManyHeld {
        /// As many as there may be.
        most: u32,
    },
    /// The account has as many predictions in flight as it may.
    #[error(transparent)]
    TooManyInFlight(Shortage),
    /// Too many predictions wait already.
    #[error("the queue is too long for another prediction; try again in {retry_after} seconds")]
    Overloaded {
        /// Seconds.
        retry_after: u64,
    },
    /// Too many images to start from wait already to be fetched or looked at, most likely the account's own.
    #[error("too many images are waiting to be fetched or checked; try again in {retry_after} seconds")]
    Crowded {
        /// Seconds.
        retry_after: u64,
    },
    /// Too many requests without a key wait already for the database.
    #[error("too many requests without an API key are waiting; try again in {retry_after} seconds")]
    TooManyStrangers {
        /// Seconds.
        retry_after: u64,
    },
    /// The input cannot be run.
    #[error(transparent)]
    InvalidInput(#[from] InvalidInput),
    /// The catalog has no such model.
    #[error("there is no model {0:?}")]
    UnknownModel(String),
    /// The catalog has no such version, or not of the model named.
    #[error("there is no version {0:?}")]
    UnknownVersion(String),
    /// No such upload, or it is somebody else's, or gone.
    #[error("there is no such file")]
    NoFile,
    /// A link to a file that its owner has not signed like this.
    #[error("the signature is not the owner's for this file and this expiry")]
    InvalidSignature,
    /// A link to a file that was good until a while ago.
    #[error("the link has expired")]
    LinkExpired,
    /// The account's uploads would be more than it may have.
    #[error(
        "the account's uploads would have more than {quota} bytes together; delete some, or wait until they expire"
    )]
    StorageFull {
        /// Bytes.
        quota: u64,
    },
    /// Another request is sending or storing the bytes of this upload.
    #[error("the bytes of this file are being stored already, by another request")]
    BeingStored,
    /// The id is taken by a different request.
    #[error("the id {0} is already used by a different prediction")]
    Conflict(PredictionId),
    /// The idempotency key belongs to a different request.
    #[error("the Idempotency-Key was already used for a different request")]
    KeyReused,
    /// The database or the artifact store is away; the request may be repeated.
    #[error("temporarily unavailable")]
    Unavailable(#[source] anyhow::Error),
    /// Our fault.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(_) => Self::Unavailable(error.into()),
            store::Error::Refused(shortage @ Shortage::InFlight { .. }) => Self::TooManyInFlight(shortage),
            store::Error::Refused(shortage) => Self::PaymentRequired(shortage),
            _ => Self::Internal(error.into()),
        }
    }
}

impl From<artifacts::Error> for Error {
    fn from(error: artifacts::Error) -> Self {
        if error.is_passing() { Self::Unavailable(error.into()) } else { Self::Internal(error.into()) }
    }
}
