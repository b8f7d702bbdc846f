//! Replicate's face over HTTP: what its clients send, and what they insist on in the answers.

use std::time::{Duration, Instant};

use base64::{Engine, prelude::BASE64_STANDARD};
use fourstep::domain::{Failure, FailureCode, Outcome};
use image::ImageFormat;
use insta::assert_json_snapshot;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{TestApp, id, json};

/// The version id that most clients hard-code.
const VERSION: &str = "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637";
const MODEL: &str = "/v1/models/bytedance/sdxl-lightning-4step";

fn small() -> Value {
    json!({"prompt": "a cat", "width": 256, "height": 256})
}

#[sqlx::test]
async fn a_prediction_by_version_becomes_an_image_in_a_data_uri(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({"version": VERSION, "input": small()});
    let response = app.post("/v1/predictions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let created = json(response).await;
    assert_eq!(created["urls"]["get"], location);
    assert_json_snapshot!(created, {".id" => "[id]", ".created_at" => "[time]", ".urls" => "[urls]"}, @r#"
    {
      "completed_at": null,
      "created_at": "[time]",
      "data_removed": false,
      "error": null,
      "id": "[id]",
      "input": {
        "height": 256,
        "prompt": "a cat",
        "width": 256
      },
      "logs": "",
      "metrics": {},
      "model": "bytedance/sdxl-lightning-4step",
      "output": null,
      "source": "api",
      "started_at": null,
      "status": "starting",
      "urls": "[urls]",
      "version": "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637"
    }
    "#);
    for url in ["get", "cancel", "web"] {
        assert!(created["urls"][url].as_str().unwrap().starts_with(&app.url), "{url}");
    }

    app.run_one().await;
    let ended = json(app.client.get(location).bearer_auth(&app.key).send().await.unwrap()).await;
    assert_eq!(ended["status"], "succeeded");
    assert_eq!((&ended["metrics"]["predict_time"], &ended["metrics"]["cost"]), (&json!(2.0), &json!(0.00308)));
    let output = ended["output"][0].as_str().unwrap();
    let png = BASE64_STANDARD.decode(output.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
    assert_eq!(image::load_from_memory_with_format(&png, ImageFormat::Png).unwrap().width(), 256);
}

#[sqlx::test]
async fn over_tls_an_output_is_a_url_under_the_public_one(pool: PgPool) {
    let public = "https://example.com/api";
    let app = TestApp::start_with(pool, |settings| settings.public_url = Some(public.parse().unwrap())).await;
    let body = json!({"version": VERSION, "input": small()});
    let created = json(app.post("/replicate/v1/predictions").json(&body).send().await.unwrap()).await;
    app.run_one().await;
    let path = format!("/replicate/v1/predictions/{}", id(&created));
    let ended = json(app.get(&path).send().await.unwrap()).await;
    assert_eq!(ended["urls"]["get"], format!("{public}{path}"));
    let output = ended["output"][0].as_str().unwrap();
    assert!(output.starts_with("https://example.com/api/files/outputs/"), "{output}");
    assert_eq!(app.client.get(output.replace(public, &app.url)).send().await.unwrap().status(), StatusCode::OK);
}

#[sqlx::test]
async fn every_mount_serves_the_same_and_names_itself_in_its_urls(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for mount in ["/v1", "/v1/v1", "/replicate/v1"] {
        let response =
            app.post(&format!("{mount}/predictions")).json(&json!({"version": VERSION, "input": {}})).send().await;
        let created = json(response.unwrap()).await;
        let own = format!("{}{mount}/predictions/{}", app.url, id(&created));
        assert_eq!(created["urls"], json!({"get": own, "web": own, "cancel": format!("{own}/cancel")}));
        assert_eq!(json(app.get(&format!("{mount}/account")).send().await.unwrap()).await["username"], "owner");
    }
}

#[sqlx::test]
async fn a_version_is_named_in_every_way_clients_know(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let name = "bytedance/sdxl-lightning-4step";
    for (version, stored) in
        [(VERSION.to_owned(), Some(VERSION)), (format!("{name}:{VERSION}"), Some(VERSION)), (name.to_owned(), None)]
    {
        let body = json!({"version": version, "input": {}});
        let created = json(app.post("/v1/predictions").json(&body).send().await.unwrap()).await;
        assert_eq!(created["model"], name, "{version}");
        let kept = created["version"].as_str().unwrap();
        assert!(kept.len() == 64 && stored.is_none_or(|stored| stored == kept), "{version}: {kept}");
    }
    let of_model = app.post(&format!("{MODEL}/predictions")).json(&json!({"input": {}})).send().await.unwrap();
    assert_eq!(of_model.status(), StatusCode::CREATED);
}

#[sqlx::test]
async fn a_wait_is_answered_with_the_result(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let request = app.post(&format!("{MODEL}/predictions")).header("Prefer", "wait").json(&json!({"input": small()}));
    let held = tokio::spawn(request.send());
    app.until_watched(1).await;
    app.run_one().await;
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(json(response).await["status"], "succeeded");
}

#[sqlx::test]
async fn a_wait_that_runs_out_ends_before_the_client_does_and_says_starting(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let begun = Instant::now();
    let request =
        app.post("/v1/predictions").header("Prefer", "wait=1").json(&json!({"version": VERSION, "input": {}}));
    let held = tokio::spawn(request.send());
    app.until_watched(1).await;
    let claim = app.claim().await;
    let response = held.await.unwrap().unwrap();
    // Replicate's Python client gives up after 1.5 seconds.
    assert!(begun.elapsed() < Duration::from_millis(1_450), "{:?}", begun.elapsed());
    assert!(begun.elapsed() >= Duration::from_millis(750), "{:?}", begun.elapsed());
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let waited = json(response).await;
    assert_eq!(
        (&waited["status"], &waited["output"], &waited["started_at"]),
        (&json!("starting"), &Value::Null, &Value::Null)
    );
    // To whom asks again the truth is told.
    let path = format!("/v1/predictions/{}", claim.id);
    assert_eq!(json(app.get(&path).send().await.unwrap()).await["status"], "processing");
}

#[sqlx::test]
async fn a_shutdown_answers_those_who_wait(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let request = app.post("/v1/predictions").header("Prefer", "wait").json(&json!({"version": VERSION, "input": {}}));
    let held = tokio::spawn(request.send());
    app.until_watched(1).await;
    app.draining.cancel();
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(json(response).await["status"], "starting");
}

#[sqlx::test]
async fn a_failure_is_data_and_its_error_a_text(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let created =
        json(app.post("/v1/predictions").json(&json!({"version": VERSION, "input": {}})).send().await.unwrap()).await;
    let failure = Failure { code: FailureCode::OutOfMemory, message: "the device is full".to_owned() };
    app.end(&app.claim().await, Outcome::Failed { failure, device_time: Duration::from_secs(1) }).await;
    let response = app.get(&format!("/v1/predictions/{}", id(&created))).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let failed = json(response).await;
    assert_eq!((&failed["status"], &failed["error"]), (&json!("failed"), &json!("the device is full")));
    assert_eq!(failed["metrics"]["cost"], json!(0.0));
}

#[sqlx::test]
async fn a_cancel_returns_the_prediction_whatever_became_of_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let create = async || {
        let body = json!({"version": VERSION, "input": small()});
        id(&json(app.post("/v1/predictions").json(&body).send().await.unwrap()).await)
    };
    let cancel = async |id: &str| {
        let response = app.post(&format!("/v1/predictions/{id}/cancel")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        json(response).await["status"].clone()
    };
    assert_eq!(cancel(&create().await).await, "canceled");
    let running = create().await;
    let claim = app.claim().await;
    assert_eq!(cancel(&running).await, "processing");
    app.end(&claim, Outcome::Canceled { device_time: Duration::from_secs(1) }).await;
    assert_eq!(cancel(&running).await, "canceled");
    let done = create().await;
    app.run_one().await;
    assert_eq!(cancel(&done).await, "succeeded");
}

#[sqlx::test]
async fn a_deadline_is_taken_from_cancel_after(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let request = app.post("/v1/predictions").header("Cancel-After", "5m");
    let created = json(request.json(&json!({"version": VERSION, "input": {}})).send().await.unwrap()).await;
    let time = |field: &str| created[field].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!((time("deadline") - time("created_at")).num_seconds(), 300);
}

#[sqlx::test]
async fn a_list_is_turned_page_by_page_and_cut_by_time(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let created = app.create_small().await;
    sqlx::query(
        "insert into predictions (id, account_id, key_id, dialect, model, version, raw_input, input, price_nano, created_at)
         select gen_random_uuid(), account_id, key_id, dialect, model, version, raw_input, input, price_nano,
                created_at - n * interval '1 hour'
         from predictions, generate_series(1, 104) as n",
    )
    .execute(&app.pool)
    .await
    .unwrap();
    let get = async |url: &str| json(app.client.get(url).bearer_auth(&app.key).send().await.unwrap()).await;
    let first = get(&format!("{}/v1/predictions", app.url)).await;
    assert_eq!((first["results"].as_array().unwrap().len(), &first["previous"]), (100, &Value::Null));
    assert_eq!(first["results"][0]["id"], created.as_str());
    let second = get(first["next"].as_str().unwrap()).await;
    assert_eq!((second["results"].as_array().unwrap().len(), &second["next"]), (5, &Value::Null));

    let newest = first["results"][0]["created_at"].as_str().unwrap();
    for (query, count) in [
        (format!("created_after={newest}"), 1),
        (format!("created_before={newest}"), 100),
        ("created_before=2020-01-01T00:00:00Z".to_owned(), 0),
        ("source=web".to_owned(), 0),
    ] {
        let page = get(&format!("{}/v1/predictions?{query}", app.url)).await;
        assert_eq!(page["results"].as_array().unwrap().len(), count, "{query}");
    }
    let before = get(&format!("{}/v1/predictions?created_before={newest}", app.url)).await;
    let rest = get(before["next"].as_str().unwrap()).await;
    assert_eq!((rest["results"].as_array().unwrap().len(), &rest["next"]), (4, &Value::Null));
}

#[sqlx::test]
async fn a_model_and_its_versions_have_what_clients_insist_on(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let model = json(app.get(MODEL).send().await.unwrap()).await;
    assert_eq!((&model["owner"], &model["name"]), (&json!("bytedance"), &json!("sdxl-lightning-4step")));
    assert_eq!(model["url"], format!("{}{MODEL}", app.url));
    assert_eq!((&model["visibility"], &model["run_count"]), (&json!("public"), &json!(0)));
    let version = &model["latest_version"];
    assert!(version["cog_version"].is_string() && version["created_at"].is_string());
    let schemas = &version["openapi_schema"]["components"]["schemas"];
    assert_eq!(
        schemas["Output"],
        json!({"type": "array", "title": "Output", "items": {"type": "string", "format": "uri"}})
    );
    let properties = &schemas["Input"]["properties"];
    assert_eq!((&properties["width"]["maximum"], &properties["prompt"]["x-order"]), (&json!(1280), &json!(0)));
    assert_eq!(properties["scheduler"]["allOf"][0]["$ref"], "#/components/schemas/scheduler");
    assert_eq!(schemas["scheduler"]["enum"].as_array().unwrap().len(), 8);

    let versions = json(app.get(&format!("{MODEL}/versions")).send().await.unwrap()).await;
    assert_eq!(&versions["results"][0], version);
    for id in [version["id"].as_str().unwrap(), VERSION] {
        let found = json(app.get(&format!("{MODEL}/versions/{id}")).send().await.unwrap()).await;
        assert_eq!(found["id"], id);
    }
    let listed = json(app.get("/replicate/v1/models").send().await.unwrap()).await;
    assert_eq!(listed["results"][0]["name"], "sdxl-lightning-4step");
    assert_eq!(json(app.get("/v1/hardware").send().await.unwrap()).await, json!([]));
    assert_eq!(json(app.get("/v1/collections").send().await.unwrap()).await["results"], json!([]));
}

#[sqlx::test]
async fn every_refusal_is_a_problem_of_replicates_shape(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.body_limit = 2048).await;
    let create = |body: Value| app.post("/v1/predictions").json(&body);
    let absent = format!("/v1/predictions/{}", Uuid::new_v4());
    let cases = [
        (401, "Unauthenticated", app.client.post(format!("{}/v1/predictions", app.url)).json(&json!({}))),
        (422, "Invalid version or not permitted", create(json!({"version": "0".repeat(64), "input": {}}))),
        (422, "Invalid version or not permitted", create(json!({"version": "acme/anything", "input": {}}))),
        (422, "Input validation failed", create(json!({"version": VERSION}))),
        (422, "Input validation failed", create(json!({"input": {}}))),
        (422, "Input validation failed", create(json!({"version": VERSION, "input": {"width": 5}}))),
        (422, "Input validation failed", create(json!({"version": VERSION, "input": {}, "inptu": {}}))),
        (
            422,
            "Input validation failed",
            create(json!({"version": VERSION, "input": {}, "webhook": "http://10.1.2.3"})),
        ),
        (422, "Input validation failed", app.get("/v1/predictions?cursor=x")),
        (422, "Input validation failed", app.get("/v1/predictions?created_after=yesterday")),
        (422, "Input validation failed", create(json!({"version": VERSION, "input": {}})).header("Cancel-After", "1s")),
        (404, "Not Found", app.post("/v1/models/acme/anything/predictions").json(&json!({"input": {}}))),
        (404, "Not Found", app.get("/v1/models/acme/anything")),
        (404, "Not Found", app.get(&format!("{MODEL}/versions/0"))),
        (404, "Not Found", app.get(&absent)),
        (404, "Not Found", app.post(&format!("{absent}/cancel"))),
        (404, "Not Found", app.get("/replicate/v1/nothing")),
        (404, "Not Found", app.get("/v1/trainings")),
        (405, "Method Not Allowed", app.request(Method::DELETE, "/v1/predictions")),
        (400, "Bad Request", app.post("/v1/predictions").body("{").header("Content-Type", "application/json")),
        (413, "Payload Too Large", create(json!({"version": VERSION, "input": {"prompt": "x".repeat(4096)}}))),
        (415, "Unsupported Media Type", app.post("/v1/predictions").body("{}").header("Content-Type", "text/plain")),
        (404, "Not Found", app.get("/v1/files/x/download")),
        (422, "Input validation failed", app.get(&format!("/v1/files/{}/download?owner=owner", Uuid::new_v4()))),
        (404, "Not Found", app.get("/v1/files/x")),
        (415, "Unsupported Media Type", app.post("/v1/files").body("")),
    ];
    for (status, title, request) in cases {
        let what = format!("{request:?}");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{what}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{what}");
        assert!(response.headers().contains_key("x-request-id"), "{what}");
        let problem = json(response).await;
        assert_eq!((&problem["title"], &problem["status"]), (&json!(title), &json!(status)), "{what}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what}");
        assert_eq!(problem.get("invalid_fields").is_some(), title == "Input validation failed", "{what}");
    }
    let made: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(made, 0);
}

#[sqlx::test]
async fn what_is_wrong_with_a_body_is_told_field_by_field(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({"version": VERSION, "input": {"width": 5, "height": "tall"}});
    let problem = json(app.post("/v1/predictions").json(&body).send().await.unwrap()).await;
    assert_json_snapshot!(problem, @r#"
    {
      "detail": "- input.width: must be an integer between 256 and 1280\n- input.height: must be an integer between 256 and 1280\n",
      "invalid_fields": [
        {
          "description": "must be an integer between 256 and 1280",
          "field": "input.width",
          "type": "invalid"
        },
        {
          "description": "must be an integer between 256 and 1280",
          "field": "input.height",
          "type": "invalid"
        }
      ],
      "status": 422,
      "title": "Input validation failed"
    }
    "#);
    let body = json!({"version": VERSION, "inptu": {}});
    let problem = json(app.post("/v1/predictions").json(&body).send().await.unwrap()).await;
    let kinds: Vec<_> = problem["invalid_fields"].as_array().unwrap().iter().map(|field| &field["type"]).collect();
    assert_eq!(kinds, ["required", "additional_property_not_allowed"]);
}

#[sqlx::test]
async fn a_seed_of_minus_one_is_a_random_one_for_the_vendors_clients(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let input = json!({"prompt": "a cat", "seed": -1});
    for (path, body) in [
        ("/v1/predictions", json!({"version": VERSION, "input": input})),
        ("/v1/prediction", json!({"model": "sdxl-lightning-4step", "input": input})),
    ] {
        let response = app.post(path).json(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}");
        assert!(app.claim().await.input.seed <= u32::MAX.into(), "{path}");
    }
}

#[sqlx::test]
async fn an_unknown_input_is_dropped_and_noted(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({"version": VERSION, "input": {"prompt": "a cat", "lora": "x"}, "stream": true, "webhook": null});
    let created = json(app.post("/v1/predictions").json(&body).send().await.unwrap()).await;
    assert_eq!(created["input"], body["input"]);
    assert_eq!(created["logs"], "Ignored unknown field \"lora\"\n");
    assert!(created["urls"].get("stream").is_none());
}
