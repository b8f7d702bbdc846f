//! The pulse of the database: whether it still answers, for everything that waits for an answer.
//!
//! A cut line says nothing. TCP waits a quarter of an hour for it, and a pool would fill with connections that wait along. So
//! the connection that listens for changes asks for an answer every few seconds (`changes`), and when it gets none,
//! whoever waits for the database gives up the connection it waits on.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::watch;

/// How often a quiet connection is asked whether it still has a database.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long an answer that takes no work may take.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse {
    lost: Arc<watch::Sender<()>>,
}

impl Pulse {
    /// Tells everybody who waits now that there is nothing to wait for.
    pub(super) fn stopped(&self) {
        self.lost.send_replace(());
    }

    /// The answer, unless it takes longer than this or the database falls silent meanwhile. What is given up must not be
    /// read from its connection later.
    pub(super) async fn unless_silent<T, E: From<sqlx::Error>>(
        &self,
        patience: Duration,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut lost = self.lost.subscribe();
        tokio::select! {
            biased;
            answer = answer => answer,
            () = tokio::time::sleep(patience) => Err(silent().into()),
            // The sender lives as long as we do.
            _ = lost.changed() => Err(silent().into()),
        }
    }
}

/// The answer to something that takes no work.
pub(super) async fn promptly<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    tokio::time::timeout(SILENCE, answer).await.unwrap_or_else(|_| Err(silent()))
}

fn silent() -> sqlx::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the database does not answer").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_let_go_when_the_pulse_stops_and_who_comes_later_waits_anew() {
        let pulse = Pulse::default();
        let never = || std::future::pending::<Result<(), sqlx::Error>>();
        let wait = |pulse: Pulse, patience| async move { pulse.unless_silent(patience, never()).await };
        let waiting = tokio::spawn(wait(pulse.clone(), Duration::MAX));
        while pulse.lost.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
        pulse.stopped();
        assert!(waiting.await.expect("no panic").is_err());
        let mut late = tokio::spawn(wait(pulse.clone(), Duration::from_millis(50)));
        let early = tokio::time::timeout(Duration::from_millis(1), &mut late).await;
        assert!(early.is_err(), "what was lost before counts for nobody who comes later");
        assert!(late.await.expect("no panic").is_err(), "and patience ends all the same");
    }
}
