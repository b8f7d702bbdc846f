//! Images to start from under load: places for fetching them are shared between accounts, and what would be refused
//! anyway has none.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use fourstep::domain::{AccountMode, ApiKey};
use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::{Response, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::{
    ledger::usual_key,
    support::{TestApp, black_png, eventually, json},
};

/// Pictures elsewhere: `/slow.png` never comes, every other one at once.
struct Elsewhere {
    url: String,
    /// How many were asked for the slow one.
    held: Arc<AtomicUsize>,
}

impl Elsewhere {
    async fn start() -> Self {
        let held = Arc::new(AtomicUsize::new(0));
        let slow = {
            let held = Arc::clone(&held);
            async move || {
                held.fetch_add(1, SeqCst);
                std::future::pending::<()>().await;
            }
        };
        let routes =
            axum::Router::new().route("/slow.png", axum::routing::get(slow)).fallback(async || black_png(256, 256));
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, held }
    }
}

impl TestApp {
    async fn start_from_url(&self, key: &str, url: String) -> Response {
        let body = json!({"input": {"prompt": "x", "image": url}});
        self.client.post(format!("{}/predictions", self.url)).bearer_auth(key).json(&body).send().await.unwrap()
    }
}

#[sqlx::test]
async fn slow_images_of_one_account_keep_nobody_else_from_starting(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let elsewhere = Elsewhere::start().await;
    let other = ApiKey::generate().unwrap();
    app.store.create_key("other", "test", &other).await.unwrap();
    let slow = || app.start_from_url(&app.key, format!("{}/slow.png", elsewhere.url));
    let mut slow: FuturesUnordered<_> = (0..40).map(|_| slow()).collect();

    let others = async {
        eventually("nearly all places are taken", async || elsewhere.held.load(SeqCst) >= 12).await;
        for _ in 0..20 {
            let created = app.start_from_url(other.expose(), format!("{}/quick.png", elsewhere.url)).await;
            assert_eq!(created.status(), StatusCode::ACCEPTED);
        }
    };
    tokio::select! {
        () = others => {}
        Some(_) = slow.next() => panic!("the other account had to wait for slow images that are not its own"),
    }
}

#[sqlx::test]
async fn the_image_of_what_would_be_refused_is_not_fetched(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let elsewhere = Elsewhere::start().await;
    let slow = format!("{}/slow.png", elsewhere.url);
    app.store.create_account("poor", AccountMode::Prepaid, None).await.unwrap();
    app.store.create_account("busy", AccountMode::Unlimited, Some(1)).await.unwrap();
    let (poor, busy) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    app.store.issue_key(&usual_key("poor"), &poor).await.unwrap();
    app.store.issue_key(&usual_key("busy"), &busy).await.unwrap();

    let refused = app.start_from_url(poor.expose(), slow.clone()).await;
    assert_eq!(refused.status(), StatusCode::PAYMENT_REQUIRED);
    let created = app.start_from_url(busy.expose(), format!("{}/quick.png", elsewhere.url)).await;
    assert_eq!(created.status(), StatusCode::ACCEPTED);
    let refused = app.start_from_url(busy.expose(), slow).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(json(refused).await["code"], "too_many_in_flight");
    assert_eq!(elsewhere.held.load(SeqCst), 0);
}
