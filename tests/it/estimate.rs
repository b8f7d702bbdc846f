//! What a prediction will take, asked before it is made.

use std::time::Duration;

use fourstep::domain::Outcome;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::{TestApp, json};

async fn estimate(app: &TestApp, input: Value) -> Value {
    let response = app.post("/estimate").json(&json!({"input": input})).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    json(response).await
}

#[sqlx::test]
async fn a_guess_comes_from_the_catalog_until_runs_have_been_measured(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let expected = json!({
        "model": "bytedance/sdxl-lightning-4step", "predict_time": 2.0, "queue_time": 0.0, "total_time": 2.0,
        "cost": 0.00308, "based_on": "catalog",
    });
    assert_eq!(estimate(&app, json!({})).await, expected);
    // Four times the images, a quarter of the pixels.
    let same_work = json!({"num_outputs": 4, "width": 512, "height": 512});
    assert_eq!(estimate(&app, same_work).await["cost"], json!(0.00308));

    for _ in 0..3 {
        app.create_small().await;
        app.run_one().await;
    }
    let small = json!({"width": 256, "height": 256});
    let measured = estimate(&app, small).await;
    assert_eq!((&measured["based_on"], &measured["predict_time"]), (&json!("measured"), &json!(2.0)));
    let scaled = estimate(&app, json!({"width": 512, "height": 256})).await;
    assert_eq!((&scaled["based_on"], &scaled["predict_time"]), (&json!("scaled"), &json!(4.0)));
    assert_eq!(scaled["cost"], json!(0.00616));

    // Three steps of four are taken of an image; an empty one is none.
    let image = "data:image/png;base64,aGk=";
    for (field, image, time) in
        [("image", "", 2.0), ("image_url", "", 2.0), ("image", image, 1.6), ("image_url", image, 1.6)]
    {
        let guess = estimate(&app, json!({"width": 256, "height": 256, field: image})).await;
        assert_eq!(guess["predict_time"], json!(time), "{field}: {image:?}");
    }

    app.create_small().await;
    let behind_one = estimate(&app, json!({})).await;
    assert_eq!(behind_one["queue_time"], json!(2.0));
    let made: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(made, 4, "a guess makes nothing");
}

#[sqlx::test]
async fn runs_that_were_canceled_say_nothing_of_how_long_one_takes(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for _ in 0..4 {
        app.create_small().await;
        app.finish_in(&app.claim().await, Duration::from_secs(3)).await;
    }
    // Nor does one with a word of a newer version's, and nothing fails for it.
    let newer = "update predictions set input = input || '{\"scheduler\": \"of a newer version\"}'
                 where id = (select id from predictions limit 1)";
    sqlx::query(newer).execute(&app.pool).await.unwrap();
    for _ in 0..5 {
        app.create_small().await;
        app.end(&app.claim().await, Outcome::Canceled { device_time: Duration::from_millis(10) }).await;
    }
    let charges: i64 = sqlx::query_scalar("select count(*) from ledger").fetch_one(&app.pool).await.unwrap();
    assert_eq!(charges, 9);
    // What a process has measured it believes for a while; another has measured nothing yet.
    let other = TestApp::start(app.pool.clone()).await;
    let model = json(other.get("/models/sdxl-lightning-4step").send().await.unwrap()).await;
    assert_eq!(model["typical_run_seconds"], json!(3.0));
}

#[sqlx::test]
async fn what_could_not_be_made_is_not_guessed_at(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let response = app.post("/estimate").json(&json!({"input": {"width": 5}})).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(json(response).await["invalid_fields"][0]["field"], "input.width");
    let stranger = app.client.post(format!("{}/estimate", app.url)).json(&json!({})).send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
}
