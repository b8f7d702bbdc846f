//! What owners of webhooks can look up: what was told, to whom, and how that went.

use std::time::Duration;

use axum::response::IntoResponse;
use fourstep::{
    domain::ApiKey,
    webhook::{self, Schedule},
};
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;

use crate::{
    command_line::{fourstep, stderr, stdout},
    delivering::impatient,
    process::{TestFolder, url_of},
    receiver::{Receiver, Reply},
    support::{TestApp, eventually, json},
};

#[sqlx::test]
async fn eachlabs_log_lists_what_was_sent_and_how_it_went(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    receiver.will([Reply::Status(500), Reply::Answer("thanks".into_response())]);
    let body = json!({"model": "sdxl-lightning-4step", "webhook_url": receiver.url(), "webhook_secret": "s3cret"});
    let id = app.create_on("/v1/prediction", body).await["predictionID"].as_str().unwrap().to_owned();
    app.run_one().await;
    let pending = json(app.get(&format!("/v1/webhooks/{id}")).send().await.unwrap()).await;
    assert_eq!(pending["attempts"][0]["status"], "PENDING");
    let _delivering = app.deliver();
    receiver.next().await;
    let told = receiver.next().await;
    eventually("it is noted", async || app.state(&id).await == "delivered").await;
    for mount in ["/v1", "/eachlabs/v1"] {
        let list = json(app.get(&format!("{mount}/webhooks?limit=1")).send().await.unwrap()).await;
        assert_eq!((&list["limit"], &list["offset"]), (&json!(1), &json!(0)));
        let entry = &list["webhooks"][0];
        assert_eq!(
            (&entry["execution_id"], &entry["url"], &entry["request"]),
            (&json!(id), &json!(receiver.url()), &json!(told.body))
        );
        assert_eq!(entry["headers"], json!({"Content-Type": "application/json", "X-Webhook-Secret": "***"}));
        let one = json(app.get(&format!("{mount}/webhooks/{id}")).send().await.unwrap()).await;
        let attempt = |index: usize| {
            let attempt = &one["attempts"][index];
            (attempt["status"].clone(), attempt["status_code"].clone(), attempt["response"].clone())
        };
        assert_eq!(attempt(0), (json!("FAILED"), json!(500), json!("")));
        assert_eq!(attempt(1), (json!("SUCCESS"), json!(200), json!("thanks")));
    }
    let other = ApiKey::generate().unwrap();
    app.store.create_key("somebody else", "test", &other).await.unwrap();
    for (path, status, error) in [
        ("/v1/webhooks/x".to_owned(), 400, "invalid execution_id"),
        (format!("/v1/webhooks/{}", uuid::Uuid::new_v4()), 404, "webhook not found"),
        (format!("/v1/webhooks/{id}"), 404, "webhook not found"),
    ] {
        let request = app.client.request(Method::GET, format!("{}{path}", app.url)).bearer_auth(other.expose());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(json(response).await["error"], error, "{path}");
    }
    for (method, path) in [
        (Method::GET, format!("/predictions/{id}/webhook")),
        (Method::POST, format!("/predictions/{id}/webhook/redeliver")),
    ] {
        let request = app.client.request(method, format!("{}{path}", app.url)).bearer_auth(other.expose());
        assert_eq!(request.send().await.unwrap().status(), 404, "{path}");
    }
    let list = app.client.get(format!("{}/v1/webhooks", app.url)).bearer_auth(other.expose()).send().await.unwrap();
    assert_eq!(json(list).await["webhooks"], json!([]));
}

#[sqlx::test]
async fn of_a_delivery_the_last_fifty_attempts_are_kept_and_shown(pool: PgPool) {
    let app = TestApp::start(pool.clone()).await;
    let mut receiver = Receiver::start().await;
    let id = app.create_hooked(&receiver).await;
    app.run_one().await;
    let _delivering = app.deliver();
    receiver.next().await;
    eventually("it is noted", async || app.state(&id).await == "delivered").await;
    // As if it had been asked for again and again before.
    for statement in [
        "insert into webhook_attempts (delivery_id, attempt, took_us, succeeded)
         select id, number, 1, false from webhook_deliveries, generate_series(2, 100) as number",
        "update webhook_deliveries set attempt = 100",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let shown = json(app.get(&format!("/predictions/{id}/webhook")).send().await.unwrap()).await;
    assert_eq!(shown["deliveries"][0]["attempts"].as_array().unwrap().len(), 50);
    app.post(&format!("/predictions/{id}/webhook/redeliver")).send().await.unwrap();
    receiver.next().await;
    let kept = "select array_agg(attempt order by attempt) from webhook_attempts";
    eventually("the others are forgotten", async || {
        let kept: Vec<i32> = sqlx::query_scalar(kept).fetch_one(&pool).await.unwrap();
        kept == (52..=101).collect::<Vec<_>>()
    })
    .await;
}

#[sqlx::test]
async fn what_was_told_is_forgotten_after_a_while_and_what_is_to_be_told_is_not(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let told = app.create_hooked(&receiver).await;
    app.run_one().await;
    let delivering = app.deliver();
    receiver.next().await;
    eventually("it is noted", async || app.state(&told).await == "delivered").await;
    delivering.stop.cancel();
    let waiting = app.create_hooked(&receiver).await;
    app.run_one().await;
    assert_eq!(app.store.forget_webhooks(Duration::from_secs(60), 10).await.unwrap(), 0);
    let forgetting = tokio::spawn(webhook::keep_forgetting(app.store.clone(), Duration::ZERO));
    let is_gone = async || app.get(&format!("/predictions/{told}/webhook")).send().await.unwrap().status() == 404;
    eventually("it is forgotten", is_gone).await;
    forgetting.abort();
    assert_eq!(app.state(&waiting).await, "pending");
}

#[sqlx::test]
async fn an_operator_tells_what_was_given_up_again_from_the_command_line(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let run = |arguments: &[&str]| fourstep(Some(&url), &folder, arguments);
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    receiver.will([Reply::Status(500), Reply::Status(410)]);
    let given_up = webhook::Settings { schedule: Schedule::new(Vec::new()), ..impatient() };
    let _delivering = app.deliver_as(given_up);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let id = app.create_hooked(&receiver).await;
        app.run_one().await;
        receiver.next().await;
        eventually("it is given up", async || app.state(&id).await == "failed").await;
        ids.push(id);
    }
    let list = stdout(&run(&["webhooks", "failed", "--account", "owner"]));
    for expected in [&ids[0], &ids[1], "owner", "127.0.0.2:", "completed", "HTTP status 500", "HTTP status 410"] {
        assert!(list.contains(expected), "{expected} is not in {list}");
    }
    assert!(!list.contains("t0ken"), "a URL may have a secret in it: {list}");

    stdout(&run(&["webhooks", "redeliver", &ids[0]]));
    assert_eq!(receiver.next().await.json()["id"], ids[0]);
    eventually("it is noted", async || app.state(&ids[0]).await == "delivered").await;
    assert_eq!(stdout(&run(&["webhooks", "redeliver", "--failed"])), "Telling 1 again.\n");
    assert_eq!(receiver.next().await.json()["id"], ids[1]);
    eventually("it is noted", async || app.state(&ids[1]).await == "delivered").await;

    let unknown = stderr(&run(&["webhooks", "redeliver", &uuid::Uuid::new_v4().to_string()]));
    assert!(unknown.contains("nothing to tell"), "{unknown}");
    let nobody = stderr(&run(&["webhooks", "redeliver", "--failed", "--account", "nobody"]));
    assert!(nobody.contains("no account \"nobody\""), "{nobody}");
}
