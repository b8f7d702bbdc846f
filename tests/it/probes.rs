//! What every answer has in common, and what is answered before there is anything to predict with.

use fourstep::store::Phase;
use insta::assert_json_snapshot;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{TestApp, eventually, json};

impl TestApp {
    /// What it says of itself within the quarter of a second for which it may say what it saw before.
    async fn until_readiness(&self, expected: (StatusCode, Value)) {
        eventually(&expected.1.to_string(), async || self.readiness().await == expected).await;
    }

    async fn readiness(&self) -> (StatusCode, Value) {
        let response = self.client.get(format!("{}/readyz", self.url)).send().await.unwrap();
        (response.status(), json(response).await)
    }
}

#[sqlx::test]
async fn readiness_follows_the_best_worker(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let not_ready = |phase: &str, percent: i16| {
        (StatusCode::SERVICE_UNAVAILABLE, json!({"ready": false, "phase": phase, "percent": percent}))
    };
    app.until_readiness(not_ready("no_worker", 0)).await;
    app.report_worker(Phase::Loading, 40).await;
    app.until_readiness(not_ready("loading", 40)).await;
    app.report_worker(Phase::WarmingUp, 0).await;
    app.until_readiness(not_ready("warming_up", 0)).await;
    app.report_worker(Phase::Ready, 100).await;
    app.until_readiness((StatusCode::OK, json!({"ready": true, "phase": "ready", "percent": 100}))).await;
    for alias in ["/healthz", "/health"] {
        assert_eq!(app.get(alias).send().await.unwrap().status(), StatusCode::OK, "{alias}");
    }
    app.draining.cancel();
    assert_eq!(app.readiness().await, not_ready("draining", 0));
}

#[sqlx::test]
async fn without_its_database_it_lives_and_says_try_again(pool: PgPool) {
    let app = TestApp::start(pool).await;
    // Seen once, so that the key is still believed.
    app.create_small().await;
    app.store.close().await;
    assert_eq!(app.client.get(format!("{}/livez", app.url)).send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(app.readiness().await.1["phase"], "database");
    let response = app.post("/predictions").json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_json_snapshot!(json(response).await, {".request_id" => "[request id]"}, @r#"
    {
      "code": "unavailable",
      "detail": "temporarily unavailable",
      "request_id": "[request id]",
      "status": 503,
      "title": "Service Unavailable",
      "type": "about:blank"
    }
    "#);
    // Eachlabs' clients try again after this alone.
    let eachlabs = json!({"model": "sdxl-lightning-4step", "input": {}});
    let response = app.post("/v1/prediction/").json(&eachlabs).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(json(response).await["error"], "temporarily unavailable");
}

#[sqlx::test]
async fn a_request_keeps_the_id_its_client_gave_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for (path, status) in
        [("/models", StatusCode::OK), ("/predictions/x", StatusCode::NOT_FOUND), ("/nowhere", StatusCode::NOT_FOUND)]
    {
        let response = app.get(path).header("X-Request-Id", "mine-1").send().await.unwrap();
        assert_eq!((response.status(), &response.headers()["x-request-id"]), (status, &"mine-1".parse().unwrap()));
        if status != StatusCode::OK {
            assert_eq!(json(response).await["request_id"], "mine-1");
        }
    }
    let response = app.get("/predictions/x").header("X-Request-Id", "{not an id}").send().await.unwrap();
    let made = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(made.len(), 32);
    assert_eq!(json(response).await["request_id"], made);
}

#[sqlx::test]
async fn wrong_turns_are_problems_too(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let lost = app.get("/prediction").send().await.unwrap();
    assert_eq!(lost.status(), StatusCode::NOT_FOUND);
    assert_eq!(lost.headers()["content-type"], "application/problem+json");
    assert_json_snapshot!(json(lost).await, {".request_id" => "[request id]"}, @r#"
    {
      "code": "unknown_url",
      "detail": "there is nothing at this URL",
      "request_id": "[request id]",
      "status": 404,
      "title": "Not Found",
      "type": "about:blank"
    }
    "#);
    let wrong_method = app.request(Method::PATCH, "/predictions").send().await.unwrap();
    assert_eq!(wrong_method.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong_method.headers()["allow"], "GET,HEAD,POST");
    assert_json_snapshot!(json(wrong_method).await, {".request_id" => "[request id]"}, @r#"
    {
      "code": "method_not_allowed",
      "detail": "this URL does not take this method; see the Allow header",
      "request_id": "[request id]",
      "status": 405,
      "title": "Method Not Allowed",
      "type": "about:blank"
    }
    "#);
}

#[sqlx::test]
async fn the_front_door_says_where_everything_is(pool: PgPool) {
    let app =
        TestApp::start_with(pool, |settings| settings.public_url = Some("https://example.com".parse().unwrap())).await;
    let discovery = json(app.client.get(&app.url).send().await.unwrap()).await;
    assert_json_snapshot!(discovery, {".version" => "[version]"}, @r#"
    {
      "docs": "https://example.com/docs",
      "eachlabs": "https://example.com/eachlabs/v1",
      "models": "https://example.com/models",
      "name": "fourstep",
      "openai": "https://example.com/openai/v1",
      "openapi": "https://example.com/openapi.json",
      "predictions": "https://example.com/predictions",
      "ready": "https://example.com/readyz",
      "replicate": "https://example.com/replicate/v1",
      "version": "[version]"
    }
    "#);
}
