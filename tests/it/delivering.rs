//! What tests of webhooks ask the server, and a process that delivers them.

use std::time::Duration;

use fourstep::{
    domain::{Catalog, Failure, FailureCode, Outcome},
    fetch::{self, Fetcher},
    webhook::{self, Schedule},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    receiver::Receiver,
    support::{PATIENCE, PICTURES, TestApp, id, json},
};

/// A process that delivers.
pub(crate) struct Delivering {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
}

impl Drop for Delivering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn impatient() -> webhook::Settings {
    webhook::Settings {
        timeout: Duration::from_secs(30),
        per_receiver: 4,
        per_account: 16,
        poll: Duration::from_millis(20),
        schedule: Schedule::new(vec![Duration::from_millis(1); 8]),
    }
}

impl TestApp {
    pub(crate) fn deliver(&self) -> Delivering {
        self.deliver_as(impatient())
    }

    pub(crate) fn deliver_as(&self, settings: webhook::Settings) -> Delivering {
        let allowed_networks = vec![PICTURES.parse().unwrap()];
        let fetcher = Fetcher::new(fetch::Settings { allowed_networks, timeout: PATIENCE }).unwrap();
        let catalog = Catalog::parse(include_str!("../../config/models.toml")).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(webhook::deliver(self.store.clone(), fetcher, catalog, settings, stop.clone()));
        Delivering { stop, task }
    }

    /// Creates a prediction by this body; its small input is added.
    pub(crate) async fn create_on(&self, path: &str, mut body: Value) -> Value {
        body["input"] = json!({"prompt": "a cat", "width": 256, "height": 256});
        let response = self.post(path).json(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{}: {:?}", response.status(), response.text().await);
        json(response).await
    }

    /// Creates a prediction with a webhook and returns its id.
    pub(crate) async fn create_hooked(&self, receiver: &Receiver) -> String {
        id(&self.create_on("/predictions", json!({"webhook": receiver.url()})).await)
    }

    pub(crate) async fn fail_one(&self, message: &str) {
        let claim = self.claim().await;
        let failure = Failure { code: FailureCode::Internal, message: message.to_owned() };
        self.end(&claim, Outcome::Failed { failure, device_time: Duration::ZERO }).await;
    }

    pub(crate) async fn webhook(&self, id: &str) -> Value {
        json(self.get(&format!("/predictions/{id}/webhook")).send().await.unwrap()).await
    }

    pub(crate) async fn state(&self, id: &str) -> Value {
        self.webhook(id).await["deliveries"][0]["state"].clone()
    }

    pub(crate) async fn secret(&self) -> String {
        let answer = json(self.get("/v1/webhooks/default/secret").send().await.unwrap()).await;
        answer["key"].as_str().unwrap().to_owned()
    }

    /// What is posted, told or not.
    pub(crate) async fn events(&self, id: &str) -> Vec<String> {
        sqlx::query_scalar(
            "select event from webhook_deliveries where prediction_id = $1::uuid order by created_at, event",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }
}
