//! OpenAI's face over HTTP: what its own client cannot be made to see. `tests/clients` has the rest.

use std::time::Duration;

use fourstep::{
    artifacts::Artifacts,
    domain::{Artifact, Failure, FailureCode, Outcome, Progress},
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{TestApp, eventually, json, waiting_for_a_lock};

const GENERATIONS: &str = "/openai/v1/images/generations";

fn small() -> Value {
    json!({"prompt": "a cat", "size": "256x256", "seed": 7})
}

#[sqlx::test]
async fn a_generation_is_held_until_its_pictures_are_there(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let held = tokio::spawn(app.post(GENERATIONS).json(&small()).send());
    app.until_watched(1).await;
    app.run_one().await;
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["fourstep-cost-usd"], "0.00308");
    assert_eq!(response.headers()["fourstep-seed"], "7");
    assert!(response.headers()["server-timing"].to_str().unwrap().contains("device;dur=2000.000"));
    let id = response.headers()["fourstep-prediction-id"].to_str().unwrap().to_owned();
    let made = json(response).await;
    assert_eq!((&made["size"], &made["data"][0]["seed"]), (&json!("256x256"), &json!(7)));
    // It is a prediction like any other, in the model's words.
    let prediction = app.prediction(&id).await;
    assert_eq!(prediction["input"], json!({"prompt": "a cat", "width": 256, "height": 256, "seed": 7}));
    let dialect: String = sqlx::query_scalar("select dialect from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(dialect, "openai");
}

#[sqlx::test]
async fn what_fails_is_an_error_that_is_not_to_be_tried_again(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let failed = |code| {
        let failure = Failure { code, message: "in vain".to_owned() };
        Outcome::Failed { failure, device_time: Duration::from_secs(1) }
    };
    for (outcome, status, code, kind) in [
        (failed(FailureCode::OutOfMemory), 500, "out_of_memory", "server_error"),
        (failed(FailureCode::InvalidInput), 400, "invalid_input", "invalid_request_error"),
        (failed(FailureCode::ContentModeration), 400, "moderation_blocked", "image_generation_user_error"),
        (Outcome::Canceled { device_time: Duration::ZERO }, 409, "canceled", "invalid_request_error"),
    ] {
        let held = tokio::spawn(app.post(GENERATIONS).json(&small()).send());
        app.until_watched(1).await;
        let claim = app.claim().await;
        app.end(&claim, outcome).await;
        let response = held.await.unwrap().unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert!(response.headers().contains_key("fourstep-prediction-id"));
        let refused = json(response).await;
        assert_eq!((&refused["error"]["code"], &refused["error"]["type"]), (&json!(code), &json!(kind)));
    }
}

#[sqlx::test]
async fn pictures_that_are_paid_for_and_cannot_be_read_are_not_to_be_bought_again(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let held = tokio::spawn(app.post(GENERATIONS).json(&small()).send());
    app.until_watched(1).await;
    let claim = app.claim().await;
    let folder = Artifacts::attempt_folder(claim.id, claim.attempt).unwrap();
    let artifact = Artifact {
        key: format!("{folder}/out-0.png"),
        content_type: "image/png".to_owned(),
        width: 256,
        height: 256,
        bytes: 1,
        seed: 7,
        safety: None,
    };
    // What leads only to itself cannot be read, not even by root.
    let place = app.folder.0.join(&artifact.key);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&place, &place).unwrap();
    app.end(&claim, Outcome::Succeeded { output: vec![artifact], device_time: Duration::from_secs(1) }).await;
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()["x-should-retry"], "false");
    assert_eq!(response.headers()["fourstep-prediction-id"], claim.id.to_string());
}

#[sqlx::test]
async fn a_stream_that_cannot_begin_is_not_to_be_tried_again_once_its_prediction_is_made(pool: PgPool) {
    let app = TestApp::start(pool).await;
    // From its creation on, the row is one that this version cannot read.
    sqlx::raw_sql(
        "create function spoil() returns trigger language plpgsql as $$ begin
             update predictions set failure_code = 'of a newer version', failure_message = '' where id = new.id;
             return null;
         end $$;
         create trigger spoil after insert on predictions for each row execute function spoil()",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    let streamed = json!({"prompt": "a cat", "size": "256x256", "stream": true});
    let response = app.post(GENERATIONS).json(&streamed).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(response.headers()["x-should-retry"], "false");
    assert!(response.headers().contains_key("fourstep-prediction-id"));
}

#[sqlx::test]
async fn a_server_that_shuts_down_says_that_the_prediction_goes_on(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let held = tokio::spawn(app.post(GENERATIONS).json(&small()).send());
    let streamed = json!({"prompt": "a cat", "size": "256x256", "stream": true});
    let stream = app.post(GENERATIONS).json(&streamed).send().await.unwrap();
    assert_eq!(
        (stream.status(), &stream.headers()["content-type"]),
        (StatusCode::OK, &"text/event-stream".parse().unwrap())
    );
    app.until_watched(2).await;
    app.service.drain(async {}).await;
    let response = held.await.unwrap().unwrap();
    assert_eq!(
        (response.status(), &response.headers()["x-should-retry"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"false".parse().unwrap())
    );
    assert_eq!(json(response).await["error"]["code"], "not_in_time");
    let events = stream.text().await.unwrap();
    assert!(events.starts_with("event: error\n") && events.contains("\"type\":\"server_error\""), "{events}");
}

#[sqlx::test]
async fn pictures_that_take_too_long_are_told_where_they_will_be(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.openai_hold = Duration::from_millis(50)).await;
    let response = app.post(GENERATIONS).json(&small()).send().await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(headers["x-should-retry"], "false");
    assert!(!headers.contains_key("retry-after"), "another try would be another picture");
    let refused = json(response).await;
    assert_eq!(refused["error"]["code"], "not_in_time");
    let (id, message) =
        (headers["fourstep-prediction-id"].to_str().unwrap(), refused["error"]["message"].as_str().unwrap());
    assert!(message.contains(&format!("GET /predictions/{id}?wait=60")), "{message}");
    app.run_one().await;
    let made = json(app.get(&format!("/predictions/{id}?wait=60")).send().await.unwrap()).await;
    assert_eq!(made["status"], "succeeded");
}

#[sqlx::test]
async fn a_stream_shows_the_previews_that_were_asked_for_and_then_the_pictures(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({"prompt": "a cat", "size": "256x256", "n": 2, "stream": true, "partial_images": 1});
    let mut stream = app.post(GENERATIONS).json(&body).send().await.unwrap();
    let claim = app.claim().await;
    let progress = |done| {
        let preview = Some(vec![0xff, 0xd8]);
        Progress {
            attempt: claim.attempt,
            done,
            total: 8,
            finished_images: 0,
            elapsed: Duration::from_secs(1),
            preview,
        }
    };
    app.store.record_progress(&claim, &progress(4)).await.unwrap();
    let partial = String::from_utf8(stream.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(partial.starts_with("event: image_generation.partial_image\n"), "{partial}");
    assert!(partial.contains("\"b64_json\":\"/9g=\"") && partial.contains("\"partial_image_index\":0"), "{partial}");
    app.store.record_progress(&claim, &progress(7)).await.unwrap();
    app.finish(&claim).await;
    let rest = stream.text().await.unwrap();
    assert_eq!(rest.matches("event: image_generation.completed\n").count(), 2, "{rest}");
    assert!(!rest.contains("partial_image"), "{rest}");
}

#[sqlx::test]
async fn a_stream_whose_database_is_away_for_a_moment_brings_the_pictures_all_the_same(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({"prompt": "a cat", "size": "256x256", "stream": true});
    let stream = app.post(GENERATIONS).json(&body).send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    let mut away = app.pool.begin().await.unwrap();
    sqlx::query("lock table predictions in access exclusive mode").execute(&mut *away).await.unwrap();
    // For the prediction, or for its place.
    eventually("it is looked at", async || waiting_for_a_lock(&mut away, "%from predictions where id = $%").await > 0)
        .await;
    // Who waits for the table does not find it then, which counts as a database that is away.
    sqlx::query("alter table predictions rename to elsewhere").execute(&mut *away).await.unwrap();
    away.commit().await.unwrap();
    sqlx::query("alter table elsewhere rename to predictions").execute(&app.pool).await.unwrap();
    app.run_one().await;
    let events = stream.text().await.unwrap();
    assert!(events.contains("event: image_generation.completed\n") && !events.contains("event: error"), "{events}");
}

#[sqlx::test]
async fn every_refusal_is_in_the_vendors_words(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let boundary = "multipart/form-data; boundary=x";
    for (method, path, content_type, body, status, code) in [
        (Method::POST, GENERATIONS, "application/json", "{", 400, json!("malformed_body")),
        (Method::POST, GENERATIONS, "text/plain", "{}", 415, json!("unsupported_media_type")),
        (Method::POST, GENERATIONS, "application/json", "{}", 400, json!(null)),
        (Method::GET, GENERATIONS, "", "", 405, json!("method_not_allowed")),
        (Method::GET, "/v1/images", "", "", 404, json!("unknown_url")),
        (Method::GET, "/openai", "", "", 404, json!("unknown_url")),
        (Method::GET, "/v1/models/nobody", "", "", 404, json!("model_not_found")),
        (Method::POST, "/openai/v1/images/variations", "", "", 501, json!("not_implemented")),
        (Method::POST, "/v1/images/edits", "application/json", "{}", 415, json!("unsupported_media_type")),
        (Method::POST, "/v1/images/edits", boundary, "--x", 400, json!("malformed_body")),
        (Method::POST, "/v1/images/edits", boundary, "--x--\r\n", 400, json!(null)),
    ] {
        let request = app.request(method, path).header("Content-Type", content_type).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (status, &"application/json".parse().unwrap()),
            "{path} {body}"
        );
        // Its client would try again what is the server's fault, and send the picture each time.
        assert_eq!(response.headers().contains_key("x-should-retry"), status == 501, "{path} {body}");
        let refused = json(response).await;
        assert_eq!(
            (&refused["error"]["code"], refused["error"]["message"].is_string()),
            (&code, true),
            "{path} {body}"
        );
    }
    let made: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(made, 0);
}
