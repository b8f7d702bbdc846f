//! `Idempotency-Key`: a create that is repeated makes nothing new, on any face.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use fourstep::{domain::ApiKey, service::admission::Limits};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{TestApp, black_png, eventually, id, json};

/// Each face's create.
fn creates() -> [(&'static str, Value); 4] {
    let input = json!({"prompt": "a cat", "width": 256, "height": 256});
    [
        ("/predictions", json!({"input": input})),
        ("/v1/models/bytedance/sdxl-lightning-4step/predictions", json!({"input": input})),
        ("/v1/predictions", json!({"version": "bytedance/sdxl-lightning-4step", "input": input})),
        ("/v1/prediction/", json!({"model": "sdxl-lightning-4step", "input": input})),
    ]
}

fn keyed(app: &TestApp, path: &str, key: &str, body: &Value) -> RequestBuilder {
    app.post(path).header("Idempotency-Key", key).json(body)
}

async fn count(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from predictions").fetch_one(pool).await.unwrap()
}

#[sqlx::test]
async fn a_hundred_creates_with_one_key_at_once_make_one_prediction(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for (face, (path, body)) in creates().into_iter().enumerate() {
        let requests = (0..100).map(|_| tokio::spawn(keyed(&app, path, &format!("key {face}"), &body).send()));
        let (mut ids, mut new) = (Vec::new(), 0);
        for request in requests.collect::<Vec<_>>() {
            let response = request.await.unwrap().unwrap();
            assert!(response.status().is_success(), "{path}: {}", response.status());
            new += usize::from(!response.headers().contains_key("idempotent-replayed"));
            ids.push(id(&json(response).await));
        }
        ids.dedup();
        assert_eq!((ids.len(), new), (1, 1), "{path}");
        assert_eq!(count(&app.pool).await, face as i64 + 1, "{path}");
    }
}

#[sqlx::test]
async fn a_hundred_clients_with_the_same_hundred_keys_make_a_hundred_predictions(pool: PgPool) {
    const CLIENTS: usize = 100;
    const KEYS: usize = 100;
    let app = TestApp::start(pool).await;
    let [(path, body), ..] = creates();
    let clients = (0..CLIENTS).map(|client| {
        // Each begins with another key, so that all keys are contended all the time.
        let keys = (0..KEYS).map(move |index| (client + index) % KEYS);
        let requests: Vec<_> = keys.map(|key| keyed(&app, path, &format!("key {key}"), &body)).collect();
        tokio::spawn(async move {
            let mut new = 0;
            for request in requests {
                let response = request.send().await.unwrap();
                assert!(response.status().is_success(), "{}", response.status());
                new += usize::from(!response.headers().contains_key("idempotent-replayed"));
            }
            new
        })
    });
    let mut new = 0;
    for client in clients.collect::<Vec<_>>() {
        new += client.await.unwrap();
    }
    assert_eq!((new, count(&app.pool).await), (KEYS, KEYS as i64));
}

#[sqlx::test]
async fn a_repetition_returns_what_became_of_the_first(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for (path, body) in creates() {
        // Quoted or not, it is the same key; and the order of fields makes no difference.
        let first = keyed(&app, path, path, &body).send().await.unwrap();
        assert!(!first.headers().contains_key("idempotent-replayed"));
        let first = id(&json(first).await);
        app.run_one().await;
        let again = keyed(&app, path, &format!("\"{path}\""), &body).send().await.unwrap();
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        let again = json(again).await;
        assert_eq!(id(&again), first, "{path}");
        assert!(["succeeded", "success"].contains(&again["status"].as_str().unwrap()), "{path}");
    }
    assert_eq!(count(&app.pool).await, 4);
}

#[sqlx::test]
async fn a_key_used_for_something_else_is_refused(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for (path, body) in creates() {
        assert!(keyed(&app, path, path, &body).send().await.unwrap().status().is_success());
        let mut other = body.clone();
        other["input"]["prompt"] = json!("a dog");
        let refused = keyed(&app, path, path, &other).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "{path}");
        let refused = json(refused).await;
        let text = [&refused["detail"], &refused["error"]].into_iter().find_map(Value::as_str).unwrap();
        assert_eq!(text, "the Idempotency-Key was already used for a different request");
    }
    // Not even the same words on another face, whose defaults are other ones.
    let (_, body) = &creates()[0];
    assert_eq!(keyed(&app, "/predictions", "/v1/predictions", body).send().await.unwrap().status(), 422);
    assert_eq!(count(&app.pool).await, 4);
}

#[sqlx::test]
async fn a_key_is_its_accounts_own(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let stranger = ApiKey::generate().unwrap();
    app.store.create_key("stranger", "test", &stranger).await.unwrap();
    let (path, body) = &creates()[0];
    let mine = json(keyed(&app, path, "k", body).send().await.unwrap()).await;
    let request = app.client.post(format!("{}{path}", app.url)).bearer_auth(stranger.expose());
    let theirs = json(request.header("Idempotency-Key", "k").json(body).send().await.unwrap()).await;
    assert_ne!(id(&mine), id(&theirs));
}

#[sqlx::test]
async fn a_key_is_forgotten_with_its_predictions_data(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let (path, body) = &creates()[0];
    let first = id(&json(keyed(&app, path, "k", body).send().await.unwrap()).await);
    app.run_one().await;
    assert_eq!(app.store.prune(Duration::ZERO, 10).await.unwrap().len(), 1);
    let second = keyed(&app, path, "k", body).send().await.unwrap();
    assert!(!second.headers().contains_key("idempotent-replayed"));
    assert_ne!(id(&json(second).await), first);
}

#[sqlx::test]
async fn a_refused_create_leaves_its_key_free(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let (path, body) = &creates()[0];
    let wrong = json!({"input": {"width": 1}});
    assert_eq!(keyed(&app, path, "k", &wrong).send().await.unwrap().status(), 422);
    assert_eq!(keyed(&app, path, "k", body).send().await.unwrap().status(), 202);
}

#[sqlx::test]
async fn a_malformed_key_is_refused_on_every_face(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for ((path, body), status) in creates().into_iter().zip([422, 422, 422, 400]) {
        for key in ["", "\"\"", &"x".repeat(256)] {
            let response = keyed(&app, path, key, &body).send().await.unwrap();
            assert_eq!(response.status(), status, "{path} {key}");
        }
    }
    assert_eq!(count(&app.pool).await, 0);
}

#[sqlx::test]
async fn a_repetition_needs_nothing_that_the_first_request_needed(pool: PgPool) {
    // Room for both, though the first is counted twice if it is queued while the queue is being read.
    let limits = Limits { max_queued: 4, ..Limits::NONE };
    let app = TestApp::start_limited(pool, limits, |_| ()).await;
    let upload = app.post("/files").body(black_png(256, 256)).send().await.unwrap();
    let upload = id(&json(upload).await);
    let body = json!({"input": {"prompt": "a cat", "image": upload}});
    let own = format!("/predictions/{}", Uuid::new_v4());
    let put = |body: &Value| app.request(Method::PUT, &own).json(body).send();
    let made = id(&json(keyed(&app, "/predictions", "k", &body).send().await.unwrap()).await);
    let put_made = id(&json(put(&body).await.unwrap()).await);
    // The file it starts from is gone, and the queue is full.
    let deleted = app.request(Method::DELETE, &format!("/files/{upload}")).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    let full = async || app.post("/predictions").json(&json!({})).send().await.unwrap().status() == 503;
    eventually("the queue is full", full).await;

    for (again, made) in
        [(keyed(&app, "/predictions", "k", &body).send().await, made), (put(&body).await, put_made.clone())]
    {
        let again = again.unwrap();
        assert_eq!(again.status(), StatusCode::ACCEPTED);
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert_eq!(id(&json(again).await), made);
    }
    // What is no repetition is still refused.
    let other = json!({"input": {"prompt": "a dog"}});
    assert_eq!(put(&other).await.unwrap().status(), StatusCode::CONFLICT);
    assert_eq!(put_made, own.rsplit('/').next().unwrap());
}

#[sqlx::test]
async fn an_inline_picture_is_compared_without_the_one_it_was(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let picture = |side| json!(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(black_png(side, side))));
    let own = format!("/predictions/{}", Uuid::new_v4());
    let put = async |side| {
        let body = json!({"input": {"prompt": "a cat", "image_url": picture(side)}});
        app.request(Method::PUT, &own).json(&body).send().await.unwrap()
    };
    assert!(!put(256).await.headers().contains_key("idempotent-replayed"));
    assert_eq!(put(256).await.headers()["idempotent-replayed"], "true");
    assert_eq!(put(264).await.status(), StatusCode::CONFLICT);
}

#[sqlx::test]
async fn an_own_id_is_answered_after_the_catalog_was_changed_and_after_retention(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let own = format!("/predictions/{}", Uuid::new_v4());
    let put = async |body: Value| app.request(Method::PUT, &own).json(&body).send().await.unwrap();
    let input = json!({"prompt": "a cat", "width": 256, "height": 256});
    let made = json(put(json!({"input": input})).await).await;
    let replayed = async |body: Value| {
        let again = put(body).await;
        assert!(again.status().is_success(), "{}", again.status());
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        json(again).await
    };
    // Made by a server whose catalog had another version.
    sqlx::query("update predictions set version = 'an older one'").execute(&app.pool).await.unwrap();
    assert_eq!(id(&replayed(json!({"input": input})).await), id(&made));
    let other = put(json!({"input": input, "version": made["version"]})).await;
    assert_eq!(other.status(), StatusCode::CONFLICT, "one that is asked for is not another");
    app.run_one().await;
    assert_eq!(app.store.prune(Duration::ZERO, 10).await.unwrap().len(), 1);
    let pruned = replayed(json!({"input": input})).await;
    assert_eq!((&id(&pruned), &pruned["status"]), (&id(&made), &json!("succeeded")));
    assert_eq!(count(&app.pool).await, 1);
}
