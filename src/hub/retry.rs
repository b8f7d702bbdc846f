//! When to try again: which failures pass by themselves, and how long to wait for that.

use std::{future::Future, time::Duration};

use super::{Error, Transfer};
use crate::domain::chance;

/// A server that asks for more than this is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// A request that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// May work the next time, not before `wait` has passed if the server said so.
    Passing {
        error: Error,
        wait: Option<Duration>,
    },
    Lasting(Error),
}

impl Failure {
    pub(super) fn passing(error: Error) -> Self {
        Self::Passing { error, wait: None }
    }
}

/// The patience of one piece of work: it ends when too many attempts in a row brought nothing.
pub(super) struct Patience {
    attempts: u32,
    first_backoff: Duration,
    failures: u32,
}

impl Patience {
    pub(super) fn new(transfer: &Transfer) -> Self {
        Self { attempts: transfer.attempts, first_backoff: transfer.first_backoff, failures: 0 }
    }

    /// An attempt that brought something: patience begins anew.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// How long to wait before the next attempt, and after what; or the error to give up with.
    pub(super) fn after(&mut self, failure: Failure) -> Result<(Duration, Error), Error> {
        let (error, wait) = match failure {
            Failure::Passing { error, wait } => (error, wait.unwrap_or_default()),
            Failure::Lasting(error) => return Err(error),
        };
        self.failures += 1;
        if wait > LONGEST_WAIT {
            let url = match error {
                Error::Status { url, .. } => url,
                other => return Err(other),
            };
            return Err(Error::Later { url, wait });
        }
        if self.failures >= self.attempts {
            return Err(error);
        }
        let backoff = self.first_backoff.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST_BACKOFF);
        // Up to a quarter longer, so that clients which failed together do not come back together.
        Ok((wait.max(backoff).mul_f64(1.0 + chance() / 4.0), error))
    }

    /// Tries until it works or patience ends.
    pub(super) async fn until_done<T, F>(mut self, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => {
                    let (wait, error) = self.after(failure)?;
                    tracing::warn!(%error, ?wait, "Asking the hub again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(wait: Option<Duration>) -> Failure {
        let error = Error::Status { url: "http://hub/file".to_owned(), status: 503, message: String::new() };
        Failure::Passing { error, wait }
    }

    fn patience() -> Patience {
        Patience { attempts: 4, first_backoff: Duration::from_secs(1), failures: 0 }
    }

    #[test]
    fn waits_double_until_patience_ends_and_progress_renews_it() {
        let mut patience = patience();
        for seconds in [1.0, 2.0, 4.0] {
            let (wait, _) = patience.after(unavailable(None)).expect("patient");
            assert!((seconds..=seconds * 1.25).contains(&wait.as_secs_f64()), "{wait:?}");
        }
        assert!(matches!(patience.after(unavailable(None)), Err(Error::Status { status: 503, .. })));
        patience.progressed();
        assert!(patience.after(unavailable(None)).is_ok());
    }

    #[test]
    fn the_server_says_how_long_to_wait_but_not_for_hours() {
        let (wait, _) = patience().after(unavailable(Some(Duration::from_secs(40)))).expect("patient");
        assert!((40.0..=50.0).contains(&wait.as_secs_f64()), "{wait:?}");
        let gone = patience().after(unavailable(Some(Duration::from_secs(3600))));
        assert!(matches!(gone, Err(Error::Later { .. })), "{gone:?}");
    }
}
