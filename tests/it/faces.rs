//! What holds on every face alike, each saying it in its own words.

use std::time::Duration;

use fourstep::{
    domain::{Failure, FailureCode, Outcome},
    worker::prune,
};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{PATIENCE, TestApp, id, json};

#[sqlx::test]
async fn what_retention_has_deleted_every_face_says_is_gone(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let (made, key) = (app.create_small().await, "a key of mine");
    app.run_one().await;
    let output = app.prediction(&made).await["output"][0].as_str().unwrap().to_owned();
    let generate = || {
        let body = json!({"prompt": "a cat", "size": "256x256"});
        app.post("/openai/v1/images/generations").header("Idempotency-Key", key).json(&body)
    };
    let held = tokio::spawn(generate().send());
    app.until_watched(1).await;
    app.run_one().await;
    assert_eq!(held.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(app.client.get(&output).send().await.unwrap().status(), StatusCode::OK);

    prune(&app.store, &app.artifacts, Duration::ZERO).await;
    assert_eq!(app.client.get(&output).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let get = async |path: String| {
        let response = app.get(&path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        json(response).await
    };
    for path in [format!("/predictions/{made}"), format!("/v1/predictions/{made}")] {
        let gone = get(path).await;
        assert_eq!((&gone["status"], &gone["data_removed"]), (&json!("succeeded"), &json!(true)), "{gone}");
        assert_eq!((&gone["output"], &gone["input"], &gone["logs"]), (&Value::Null, &json!({}), &json!("")), "{gone}");
        assert_eq!(gone["metrics"]["cost"], json!(0.00308), "what it cost stays");
    }
    let gone = get(format!("/v1/prediction/{made}")).await;
    assert_eq!((&gone["status"], &gone["output"]), (&json!("success"), &Value::Null), "{gone}");
    assert_eq!(gone["metrics"]["cost"], json!(0.00308));
    let executions = get("/v1/executions".to_owned()).await;
    assert!(executions["executions"].as_array().unwrap().iter().all(|one| one["output"].is_null()), "{executions}");
    let listed = get("/v1/predictions".to_owned()).await;
    assert!(listed["results"].as_array().unwrap().iter().all(|one| one["data_removed"] == true), "{listed}");
    // Where a prediction is an answer and no thing to ask for, its key is free again.
    let again = tokio::spawn(generate().send());
    app.until_watched(1).await;
    app.run_one().await;
    assert_eq!(again.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[sqlx::test]
async fn a_server_that_ends_answers_those_who_wait_on_every_face(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let eachlabs = json!({"model": "sdxl-lightning-4step", "input": {}});
    let polled = json(app.post("/v1/prediction").json(&eachlabs).send().await.unwrap()).await;
    let wait = |request: RequestBuilder| tokio::spawn(request.send());
    let replicate = app.post("/v1/models/bytedance/sdxl-lightning-4step/predictions").json(&json!({"input": {}}));
    let asked = [
        (wait(app.post("/predictions?wait=60").json(&json!({}))), 202, json!("starting")),
        (wait(replicate.header("Prefer", "wait")), 202, json!("starting")),
        (wait(app.get(&format!("/v1/prediction/{}", id(&polled)))), 200, json!("created")),
        (wait(app.post("/v1/prediction/run").json(&eachlabs)), 408, json!(408)),
        (wait(app.post("/v1/images/generations").json(&json!({"prompt": "a cat"}))), 503, Value::Null),
    ];
    app.until_watched(asked.len()).await;
    let pool = app.pool.clone();
    // Whole answers come, and no socket is dropped: one that is makes some clients ask again, and again.
    app.shut_down().await;
    for (asked, status, said) in asked {
        let response = asked.await.unwrap().unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(json(response).await["status"], said);
    }
    // And all of it goes on.
    let queued: i64 =
        sqlx::query_scalar("select count(*) from predictions where status = 'queued'").fetch_one(&pool).await.unwrap();
    assert_eq!(queued, 5);
}

#[sqlx::test]
async fn what_every_face_says_a_prediction_cost_is_what_the_ledger_has(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let eachlabs = json!({"model": "sdxl-lightning-4step", "input": {}});
    let replicate = json!({"input": {}});
    let creates = [
        ("/predictions", json!({"input": {}})),
        ("/v1/models/bytedance/sdxl-lightning-4step/predictions", replicate),
        ("/v1/prediction", eachlabs),
    ];
    let mut said = Vec::new();
    for (turn, outcome) in ["succeeded", "failed", "canceled"].into_iter().enumerate() {
        for (path, body) in &creates {
            let made = id(&json(app.post(path).json(body).send().await.unwrap()).await);
            let claim = app.claim().await;
            // No round number, and another every time.
            let device_time = Duration::from_micros(1_234_567 + said.len() as u64 * 111 + turn as u64);
            let failure = Failure { code: FailureCode::OutOfMemory, message: "in vain".to_owned() };
            match outcome {
                "failed" => app.end(&claim, Outcome::Failed { failure, device_time }).await,
                "canceled" => {
                    app.post(&format!("/predictions/{made}/cancel")).send().await.unwrap();
                    app.end(&claim, Outcome::Canceled { device_time }).await;
                }
                _ => app.finish_in(&claim, device_time).await,
            }
            let cost = |document: &Value| document["metrics"]["cost"].to_string();
            let of = async |path: String| cost(&json(app.get(&path).send().await.unwrap()).await);
            let told = of(format!("/predictions/{made}")).await;
            for face in [format!("/v1/predictions/{made}"), format!("/v1/prediction/{made}")] {
                assert_eq!(of(face.clone()).await, told, "{outcome} by {path}, {face}");
            }
            said.push(told);
        }
    }
    // Added up as whole numbers: a sum of floats would be off.
    let nanos = |text: &String| {
        let (whole, part) = text.split_once('.').unwrap();
        whole.parse::<i64>().unwrap() * 1_000_000_000 + format!("{part:0<9}").parse::<i64>().unwrap()
    };
    let charged: i64 =
        sqlx::query_scalar("select sum(amount_nano)::bigint from ledger").fetch_one(&app.pool).await.unwrap();
    assert!(charged > 0);
    assert_eq!(said.iter().map(nanos).sum::<i64>(), charged, "{said:?}");
}

#[sqlx::test]
async fn a_server_that_ends_holds_those_who_could_not_come_back_for_their_result(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let (openai, eachlabs) = (json!({"prompt": "a cat"}), json!({"model": "sdxl-lightning-4step", "input": {}}));
    let streamed = json!({"prompt": "a cat", "stream": true});
    let generate = |body: &Value| app.post("/v1/images/generations").json(body);
    let wait = |request: RequestBuilder| tokio::spawn(request.send());
    let polled = wait(app.post("/predictions?wait=60").json(&json!({})));
    let (drawn, ran) = (wait(generate(&openai)), wait(app.post("/v1/prediction/run").json(&eachlabs)));
    let stream = generate(&streamed).send().await.unwrap();
    app.until_watched(4).await;

    let service = app.service.clone();
    let draining = tokio::spawn(async move { service.drain(tokio::time::sleep(PATIENCE)).await });
    // Who can come back is answered.
    assert_eq!(json(polled.await.unwrap().unwrap()).await["status"], "starting");
    // Who comes now is sent to another server before anything is made.
    let late = generate(&openai).send().await.unwrap();
    assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&late.headers()["retry-after"], late.headers().get("x-should-retry")), (&"1".parse().unwrap(), None));
    // And a worker is at the rest.
    for _ in 0..4 {
        app.run_one().await;
    }
    assert_eq!(drawn.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(json(ran.await.unwrap().unwrap()).await["status"], "success");
    assert!(stream.text().await.unwrap().contains("event: image_generation.completed\n"));
    tokio::time::timeout(PATIENCE / 2, draining).await.expect("nobody is left to wait for").unwrap();
}
