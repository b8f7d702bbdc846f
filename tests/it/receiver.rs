//! A receiver of webhooks on a real socket, which does what a test tells it, and what tests of webhooks ask the server.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fourstep::{
    domain::{Catalog, Failure, FailureCode, Outcome},
    fetch::{self, Fetcher},
    webhook::{self, Schedule},
};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, PICTURES, TestApp, id, json};

pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";

/// What a receiver was told.
pub(crate) struct Told {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether it is signed with this secret.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(self.body.as_bytes(), &self.headers).is_ok()
    }
}

/// What a receiver answers.
pub(crate) enum Reply {
    Status(u16),
    Answer(Response),
    /// Nothing, until the test gives this many permits.
    Hang(Arc<Semaphore>),
}

/// A server on the one address of this machine that may be reached.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    pub(crate) told: mpsc::UnboundedReceiver<Told>,
    pub(crate) replies: Arc<Mutex<VecDeque<Reply>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.2:0").await.unwrap())
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let replies: Arc<Mutex<VecDeque<Reply>>> = Arc::default();
        let script = Arc::clone(&replies);
        let routes = Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
            let body = String::from_utf8(body.to_vec()).unwrap();
            let reply = script.lock().unwrap().pop_front();
            // The test may have seen enough.
            let _ = sender.send(Told { headers, body });
            match reply {
                None => StatusCode::OK.into_response(),
                Some(Reply::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
                Some(Reply::Answer(response)) => response,
                Some(Reply::Hang(until)) => {
                    until.acquire().await.unwrap().forget();
                    StatusCode::OK.into_response()
                }
            }
        });
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, told, replies, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=t0ken", self.address)
    }

    /// Answers the next requests so, and all that follow with 200.
    pub(crate) fn will(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().extend(replies);
    }

    pub(crate) async fn next(&mut self) -> Told {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("told in time").unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

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
        retention: Duration::from_secs(3600),
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
