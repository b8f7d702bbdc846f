//! Webhooks of a caller's predictions: checked when they are asked for, looked at, told again, and signed.

use super::{Error, PredictionService, Result, Shared};
use crate::domain::{
    Caller, InvalidInput, NewWebhook, Prediction, PredictionId, SigningSecret, Webhook, WebhookEvent, WebhookLog,
};

/// Longer URLs are refused.
const LONGEST_URL: usize = 2048;

impl Shared {
    /// Checks where a webhook leads, as far as it can be without asking for the addresses of a name: those are looked
    /// at whenever it is posted to, because they may change.
    pub(super) fn check_webhook(&self, webhook: Webhook) -> Result<NewWebhook> {
        let request = &webhook.request;
        let refuse = |reason: String| Error::from(InvalidInput::one(request.field, reason));
        if request.url.len() > LONGEST_URL {
            return Err(refuse(format!("must be at most {LONGEST_URL} characters long")));
        }
        // The database cannot keep it, and a parser of URLs would drop it in silence.
        if request.url.chars().any(char::is_control) {
            return Err(refuse("must not contain control characters".to_owned()));
        }
        let receiver = self.fetcher.check_receiver(&request.url).map_err(|error| refuse(error.to_string()))?;
        Ok(NewWebhook { receiver, webhook })
    }
}

impl PredictionService {
    /// The caller's webhooks, newest first, each with its prediction.
    pub async fn webhook_log(&self, caller: Caller, offset: u32, limit: u32) -> Result<Vec<(WebhookLog, Prediction)>> {
        let mut log = Vec::new();
        for webhook in self.shared.store.webhook_log(caller.account_id, offset, limit).await? {
            let prediction = self.get(caller, webhook.prediction_id).await?;
            log.push((webhook, prediction));
        }
        Ok(log)
    }

    /// The webhook of a prediction and what was told to it; `None` if the prediction has none.
    pub async fn webhook_of(&self, caller: Caller, id: PredictionId) -> Result<Option<WebhookLog>> {
        Ok(self.shared.store.webhook_of(caller.account_id, id).await?)
    }

    /// Tells the end of a prediction again, whether it was received or not. `None` if there is nothing to tell: no
    /// webhook, no end, or an end that nobody wanted to be told.
    pub async fn redeliver_webhook(&self, caller: Caller, id: PredictionId) -> Result<Option<WebhookLog>> {
        self.shared.store.redeliver_webhook(caller.account_id, id).await?;
        let log = self.webhook_of(caller, id).await?;
        Ok(log.filter(|log| log.deliveries.iter().any(|delivery| delivery.event == WebhookEvent::Completed)))
    }

    /// The secret that signs the caller's webhooks.
    pub async fn signing_secret(&self, caller: Caller) -> Result<SigningSecret> {
        let secrets = self.shared.store.signing_secrets(caller.account_id).await?;
        secrets.into_iter().next().ok_or_else(|| Error::Internal(anyhow::anyhow!("an account without a secret")))
    }

    /// Replaces it. The old one signs beside the new one for another day.
    pub async fn rotate_signing_secret(&self, caller: Caller) -> Result<SigningSecret> {
        Ok(self.shared.store.rotate_signing_secret(caller.account_id).await?)
    }
}
