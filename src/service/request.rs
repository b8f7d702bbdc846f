//! Which request something is done for. Not a parameter: it decides nothing, and every prediction's row has it.

tokio::task_local! {
    static REQUEST_ID: Option<String>;
}

/// Does something for the request of this id. Another task that is started for it has to be told.
pub async fn for_request<T>(id: Option<String>, work: impl Future<Output = T>) -> T {
    REQUEST_ID.scope(id, work).await
}

/// The request that this is done for, if it is for one.
pub fn current_request() -> Option<String> {
    REQUEST_ID.try_with(Clone::clone).ok().flatten()
}
