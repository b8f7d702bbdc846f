//! The headers that prove who tells: those of Standard Webhooks, which are Replicate's as well, and Eachlabs' own.
//!
//! Source: the Standard Webhooks specification, 1.0.0. What is signed is `{id}.{timestamp}.{body}`, with HMAC-SHA256; each
//! secret that is in force gives one signature of the list, so that a receiver may have either.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, InvalidHeaderValue},
};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook, WebhookError};
use uuid::Uuid;

use crate::domain::SigningSecret;

const X_WEBHOOK_SECRET: HeaderName = HeaderName::from_static("x-webhook-secret");

/// A delivery cannot be signed. Never seen: bodies are texts.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the signature could not be made")]
    Signature(#[from] WebhookError),
    #[error("the secret fits into no header")]
    Header(#[from] InvalidHeaderValue),
}

/// The head of a delivery. `verbatim` is a secret that is not for signing and is sent along.
pub(super) fn headers(
    id: Uuid,
    timestamp: i64,
    body: &[u8],
    secrets: &[SigningSecret],
    verbatim: Option<&str>,
) -> Result<HeaderMap, Error> {
    let id = id.to_string();
    let signatures = secrets.iter().map(|secret| {
        Webhook::from_bytes(secret.as_bytes().to_vec()).and_then(|webhook| webhook.sign(&id, timestamp, body))
    });
    let signatures: Vec<String> = signatures.collect::<Result<_, _>>()?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HEADER_WEBHOOK_ID, HeaderValue::from_str(&id)?);
    headers.insert(HEADER_WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
    headers.insert(HEADER_WEBHOOK_SIGNATURE, HeaderValue::from_str(&signatures.join(" "))?);
    if let Some(secret) = verbatim {
        let mut secret = HeaderValue::from_str(secret)?;
        secret.set_sensitive(true);
        headers.insert(X_WEBHOOK_SECRET, secret);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_replicates_clients_accept() {
        // Seen accepted by the validators of the clients for Python and JavaScript.
        let secret = SigningSecret::parse("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3").expect("a secret");
        let signature = Webhook::from_bytes(secret.as_bytes().to_vec())
            .and_then(|webhook| webhook.sign("msg_1", 1_700_000_000, br#"{"id":"abc","status":"succeeded"}"#));
        assert_eq!(signature.expect("signed"), "v1,roPWH/ZIufgp7Ns1d8N+krXiUENuDmx0bJlwoSAJCcs=");
    }

    #[test]
    fn every_secret_in_force_signs_and_a_secret_sent_along_is_not_shown() {
        let secrets = [SigningSecret::generate().expect("random"), SigningSecret::generate().expect("random")];
        let now = chrono::Utc::now().timestamp();
        let headers = headers(Uuid::new_v4(), now, b"{}", &secrets, Some("s3cret")).expect("signed");
        for secret in &secrets {
            let receiver = Webhook::new(&secret.expose()).expect("a secret");
            receiver.verify(b"{}", &headers).expect("verified");
            assert!(receiver.verify(b"[]", &headers).is_err());
        }
        assert_eq!(headers["x-webhook-secret"], "s3cret");
        assert!(!format!("{headers:?}").contains("s3cret"));
    }
}
