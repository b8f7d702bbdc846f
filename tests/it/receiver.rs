//! A receiver of webhooks on a real socket, which does what a test tells it.

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
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

/// How long it waits to be told.
const PATIENCE: Duration = Duration::from_secs(20);

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
