//! Webhooks: what a caller wants to be told of a prediction and where, and the secrets that prove who tells it.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{InvalidInput, Prediction, Status, words::words};

/// Something that happens to a prediction and can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WebhookEvent {
    /// A worker has taken it.
    Start,
    /// Its images are there.
    Output,
    /// Its logs have grown; told at most twice a second.
    Logs,
    /// It has ended, however.
    Completed,
}

words! {
    /// The word used in the database, and by every face that has events.
    WebhookEvent { Start = "start", Output = "output", Logs = "logs", Completed = "completed" }
}

impl WebhookEvent {
    /// Whether telling it is tried again when it fails. What is soon followed by something newer is not.
    pub const fn is_retried(self) -> bool {
        matches!(self, Self::Completed)
    }

    /// A prediction as it was when this happened, whatever has become of it since, so that what is told late is still
    /// what happened.
    pub fn seen_in(self, prediction: Prediction) -> Prediction {
        let running = |prediction| Prediction {
            status: Status::Processing,
            failure: None,
            device_time: None,
            cost: None,
            completed_at: None,
            ..prediction
        };
        match self {
            Self::Completed => prediction,
            Self::Logs if prediction.status.is_terminal() => running(Prediction { output: None, ..prediction }),
            Self::Logs => prediction,
            Self::Output => running(prediction),
            Self::Start => running(Prediction { output: None, logs: String::new(), ..prediction }),
        }
    }
}

/// What a create asks to be told, as its face understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRequest {
    /// Under which name the face has the URL, for what may be wrong with it.
    pub field: &'static str,
    /// Where to tell it. May have a secret in its query: it belongs in no log.
    pub url: String,
    /// What to tell; not empty.
    pub events: Vec<WebhookEvent>,
    /// What proves it, if not the account's secret.
    pub secret: Option<WebhookSecret>,
}

/// A webhook and where its client reached the server, which is where the URLs in what is told lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// What was asked for.
    pub request: WebhookRequest,
    /// The server's URL.
    pub server_url: String,
    /// The path of the face under it.
    pub mount: String,
}

/// A webhook that was checked and is about to be kept with its prediction.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// As it was asked for.
    pub webhook: Webhook,
    /// Host and port of its URL.
    pub receiver: String,
}

/// The secret of one request. `Debug` shows only that it is there.
#[derive(Clone, PartialEq, Eq)]
pub enum WebhookSecret {
    /// Signs, by Standard Webhooks.
    Signing(SigningSecret),
    /// Is sent along as it is, in a header, as Eachlabs does.
    Verbatim(String),
}

impl WebhookSecret {
    /// The longest text that is sent along.
    pub const LONGEST_VERBATIM: usize = 1024;

    /// A text to be sent along; it must fit into a header.
    pub fn verbatim(text: String) -> Result<Self, &'static str> {
        let is_printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
        match text.len() {
            1..=Self::LONGEST_VERBATIM if is_printable => Ok(Self::Verbatim(text)),
            _ => Err("must be 1 to 1024 printable ASCII characters without spaces around them: it is sent in a header"),
        }
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebhookSecret(***)")
    }
}

/// A key for signing by Standard Webhooks: 24 to 64 random bytes, written `whsec_` and base64. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

impl SigningSecret {
    const PREFIX: &str = "whsec_";

    /// A new one from the system's randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = vec![0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Reads one as it is written; the error says what it must be.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let bytes = text.strip_prefix(Self::PREFIX).and_then(|rest| BASE64_STANDARD.decode(rest).ok());
        bytes.and_then(Self::from_bytes).ok_or("must be whsec_ and 24 to 64 bytes in base64")
    }

    /// From the bytes themselves, if they are as many as they must be.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes that sign.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As it is written, for its owner. In the alphabet of standard base64, which has no underscore: some receivers split
    /// it there.
    pub fn expose(&self) -> String {
        format!("{}{}", Self::PREFIX, BASE64_STANDARD.encode(&self.0))
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningSecret(***)")
    }
}

/// Reads the events a request names; `None` if it names none.
pub fn parse_events(field: &str, value: &serde_json::Value) -> Result<Option<Vec<WebhookEvent>>, InvalidInput> {
    let malformed =
        || InvalidInput::one(field, "must be a list of start, output, logs and completed, with at least one");
    if value.is_null() {
        return Ok(None);
    }
    let words = value.as_array().filter(|words| !words.is_empty()).ok_or_else(malformed)?;
    let events: Option<Vec<WebhookEvent>> =
        words.iter().map(|word| word.as_str().and_then(|word| word.parse().ok())).collect();
    let mut events = events.ok_or_else(malformed)?;
    events.sort_unstable();
    events.dedup();
    Ok(Some(events))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_reads_back_as_it_was_written() {
        let secret = SigningSecret::generate().expect("random bytes");
        assert_eq!(SigningSecret::parse(&secret.expose()), Ok(secret.clone()));
        assert!(!format!("{secret:?}").contains(&secret.expose()[6..]));
        for text in
            ["", "whsec_", "whsec_AAAA", "whsec_!!!", &secret.expose()[6..], &format!("whsec_{}", "A".repeat(96))]
        {
            assert!(SigningSecret::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_would_break_a_header_is_no_secret() {
        assert!(WebhookSecret::verbatim("s3cret with spaces".to_owned()).is_ok());
        for text in ["", " a", "a\r\nHost: b", "пароль", &"a".repeat(1025)] {
            assert!(WebhookSecret::verbatim(text.to_owned()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn events_are_read_in_any_order_and_nothing_else_is() {
        let events = parse_events("f", &json!(["completed", "start", "completed"])).expect("valid");
        assert_eq!(events, Some(vec![WebhookEvent::Start, WebhookEvent::Completed]));
        assert_eq!(parse_events("f", &json!(null)).expect("valid"), None);
        for value in [json!([]), json!("start"), json!(["begin"]), json!([1]), json!({})] {
            assert_eq!(parse_events("f", &value).expect_err("invalid").fields[0].field, "f");
        }
    }
}
