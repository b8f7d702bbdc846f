//! The native face over HTTP: what a client sees from create to picture.

use std::time::Duration;

use fourstep::{
    domain::{Failure, FailureCode, Outcome},
    store::Phase,
};
use image::ImageFormat;
use insta::assert_json_snapshot;
use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{TestApp, eventually, id, json};

#[sqlx::test]
async fn a_prompt_becomes_a_picture(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({
        "model": "bytedance/sdxl-lightning-4step",
        "input": {"prompt": "a cat", "width": "512", "height": 256, "seed": 41, "num_outputs": 2}
    });
    let response = app.post("/predictions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = header(response.headers(), "location");
    let created = json(response).await;
    assert_eq!(created["urls"]["get"], location);
    assert_eq!(
        (&created["status"], &created["output"], &created["error"]),
        (&json!("starting"), &json!(null), &json!(null))
    );
    assert_eq!((&created["input"], &created["seeds"]), (&body["input"], &json!([41, 42])));

    let request = app.client.get(format!("{location}?wait=60")).bearer_auth(&app.key);
    let held = tokio::spawn(async move { json(request.send().await.unwrap()).await });
    app.until_watched(1).await;
    app.run_one().await;
    let ended = held.await.unwrap();
    assert_eq!(ended["status"], "succeeded");
    assert_eq!(ended["metrics"]["predict_time"], json!(2.0));
    assert_eq!(ended["metrics"]["cost"], json!(0.00308));

    // Without a key, as a browser would.
    let urls = ended["output"].as_array().unwrap();
    assert_eq!(urls.len(), 2);
    let file = app.client.get(urls[1].as_str().unwrap()).send().await.unwrap();
    assert_eq!(file.headers()["content-type"], "image/png");
    let image = image::load_from_memory_with_format(&file.bytes().await.unwrap(), ImageFormat::Png).unwrap();
    assert_eq!((image.width(), image.height()), (512, 256));
}

#[sqlx::test]
async fn a_create_may_wait_for_the_result(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let request =
        app.post("/predictions").header("Prefer", "wait=30").json(&json!({"input": {"width": 256, "height": 256}}));
    let held = tokio::spawn(request.send());
    app.until_watched(1).await;
    app.run_one().await;
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["preference-applied"], "wait=30");
    assert_eq!(json(response).await["status"], "succeeded");

    // In vain, for there is nobody to run it.
    let response = app.post("/predictions?wait=0").json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert!(!response.headers().contains_key("preference-applied"));
    assert_eq!(json(response).await["status"], "starting");
}

#[sqlx::test]
async fn a_create_may_ask_for_the_picture_itself(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let ask = |input: Value| app.post("/predictions").header("Accept", "image/png").json(&json!({"input": input}));
    let held = tokio::spawn(ask(json!({"width": 256, "height": 256, "seed": 41})).send());
    app.until_watched(1).await;
    app.run_one().await;
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let headers = response.headers().clone();
    assert_eq!(header(&headers, "content-type"), "image/png");
    assert_eq!(
        (header(&headers, "fourstep-seed"), header(&headers, "fourstep-cost-usd")),
        ("41".into(), "0.00308".into())
    );
    assert!(header(&headers, "server-timing").contains("device;dur=2000.000"));
    let id = header(&headers, "fourstep-prediction-id");
    assert!(header(&headers, "location").ends_with(&id));
    let image = image::load_from_memory_with_format(&response.bytes().await.unwrap(), ImageFormat::Png).unwrap();
    assert_eq!((image.width(), image.height()), (256, 256));
    assert_eq!(app.prediction(&id).await["input"]["output_format"], "png");

    // What is no picture is told in JSON.
    let held = tokio::spawn(ask(json!({"width": 256, "height": 256})).send());
    app.until_watched(1).await;
    let claim = app.claim().await;
    let failure = Failure { code: FailureCode::Internal, message: "in vain".to_owned() };
    app.end(&claim, Outcome::Failed { failure, device_time: Duration::ZERO }).await;
    let response = held.await.unwrap().unwrap();
    assert_eq!(header(response.headers(), "content-type"), "application/json");
    assert_eq!(json(response).await["error"], "in vain");
    for input in [json!({"num_outputs": 2}), json!({"output_format": "jpg"})] {
        let problem = json(ask(input).send().await.unwrap()).await;
        assert_eq!((&problem["status"], &problem["invalid_fields"][0]["field"]), (&json!(422), &json!("Accept")));
    }
}

#[sqlx::test]
async fn a_failed_prediction_is_data(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    let claim = app.claim().await;
    assert_eq!(app.prediction(&id).await["status"], "processing");
    let failure = Failure { code: FailureCode::OutOfMemory, message: "the device is full".to_owned() };
    app.end(&claim, Outcome::Failed { failure, device_time: Duration::from_secs(1) }).await;
    let response = app.get(&format!("/predictions/{id}?wait=60")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let failed = json(response).await;
    assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!("the device is full")));
    assert_eq!((&failed["error_code"], &failed["metrics"]["cost"]), (&json!("out_of_memory"), &json!(0.0)));
}

#[sqlx::test]
async fn repeating_a_put_makes_nothing_new(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let path = format!("/predictions/{}", Uuid::new_v4());
    let body = json!({"input": {"prompt": "a cat", "width": 256, "height": 256}});
    let put = async |body: &Value| app.request(Method::PUT, &path).json(body).send().await.unwrap();

    let first = put(&body).await;
    assert_eq!(first.status(), StatusCode::ACCEPTED);
    let first = json(first).await;
    assert_eq!(path, format!("/predictions/{}", id(&first)));
    let again = put(&body).await;
    assert_eq!(again.status(), StatusCode::ACCEPTED);
    assert_eq!(json(again).await["seeds"], first["seeds"]);

    let other = put(&json!({"input": {"prompt": "a dog"}})).await;
    assert_eq!(other.status(), StatusCode::CONFLICT);
    assert_eq!(other.headers()["x-should-retry"], "false");
    let problem = json(other).await;
    assert_eq!((&problem["code"], &problem["invalid_fields"][0]["field"]), (&json!("conflict"), &json!("id")));

    app.run_one().await;
    let ended = put(&body).await;
    assert_eq!(ended.status(), StatusCode::OK);
    assert_eq!(json(ended).await["status"], "succeeded");
    assert_eq!(json(app.get("/predictions").send().await.unwrap()).await["results"].as_array().unwrap().len(), 1);
}

#[sqlx::test]
async fn a_cancel_is_final_for_what_is_queued_and_harmless_for_what_has_ended(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let queued = app.create_small().await;
    let canceled = app.post(&format!("/predictions/{queued}/cancel")).send().await.unwrap();
    assert_eq!(canceled.status(), StatusCode::OK);
    let canceled = json(canceled).await;
    assert_eq!((&canceled["status"], &canceled["metrics"]["cost"]), (&json!("canceled"), &json!(0.0)));

    let finished = app.create_small().await;
    app.run_one().await;
    let before = app.prediction(&finished).await;
    let after = app.request(Method::DELETE, &format!("/predictions/{finished}")).send().await.unwrap();
    assert_eq!(after.status(), StatusCode::OK);
    assert_eq!(json(after).await, before);

    let running = app.create_small().await;
    let claim = app.claim().await;
    let asked = json(app.post(&format!("/predictions/{running}/cancel")).send().await.unwrap()).await;
    assert_eq!(asked["status"], "processing");
    let renewed =
        app.store.renew(claim.worker_id, &[(claim.id, claim.attempt)], Duration::from_secs(60)).await.unwrap();
    assert!(renewed[0].cancel_requested);
}

#[sqlx::test]
async fn a_list_is_paged_newest_first_and_filtered(pool: PgPool) {
    let app =
        TestApp::start_with(pool, |settings| settings.public_url = Some("https://example.com/api".parse().unwrap()))
            .await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(app.create_small().await);
    }
    app.run_one().await;
    ids.reverse();

    let (mut seen, mut path) = (Vec::new(), "/predictions?limit=2".to_owned());
    loop {
        let page = json(app.get(&path).send().await.unwrap()).await;
        let results = page["results"].as_array().unwrap();
        assert!(results.len() <= 2);
        seen.extend(results.iter().map(id));
        let Some(next) = page["next"].as_str() else { break };
        path = next.strip_prefix("https://example.com/api").unwrap().to_owned();
    }
    assert_eq!(seen, ids);

    for (status, count) in [("starting", 4), ("succeeded", 1), ("failed", 0)] {
        let page = json(app.get(&format!("/predictions?status={status}&limit=100")).send().await.unwrap()).await;
        let results = page["results"].as_array().unwrap();
        assert_eq!((results.len(), &page["next"]), (count, &json!(null)), "{status}");
        assert!(results.iter().all(|prediction| prediction["status"] == status));
    }
    let page = json(app.get("/predictions?status=starting&limit=3").send().await.unwrap()).await;
    assert!(page["next"].as_str().unwrap().ends_with("&limit=3&status=starting"));
}

#[sqlx::test]
async fn a_queued_prediction_knows_its_place(pool: PgPool) {
    let app = TestApp::start(pool).await;
    app.report_worker(Phase::Ready, 100).await;
    for position in 1..=3 {
        let created = app.create(json!({})).await;
        assert_eq!(created["queue_position"], position);
        // The catalog's figure of two seconds a run.
        assert_eq!(created["eta_seconds"], json!(2.0 * f64::from(position)));
    }
}

#[sqlx::test]
async fn a_document_the_client_has_is_not_sent_again(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let path = format!("/predictions/{}", app.create_small().await);
    let first = app.get(&path).send().await.unwrap();
    let etag = header(first.headers(), "etag");
    let again = app.get(&path).header("If-None-Match", &etag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(again.headers()["etag"], etag.as_str());
    assert!(again.bytes().await.unwrap().is_empty());
    app.run_one().await;
    let changed = app.get(&path).header("If-None-Match", &etag).send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(header(changed.headers(), "etag"), etag);
}

#[sqlx::test]
async fn a_deadline_is_taken_from_cancel_after(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let request = app.post("/predictions").header("Cancel-After", "1h30m").json(&json!({}));
    let created = json(request.send().await.unwrap()).await;
    let time = |field: &str| created[field].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!((time("deadline") - time("created_at")).num_seconds(), 5_400);
}

#[sqlx::test]
async fn models_are_found_by_every_name_with_a_schema_of_their_input(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let listed = json(app.get("/models").send().await.unwrap()).await;
    let first = listed["results"][0].clone();
    assert_json_snapshot!(first, {".input_schema.properties" => "{…}", ".url" => "[url]", ".version" => "[version]"}, @r#"
    {
      "answered_by": null,
      "description": "Text to image at 1024 pixels in four steps, by ByteDance.",
      "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "additionalProperties": false,
        "properties": "{…}",
        "title": "Input",
        "type": "object"
      },
      "name": "bytedance/sdxl-lightning-4step",
      "price_per_second": 0.00154,
      "slug": "sdxl-lightning-4step",
      "title": "SDXL-Lightning 4-step",
      "typical_run_seconds": 2.0,
      "url": "[url]",
      "version": "[version]"
    }
    "#);
    for name in ["sdxl-lightning-4step", "bytedance/sdxl-lightning-4step", "lucataco/sdxl-lightning-4step"] {
        assert_eq!(json(app.get(&format!("/models/{name}")).send().await.unwrap()).await, first, "{name}");
    }
    let validator = jsonschema::validator_for(&first["input_schema"]).unwrap();
    assert!(validator.is_valid(&json!({"prompt": "a cat"})) && !validator.is_valid(&json!({"width": 1})));
}

#[sqlx::test]
async fn a_client_that_hangs_up_after_its_request_gets_its_prediction(pool: PgPool) {
    use tokio::io::AsyncWriteExt;

    let app = TestApp::start(pool).await;
    // The longest the server can be away from the body: the key is not cached yet.
    for sent in 1..=10 {
        let body = r#"{"input":{"prompt":"a cat"}}"#;
        let mut stream = tokio::net::TcpStream::connect(app.address()).await.unwrap();
        let request = format!(
            "POST /predictions?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            app.key,
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        drop(stream);
        eventually("the prediction is created", async || {
            let count: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
            count == sent
        })
        .await;
    }
    // And nobody waits for it any longer.
    app.until_watched(0).await;
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers[name].to_str().unwrap().to_owned()
}
