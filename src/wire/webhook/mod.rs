//! Webhooks on the faces that share them: what a create says of one, and what its receiver is told.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{BaseUrl, FaceUrl, eachlabs, native, replicate};
use crate::domain::{
    Dialect, InvalidField, Model, Prediction, SigningSecret, WebhookEvent, WebhookRequest, WebhookSecret, parse_events,
};

/// Takes `webhook` and `webhook_events_filter` out of the body of a create, and notes what is wrong with them. Samples send
/// an empty `webhook` for none.
pub(super) fn take(
    fields: &mut Map<String, Value>,
    default_events: &[WebhookEvent],
    invalid: &mut Vec<InvalidField>,
) -> Option<WebhookRequest> {
    let events = fields.remove("webhook_events_filter").unwrap_or_default();
    let events = parse_events("webhook_events_filter", &events).unwrap_or_else(|error| {
        invalid.extend(error.fields);
        None
    });
    match fields.remove("webhook")? {
        Value::String(url) if !url.is_empty() => Some(WebhookRequest {
            field: "webhook",
            url,
            events: events.unwrap_or_else(|| default_events.to_vec()),
            secret: None,
        }),
        Value::Null | Value::String(_) => None,
        _ => {
            invalid.push(InvalidField { field: "webhook".to_owned(), reason: "must be a URL".to_owned() });
            None
        }
    }
}

/// Takes `webhook_completed` out of a body, by which Replicate's clients name a webhook for the end alone.
pub(super) fn take_completed(
    fields: &mut Map<String, Value>,
    webhook: Option<WebhookRequest>,
    invalid: &mut Vec<InvalidField>,
) -> Option<WebhookRequest> {
    const FIELD: &str = "webhook_completed";
    let mut refuse = |reason: &str| invalid.push(InvalidField { field: FIELD.to_owned(), reason: reason.to_owned() });
    match fields.remove(FIELD) {
        None | Some(Value::Null) => webhook,
        Some(Value::String(url)) if url.is_empty() => webhook,
        Some(Value::String(_)) if webhook.is_some() => {
            refuse("must not be there beside webhook: one of them is told");
            webhook
        }
        Some(Value::String(url)) => {
            Some(WebhookRequest { field: FIELD, url, events: vec![WebhookEvent::Completed], secret: None })
        }
        Some(_) => {
            refuse("must be a URL");
            webhook
        }
    }
}

/// Takes `webhook_secret` out of a body: a secret to sign with instead of the account's.
pub(super) fn take_secret(
    fields: &mut Map<String, Value>,
    webhook: &mut Option<WebhookRequest>,
    invalid: &mut Vec<InvalidField>,
) {
    let parsed = match fields.remove("webhook_secret") {
        None | Some(Value::Null) => return,
        Some(Value::String(text)) => SigningSecret::parse(&text),
        Some(_) => Err("must be a string"),
    };
    match (parsed, webhook) {
        (Ok(secret), Some(webhook)) => webhook.secret = Some(WebhookSecret::Signing(secret)),
        // Means nothing without a webhook.
        (Ok(_), None) => {}
        (Err(reason), _) => {
            invalid.push(InvalidField { field: "webhook_secret".to_owned(), reason: reason.to_owned() });
        }
    }
}

/// What a receiver is told of an event, in the language its prediction was created in. `mount` is the face's path under the
/// server, as its client reached it. The bytes are what is signed.
pub fn body(
    prediction: &Prediction,
    event: WebhookEvent,
    model: Option<&Model>,
    server: &BaseUrl,
    mount: &str,
) -> Result<Vec<u8>, serde_json::Error> {
    let seen = event.seen_in(prediction.clone());
    let face = FaceUrl::at(server.clone(), mount);
    match seen.dialect {
        Dialect::Eachlabs => json(&eachlabs::Told::new(&seen, server)),
        Dialect::Replicate => {
            // Not in data URIs, whatever the server's scheme: a receiver has no use for megabytes it did not ask for.
            let output = seen.output.as_ref();
            let output = output.map(|files| files.iter().map(|file| server.file(&file.key)).collect());
            json(&replicate::Prediction::new(&seen, model, output, &face))
        }
        Dialect::Native | Dialect::OpenAi => json(&native::Prediction::new(&seen, model, None, server)),
    }
}

fn json(document: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(document)
}

#[cfg(test)]
mod tests;
