//! One delivery: what is told, to whom, with which proof, and what follows from the answer.

use std::time::Duration;

use chrono::Utc;
use http::header::RETRY_AFTER;
use tokio::time::Instant;
use tracing::Instrument;

use super::{Settings, sign};
use crate::{
    domain::{Catalog, WebhookSecret, chance, retry_after},
    fetch::{self, Answer, Fetcher},
    metrics, spans,
    store::{self, DueWebhook, Store, WebhookAttempt, WebhookVerdict},
    wire::{BaseUrl, webhook},
};

/// As much of an answer is read.
const READ: usize = 16 << 10;
/// As much of it is kept.
const KEPT: usize = 1 << 10;

pub(super) struct Deliverer {
    pub(super) store: Store,
    pub(super) fetcher: Fetcher,
    pub(super) catalog: Catalog,
    pub(super) settings: Settings,
}

/// Why nothing was told.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Where it leads, or what happened there; in words for its owner.
    #[error("{0}")]
    Fetch(#[from] fetch::Error),
    #[error("it could not be signed")]
    Sign(#[from] sign::Error),
    #[error("it could not be put together")]
    Body(#[from] serde_json::Error),
    #[error("its secret could not be read")]
    Store(#[from] store::Error),
    #[error("the server's own URL is not known any more")]
    BaseUrl(#[from] crate::wire::MalformedBaseUrl),
}

impl Deliverer {
    /// Tells it once and notes how that went. Never fails: what cannot be noted is told again when its lease is over.
    pub(super) async fn deliver(&self, due: DueWebhook) {
        // The receiver and not the URL, which may have a secret in it.
        let span = tracing::info_span!(
            "webhook",
            webhook.id = %due.id,
            prediction.id = %due.prediction.id,
            event = due.event.as_str(),
            receiver = due.receiver,
            attempt = due.attempt,
        );
        if let Some(place) = &due.trace_parent {
            spans::go_on(&span, place);
        }
        async {
            let begun = Instant::now();
            let answer = self.tell(&due).await;
            if let Err(Error::Store(error @ store::Error::Unavailable(_))) = &answer {
                tracing::debug!(%error, "The database is away; a webhook waits for it");
                return;
            }
            let verdict = self.verdict(&due, &answer);
            let attempt = attempt(begun.elapsed(), &answer);
            match &answer {
                Err(Error::Fetch(_)) | Ok(_) => {}
                Err(error) => tracing::error!(error = format!("{error:?}"), "A webhook could not be told"),
            }
            match self.store.settle_webhook(&due, &attempt, verdict).await {
                Ok(true) => {
                    metrics::webhook_tried(result(verdict));
                    let (status_code, error) = (attempt.status_code, attempt.error.as_deref());
                    tracing::info!(status_code, error, "{}", in_words(verdict));
                }
                Ok(false) => tracing::info!("A webhook was taken over by another process"),
                Err(error) => tracing::warn!(%error, "Could not note how a webhook went; it is told again"),
            }
        }
        .instrument(span)
        .await;
    }

    async fn tell(&self, due: &DueWebhook) -> Result<Answer, Error> {
        let prediction = &due.prediction;
        let server: BaseUrl = due.server_url.parse()?;
        let model = self.catalog.by_slug(&prediction.model);
        let body = webhook::body(prediction, due.event, model, &server, &due.mount)?;
        let own = self.store.webhook_secret(due)?;
        let (secrets, verbatim) = match own {
            Some(WebhookSecret::Signing(secret)) => (vec![secret], None),
            Some(WebhookSecret::Verbatim(text)) => (self.store.secrets_for(due).await?, Some(text)),
            None => (self.store.secrets_for(due).await?, None),
        };
        let headers = sign::headers(due.id, Utc::now().timestamp(), &body, &secrets, verbatim.as_deref())?;
        Ok(self.fetcher.post(&due.url, headers, body, READ, self.settings.timeout).await?)
    }

    fn verdict(&self, due: &DueWebhook, answer: &Result<Answer, Error>) -> WebhookVerdict {
        let requested = match answer {
            Ok(Answer { status: 200..=299, .. }) => return WebhookVerdict::Delivered,
            Ok(Answer { status: 410, .. }) => return WebhookVerdict::Gone,
            Ok(Answer { headers, .. }) => {
                let value = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                value.and_then(|value| retry_after(value, Utc::now()))
            }
            Err(_) => None,
        };
        if !due.event.is_retried() {
            return WebhookVerdict::Failed;
        }
        let pause = self.settings.schedule.pause(due.failures + 1, requested, chance());
        pause.map_or(WebhookVerdict::Failed, WebhookVerdict::Again)
    }
}

fn attempt(took: Duration, answer: &Result<Answer, Error>) -> WebhookAttempt {
    match answer {
        Ok(Answer { status, body, .. }) => {
            let text = String::from_utf8_lossy(&body[..body.len().min(KEPT)]).replace('\0', "\u{fffd}");
            let error = (!(200..300).contains(status)).then(|| format!("was answered with HTTP status {status}"));
            WebhookAttempt { took, status_code: Some(*status), response: Some(text), error }
        }
        Err(error) => WebhookAttempt { took, status_code: None, response: None, error: Some(error.to_string()) },
    }
}

/// For the metrics.
const fn result(verdict: WebhookVerdict) -> &'static str {
    match verdict {
        WebhookVerdict::Delivered => "delivered",
        WebhookVerdict::Again(_) => "tried_again",
        WebhookVerdict::Failed => "given_up",
        WebhookVerdict::Gone => "gone",
    }
}

const fn in_words(verdict: WebhookVerdict) -> &'static str {
    match verdict {
        WebhookVerdict::Delivered => "Delivered a webhook",
        WebhookVerdict::Again(_) => "A webhook was not received; it is tried again",
        WebhookVerdict::Failed => "A webhook was not received and is given up",
        WebhookVerdict::Gone => "The receiver of a webhook is gone",
    }
}
