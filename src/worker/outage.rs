//! A database or an artifact store that is away is waited for: what a device has drawn, or is about to draw, is worth
//! it.

use std::time::Duration;

use tokio::time::Instant;

use crate::artifacts;

/// Between two tries.
pub(super) const TRY_AGAIN: Duration = Duration::from_millis(500);
/// What is away for longer than this is given up: without the database, the lease has run out long ago.
pub(super) const GIVE_UP: Duration = Duration::from_secs(300);

/// Does something with the artifact store, again and again while it is away.
pub(super) async fn waited_for<T, F>(work: impl Fn() -> F) -> Result<T, artifacts::Error>
where
    F: Future<Output = Result<T, artifacts::Error>>,
{
    let begun = Instant::now();
    loop {
        match work().await {
            Err(error) if error.is_passing() && begun.elapsed() < GIVE_UP => {
                tracing::warn!(%error, "The artifact store is away; a prediction waits for it");
                tokio::time::sleep(TRY_AGAIN).await;
            }
            done => return done,
        }
    }
}
