//! Admission: who asks too often, has too much in flight or too many requests held, or comes while the queue is too long is
//! told when to come back.

use std::time::Duration;

use fourstep::{
    domain::{AccountMode, ApiKey},
    service::admission::Limits,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    ledger::usual_key,
    queue::MODEL,
    support::{PATIENCE, TestApp, eventually, id, json},
};

/// Each face's create.
fn creates() -> [(&'static str, Value); 3] {
    [
        ("/predictions", json!({"input": {}})),
        ("/v1/models/bytedance/sdxl-lightning-4step/predictions", json!({"input": {}})),
        ("/v1/prediction/", json!({"model": MODEL, "input": {}})),
    ]
}

async fn usual(app: &TestApp, account: &str) -> ApiKey {
    let key = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key(account), &key).await.unwrap();
    key
}

async fn create(app: &TestApp, key: &ApiKey, (path, body): &(&str, Value)) -> Response {
    app.client.post(format!("{}{path}", app.url)).bearer_auth(key.expose()).json(body).send().await.unwrap()
}

/// The integer of `Retry-After`, and the body.
async fn refused(response: Response, status: StatusCode) -> (u64, Value) {
    assert_eq!(response.status(), status);
    (response.headers()["retry-after"].to_str().unwrap().parse().unwrap(), json(response).await)
}

#[sqlx::test]
async fn a_key_that_asks_too_often_is_told_when_to_come_back_without_asking_the_database(pool: PgPool) {
    let limits = Limits { creates_per_minute: 3, requests_per_minute: 2, ..Limits::NONE };
    let app = TestApp::start_limited(pool, limits, |_| ()).await;
    let key = usual(&app, "eager").await;
    for face in &creates() {
        assert!(create(&app, &key, face).await.status().is_success());
    }
    // Nothing is left to ask.
    app.pool.close().await;
    let [native, replicate, eachlabs] = creates();
    let (seconds, body) = refused(create(&app, &key, &native).await, StatusCode::TOO_MANY_REQUESTS).await;
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(body["code"], "too_many_requests");
    let (_, body) = refused(create(&app, &key, &replicate).await, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(body["detail"].as_str().unwrap().starts_with("Request was throttled. "), "{body}");
    let (_, body) = refused(create(&app, &key, &eachlabs).await, StatusCode::TOO_MANY_REQUESTS).await;
    assert_eq!((&body["status"], &body["error"]), (&json!(429), &json!("too many requests")));

    // Reading is counted apart.
    let read = || app.client.get(format!("{}/replicate/v1/hardware", app.url)).bearer_auth(key.expose()).send();
    assert_eq!([read().await.unwrap().status(), read().await.unwrap().status()], [200, 200]);
    refused(read().await.unwrap(), StatusCode::TOO_MANY_REQUESTS).await;
}

#[sqlx::test]
async fn the_operators_key_asks_as_often_as_it_likes(pool: PgPool) {
    let limits = Limits { creates_per_minute: 1, requests_per_minute: 1, ..Limits::NONE };
    let app = TestApp::start_limited(pool, limits, |_| ()).await;
    for _ in 0..5 {
        let id = app.create_small().await;
        assert_eq!(app.prediction(&id).await["status"], "starting");
    }
}

#[sqlx::test]
async fn an_account_has_no_more_in_flight_than_it_may(pool: PgPool) {
    let app = TestApp::start(pool).await;
    app.store.create_account("small", AccountMode::Unlimited, Some(3)).await.unwrap();
    let key = usual(&app, "small").await;
    let at_once =
        futures_util::future::join_all((0..20).map(|_| async { create(&app, &key, &creates()[0]).await.status() }));
    let accepted = at_once.await.into_iter().filter(|status| *status == StatusCode::ACCEPTED).count();
    assert_eq!(accepted, 3);
    let (seconds, body) = refused(create(&app, &key, &creates()[2]).await, StatusCode::TOO_MANY_REQUESTS).await;
    assert_eq!((seconds, &body["error"]), (1, &json!("too many requests")));
    app.run_one().await;
    eventually("there is room again", async || create(&app, &key, &creates()[1]).await.status() == 201).await;
    assert!(app.store.audit().await.unwrap().is_clean());
}

#[sqlx::test]
async fn a_queue_that_is_too_long_takes_nothing_more_until_it_is_shorter(pool: PgPool) {
    let app = TestApp::start_limited(pool, Limits { max_queued: 2, ..Limits::NONE }, |_| ()).await;
    let create = async || app.post("/predictions").json(&json!({"input": {}})).send().await.unwrap();
    eventually("the queue is full", async || create().await.status() == StatusCode::SERVICE_UNAVAILABLE).await;
    let (seconds, body) = refused(create().await, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!((1..=60).contains(&seconds));
    assert_eq!(body["code"], "overloaded");
    // Whose clients try again after this alone.
    let [_, _, (path, eachlabs)] = creates();
    let response = app.post(path).json(&eachlabs).send().await.unwrap();
    let (seconds, body) = refused(response, StatusCode::TOO_MANY_REQUESTS).await;
    assert!((1..=60).contains(&seconds));
    assert_eq!((&body["status"], &body["error"]), (&json!(429), &json!("too many requests")));
    while let Some(claim) = app.store.claim(MODEL, uuid::Uuid::new_v4(), Duration::from_secs(60)).await.unwrap() {
        app.finish(&claim).await;
    }
    eventually("there is room again", async || create().await.status() == StatusCode::ACCEPTED).await;
}

#[sqlx::test]
async fn a_wait_that_would_be_too_long_is_not_begun(pool: PgPool) {
    let limits = Limits { max_wait: Duration::from_secs(5), ..Limits::NONE };
    let app = TestApp::start_limited(pool, limits, |_| ()).await;
    let create = async || app.post("/predictions").json(&json!({"input": {}})).send().await.unwrap();
    // Two seconds each, one worker at most: the fourth would wait for six.
    let mut accepted = 0;
    eventually("the wait is too long", async || match create().await.status() {
        StatusCode::ACCEPTED => {
            accepted += 1;
            false
        }
        status => status == StatusCode::SERVICE_UNAVAILABLE,
    })
    .await;
    // One that is counted while the queue is read may be counted twice, for a moment; none is forgotten.
    assert!((1..=3).contains(&accepted), "{accepted}");
}

/// What is answered long before a minute is over.
async fn at_once(request: RequestBuilder) -> Response {
    tokio::time::timeout(PATIENCE, request.send()).await.expect("an answer at once").unwrap()
}

#[sqlx::test]
async fn a_key_has_no_more_requests_held_than_it_may_and_makes_nothing_twice_for_it(pool: PgPool) {
    let app = TestApp::start_limited(pool, Limits { max_held: 2, ..Limits::NONE }, |_| ()).await;
    let key = usual(&app, "patient").await;
    let request =
        |method, path: String| app.client.request(method, format!("{}{path}", app.url)).bearer_auth(key.expose());
    let get = |path: String| request(Method::GET, path);
    let post = |path: &str, body: Value| request(Method::POST, path.to_owned()).json(&body);
    let made = id(&json(create(&app, &key, &creates()[0]).await).await);
    let held = tokio::spawn(get(format!("/predictions/{made}?wait=60")).send());
    app.until_watched(1).await;
    // A stream is counted as well, from its beginning to its end.
    let mut stream = at_once(get(format!("/predictions/{made}/events"))).await;
    assert!(stream.chunk().await.unwrap().is_some());

    for polled in [format!("/predictions/{made}?wait=60"), format!("/predictions/{made}/events")] {
        let (seconds, body) = refused(at_once(get(polled)).await, StatusCode::TOO_MANY_REQUESTS).await;
        assert_eq!((seconds, &body["code"]), (1, &json!("too_many_held")));
    }
    let replicate = get(format!("/v1/predictions/{made}")).header("Prefer", "wait");
    let (_, body) = refused(at_once(replicate).await, StatusCode::TOO_MANY_REQUESTS).await;
    assert!(body["detail"].as_str().unwrap().starts_with("Request was throttled. "), "{body}");
    // Whose answer would be of no use without a result, they are refused before one is made.
    let (openai, eachlabs) = (json!({"prompt": "a cat"}), json!({"model": MODEL, "input": {}}));
    let generation = at_once(post("/v1/images/generations", openai)).await;
    let (_, body) = refused(generation, StatusCode::TOO_MANY_REQUESTS).await;
    assert_eq!(body["error"]["type"], "rate_limit_error");
    let run = at_once(post("/v1/prediction/run", eachlabs)).await;
    let (_, body) = refused(run, StatusCode::TOO_MANY_REQUESTS).await;
    assert_eq!(body["error"], "too many requests");
    let count =
        async || -> i64 { sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap() };
    assert_eq!(count().await, 1);

    // Others are made, and answered as they are: their clients would repeat what is refused.
    for ((path, body), status) in creates().into_iter().zip([202, 202, 200]) {
        let unheld = at_once(post(path, body).header("Prefer", "wait")).await;
        assert_eq!((unheld.status().as_u16(), unheld.headers().get("preference-applied")), (status, None), "{path}");
    }
    assert_eq!(count().await, 4);
    // And so is whoever did not ask to be held, and what has ended.
    assert_eq!(at_once(get(format!("/v1/prediction/{made}"))).await.status(), StatusCode::OK);
    let canceled = id(&json(at_once(post("/predictions", json!({}))).await).await);
    at_once(post(&format!("/predictions/{canceled}/cancel"), json!({}))).await;
    assert_eq!(at_once(get(format!("/predictions/{canceled}?wait=60"))).await.status(), StatusCode::OK);
    // Another key has places of its own.
    let other = usual(&app, "other").await;
    let others = json(create(&app, &other, &creates()[0]).await).await;
    let wait = app.client.get(format!("{}/predictions/{}?wait=1", app.url, id(&others)));
    assert_eq!(at_once(wait.bearer_auth(other.expose())).await.status(), StatusCode::OK);

    // Who hangs up makes room.
    drop(stream);
    eventually("there is room again", async || {
        at_once(get(format!("/predictions/{made}?wait=1"))).await.status() == StatusCode::OK
    })
    .await;
    held.abort();
    app.until_watched(0).await;
}
