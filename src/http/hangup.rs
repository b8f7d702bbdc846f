//! What happens when a client hangs up: what it asked to be written is written, and nobody waits for it any longer.
//!
//! hyper drops the future of a request whose connection is gone, wherever it happens to be. That is right for reads,
//! long polls above all, and wrong between checking a key and creating a prediction.

use axum::{
    extract::{FromRequestParts, Request},
    http::{Method, request::Parts},
    middleware::Next,
    response::Response,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::service::{current_request, for_request};

/// The client of a request that is carried out whether it is there or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Client(CancellationToken);

impl Client {
    /// Returns when the client has hung up.
    pub(super) async fn hung_up(&self) {
        self.0.cancelled().await;
    }
}

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Carries out requests that write to their end.
pub(super) async fn complete_writes(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    // In a box of its own, so that reads, which may wait for long, are without it.
    Box::pin(complete(request, next)).await
}

async fn complete(mut request: Request, next: Next) -> Response {
    let client = Client::default();
    request.extensions_mut().insert(client.clone());
    // Dropped with this future, while the task goes on.
    let _hangs_up = client.0.drop_guard();
    match tokio::spawn(for_request(current_request(), next.run(request)).in_current_span()).await {
        Ok(response) => response,
        // The task is never aborted, so this is a panic, and its place is further out.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
