//! Which request something is done for. Not a parameter: it decides nothing, and every prediction's row has it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

tokio::task_local! {
    static REQUEST: Current;
}

/// What there is about a request.
#[derive(Debug, Default)]
struct Current {
    id: Option<String>,
    /// Of the memory that bodies may take, for as long as there is one.
    body: Mutex<Option<OwnedSemaphorePermit>>,
}

/// Does something for the request of this id. Another task that is started for it has to be told.
pub async fn for_request<T>(id: Option<String>, work: impl Future<Output = T>) -> T {
    REQUEST.scope(Current { id, body: Mutex::default() }, work).await
}

/// The request that this is done for, if it is for one.
pub fn current_request() -> Option<String> {
    REQUEST.try_with(|request| request.id.clone()).ok().flatten()
}

/// Keeps what the request's body takes of what there is for bodies, until the request is answered or `body_is_done`.
pub fn keep_for_body(share: OwnedSemaphorePermit) {
    // Without a request it is given back at once.
    let _ = REQUEST.try_with(|request| put(request, Some(share)));
}

/// Nothing of the request's body is in memory any longer, though the request may go on, as one that waits does.
pub(super) fn body_is_done() {
    let _ = REQUEST.try_with(|request| put(request, None));
}

fn put(request: &Current, share: Option<OwnedSemaphorePermit>) {
    *request.body.lock().unwrap_or_else(PoisonError::into_inner) = share;
}
