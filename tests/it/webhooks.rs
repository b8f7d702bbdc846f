//! Webhooks: what receivers are told, by real servers to real sockets.

use std::time::Duration;

use fourstep::domain::Outcome;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    receiver::Receiver,
    support::{TestApp, eventually, id, json},
};

#[sqlx::test]
async fn a_receiver_is_told_what_its_client_would_read(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let _delivering = app.deliver();
    let model = "/replicate/v1/models/bytedance/sdxl-lightning-4step/predictions";
    let filtered = json!({"webhook": receiver.url(), "webhook_events_filter": ["completed"]});
    // Replicate's own client says the same in one field.
    let completed = json!({"webhook_completed": receiver.url()});
    for (path, read, body) in [
        ("/predictions", "/predictions", &filtered),
        (model, "/replicate/v1/predictions", &filtered),
        (model, "/replicate/v1/predictions", &completed),
    ] {
        let id = id(&app.create_on(path, body.clone()).await);
        app.run_one().await;
        let told = receiver.next().await;
        assert!(told.is_signed_with(&app.secret().await));
        assert_eq!(told.header("content-type"), "application/json");
        let mut expected = json(app.get(&format!("{read}/{id}")).send().await.unwrap()).await;
        let mut body = told.json();
        // Without TLS clients of the vendor's are given the image itself; receivers are given its URL.
        let url = body["output"].take();
        let file = app.client.get(url[0].as_str().unwrap()).send().await.unwrap();
        assert_eq!(file.headers()["content-type"], "image/png");
        expected["output"].take();
        assert_eq!(body, expected);
        eventually("it is noted", async || app.state(&id).await == "delivered").await;
    }
}

#[sqlx::test]
async fn eachlabs_receivers_are_told_in_its_words_with_its_secret(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let _delivering = app.deliver();
    let body = json!({"model": "sdxl-lightning-4step", "webhook_url": receiver.url(), "webhook_secret": "s3cret"});
    let id = |created: Value| created["predictionID"].as_str().unwrap().to_owned();

    let succeeding = id(app.create_on("/eachlabs/v1/prediction", body.clone()).await);
    app.run_one().await;
    let told = receiver.next().await;
    assert_eq!(told.header("x-webhook-secret"), "s3cret");
    assert!(told.is_signed_with(&app.secret().await), "signed as well, with what is no secret of the request");
    let output =
        json(app.get(&format!("/eachlabs/v1/prediction/{succeeding}")).send().await.unwrap()).await["output"].take();
    let expected =
        json!({"exec_id": succeeding, "flow_id": null, "status": "succeeded", "output": output, "error": ""});
    assert_eq!(told.json(), expected);

    let failing = id(app.create_on("/v1/prediction/", body.clone()).await);
    app.fail_one("out of paint").await;
    let failure = json!([{"id": "", "status": "", "output": "", "error": "Error: out of paint"}]);
    let expected = json!({"exec_id": failing, "flow_id": null, "status": "failed", "output": failure, "error": ""});
    assert_eq!(receiver.next().await.json(), expected);

    let canceled = id(app.create_on("/v1/prediction/", body).await);
    app.post(&format!("/v1/prediction/{canceled}/cancel")).send().await.unwrap();
    assert!(app.events(&canceled).await.is_empty(), "of a cancel nothing is told");
}

#[sqlx::test]
async fn a_receiver_is_told_the_events_it_asked_for_and_as_they_were(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let model = "/replicate/v1/models/bytedance/sdxl-lightning-4step/predictions";
    let create = async |filter: Value| {
        let body = json!({"webhook": receiver.url(), "webhook_events_filter": filter});
        id(&app.create_on(model, body).await)
    };
    for (filter, events) in [
        (json!(["start", "output", "logs", "completed"]), vec!["start", "logs", "completed", "output"]),
        (json!(["start"]), vec!["start"]),
        (json!(["logs"]), vec!["logs"]),
        (json!(null), vec!["completed", "output"]),
    ] {
        let id = create(filter.clone()).await;
        let claim = app.claim().await;
        app.store.record_logs(&claim, "half way\n").await.unwrap();
        app.store.record_logs(&claim, "nearly there\n").await.unwrap();
        app.finish(&claim).await;
        assert_eq!(app.events(&id).await, events, "{filter}");
    }
    sqlx::query("delete from webhook_deliveries where event <> 'output' and event <> 'start'")
        .execute(&app.pool)
        .await
        .unwrap();
    // Told late, and still what happened.
    let _delivering = app.deliver();
    for _ in 0..4 {
        let told = receiver.next().await.json();
        assert_eq!(
            (&told["status"], &told["completed_at"], &told["metrics"]),
            (&json!("processing"), &json!(null), &json!({}))
        );
    }
}

/// The vendor's sample stores what it is told last.
#[sqlx::test]
async fn the_end_is_told_last(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let _delivering = app.deliver();
    for _ in 0..8 {
        let body = json!({"webhook": receiver.url(), "webhook_events_filter": ["start", "output", "completed"]});
        app.create_on("/replicate/v1/models/bytedance/sdxl-lightning-4step/predictions", body).await;
        app.run_one().await;
        let mut told = Vec::new();
        for _ in 0..3 {
            told.push(receiver.next().await.json()["status"].clone());
        }
        assert_eq!(told, ["processing", "processing", "succeeded"]);
    }
}

#[sqlx::test]
async fn what_a_fenced_worker_says_is_not_posted(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let receiver = Receiver::start().await;
    let body = json!({"webhook": receiver.url(), "webhook_events_filter": ["start", "output", "logs", "completed"]});
    let id = id(&app.create_on("/predictions", body).await);
    let zombie = app.claim().await;
    sqlx::query("update predictions set lease_until = now() - interval '1 s'").execute(&app.pool).await.unwrap();
    app.store.sweep(5).await.unwrap();
    let claim = app.claim().await;
    let outcome = || Outcome::Succeeded { output: Vec::new(), device_time: Duration::ZERO };
    assert!(app.store.record_logs(&zombie, "braiins\n").await.is_err());
    assert!(app.store.finish(&zombie, &outcome(), "").await.is_err());
    assert_eq!(app.events(&id).await, ["start"], "once, though it was claimed twice");
    app.store.finish(&claim, &outcome(), "").await.unwrap();
    assert_eq!(app.events(&id).await, ["start", "completed", "output"]);
}

#[sqlx::test]
async fn every_way_to_end_is_told(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let canceled = app.create_hooked(&receiver).await;
    app.post(&format!("/predictions/{canceled}/cancel")).send().await.unwrap();
    let late = app.create_hooked(&receiver).await;
    sqlx::query("update predictions set deadline = now() where status = 'queued'").execute(&app.pool).await.unwrap();
    app.store.sweep(5).await.unwrap();
    let lost = app.create_hooked(&receiver).await;
    app.claim().await;
    sqlx::query("update predictions set lease_until = now() - interval '1 s' where status = 'processing'")
        .execute(&app.pool)
        .await
        .unwrap();
    app.store.sweep(1).await.unwrap();
    let _delivering = app.deliver();
    let mut told = Vec::new();
    for _ in 0..3 {
        let body = receiver.next().await.json();
        told.push((id(&body), body["status"].clone(), body["error_code"].clone()));
    }
    for end in [
        (canceled, json!("canceled"), json!(null)),
        (late, json!("canceled"), json!("deadline_exceeded")),
        (lost, json!("failed"), json!("worker_lost")),
    ] {
        assert!(told.contains(&end), "{end:?} is not among {told:?}");
    }
}

#[sqlx::test]
async fn a_webhook_that_leads_nowhere_good_is_refused_by_name(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let create = |path: &str, body: Value| {
        let mut body = body;
        body["input"] = json!({});
        app.post(path).json(&body)
    };
    let long = format!("https://example.com/{}", "x".repeat(2048));
    for url in [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest",
        "ftp://example.com/",
        "example.com",
        "https://user:password@example.com/",
        "http://10.0.0.1:22/",
        "https://exa\u{0}mple.com/",
        &long,
    ] {
        for (path, field, body) in [
            ("/predictions", "webhook", json!({"webhook": url})),
            ("/v1/models/bytedance/sdxl-lightning-4step/predictions", "webhook", json!({"webhook": url})),
            (
                "/v1/models/bytedance/sdxl-lightning-4step/predictions",
                "webhook_completed",
                json!({"webhook_completed": url}),
            ),
            ("/v1/prediction", "webhook_url", json!({"model": "sdxl-lightning-4step", "webhook_url": url})),
        ] {
            let response = create(path, body).send().await.unwrap();
            assert_eq!(response.status(), if field == "webhook_url" { 400 } else { 422 }, "{path} {url}");
            let refusal = response.text().await.unwrap();
            assert!(refusal.contains(field) && !refusal.contains("password@"), "{refusal}");
        }
    }
    for (field, body) in [
        ("webhook", json!({"webhook": 5})),
        ("webhook_events_filter", json!({"webhook": "https://example.com", "webhook_events_filter": ["end"]})),
        ("webhook_events_filter", json!({"webhook": "https://example.com", "webhook_events_filter": []})),
        ("webhook_secret", json!({"webhook": "https://example.com", "webhook_secret": "secret"})),
    ] {
        let refusal = json(create("/predictions", body.clone()).send().await.unwrap()).await;
        assert_eq!(refusal["invalid_fields"][0]["field"], field, "{body}");
    }
    let both = json!({"webhook": "https://example.com", "webhook_completed": "https://example.com"});
    for body in [json!({"webhook_completed": 5}), both] {
        let path = "/v1/models/bytedance/sdxl-lightning-4step/predictions";
        let refusal = json(create(path, body.clone()).send().await.unwrap()).await;
        assert_eq!(refusal["invalid_fields"][0]["field"], "webhook_completed", "{body}");
    }
    let predictions: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(predictions, 0);
}
