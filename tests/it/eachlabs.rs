//! Eachlabs' face over HTTP: what its clients send, and what their loops look at in the answers.

use std::time::{Duration, Instant};

use fourstep::domain::{Failure, FailureCode, Outcome};
use insta::assert_json_snapshot;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{TestApp, json};

/// As the hosted page's samples send it, every number a text.
fn sample() -> Value {
    json!({
        "model": "sdxl-lightning-4step",
        "version": "0.0.1",
        "input": {
            "seed": null, "width": "256", "height": "256", "prompt": "A superhero smiling", "scheduler": "K_EULER",
            "num_outputs": "2", "guidance_scale": "0", "negative_prompt": "worst quality, low quality",
            "num_inference_steps": "4", "disable_safety_checker": "true"
        },
        "webhook_url": ""
    })
}

impl TestApp {
    /// A request of Eachlabs' own kind, with the key where its clients put it.
    fn eachlabs(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).header("X-API-Key", &self.key)
    }

    async fn create_eachlabs(&self) -> String {
        let response = self.eachlabs(Method::POST, "/v1/prediction/").json(&sample()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        json(response).await["predictionID"].as_str().unwrap().to_owned()
    }

    async fn get_eachlabs(&self, id: &str) -> Value {
        let response = self.eachlabs(Method::GET, &format!("/v1/prediction/{id}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        json(response).await
    }
}

#[sqlx::test]
async fn the_sample_of_the_hosted_page_becomes_pictures(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let created = json(app.eachlabs(Method::POST, "/v1/prediction/").json(&sample()).send().await.unwrap()).await;
    assert_json_snapshot!(created, {".id" => "[id]", ".predictionID" => "[id]"}, @r#"
    {
      "id": "[id]",
      "message": "Prediction created successfully",
      "predictionID": "[id]",
      "status": "success"
    }
    "#);
    assert_eq!(created["id"], created["predictionID"]);
    let id = created["id"].as_str().unwrap();
    app.run_one().await;
    let ended = app.get_eachlabs(id).await;
    assert_json_snapshot!(ended, {".id" => "[id]", ".urls" => "[urls]", ".output" => "[urls]"}, @r#"
    {
      "id": "[id]",
      "input": {
        "disable_safety_checker": "true",
        "guidance_scale": "0",
        "height": "256",
        "negative_prompt": "worst quality, low quality",
        "num_inference_steps": "4",
        "num_outputs": "2",
        "prompt": "A superhero smiling",
        "scheduler": "K_EULER",
        "seed": null,
        "width": "256"
      },
      "logs": null,
      "metrics": {
        "cost": 0.00308,
        "predict_time": 2.0
      },
      "model": "sdxl-lightning-4step",
      "output": "[urls]",
      "status": "success",
      "urls": "[urls]"
    }
    "#);
    assert_eq!(ended["urls"]["get"], format!("{}/v1/prediction/{id}", app.url));
    let output = ended["output"].as_array().unwrap();
    assert_eq!(output.len(), 2);
    let image = app.client.get(output[1].as_str().unwrap()).send().await.unwrap();
    assert_eq!(image.headers()["content-type"], "image/png");
}

#[sqlx::test]
async fn the_face_has_its_own_mount_and_both_spellings_of_create(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for path in ["/v1/prediction", "/v1/prediction/", "/eachlabs/v1/prediction", "/eachlabs/v1/prediction/"] {
        let created = json(app.eachlabs(Method::POST, path).json(&sample()).send().await.unwrap()).await;
        let own = format!("{}/{}", path.trim_end_matches('/'), created["predictionID"].as_str().unwrap());
        app.run_one().await;
        let document = json(app.eachlabs(Method::GET, &own).send().await.unwrap()).await;
        assert_eq!(document["urls"]["cancel"], format!("{}{own}/cancel", app.url));
    }
}

#[sqlx::test]
async fn a_poll_is_held_until_the_result_is_there(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_eachlabs().await;
    let request = app.eachlabs(Method::GET, &format!("/v1/prediction/{id}"));
    let held = tokio::spawn(async move { json(request.send().await.unwrap()).await });
    app.until_watched(1).await;
    app.run_one().await;
    assert_eq!(held.await.unwrap()["status"], "success");
}

#[sqlx::test]
async fn a_poll_in_vain_says_how_far_it_is_after_five_seconds(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let (first, second) = (app.create_eachlabs().await, app.create_eachlabs().await);
    assert_eq!(app.claim().await.id.to_string(), first);
    let begun = Instant::now();
    let (processing, created) = tokio::join!(app.get_eachlabs(&first), app.get_eachlabs(&second));
    // Clients give up after 15 seconds.
    assert!((4_900..10_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    assert_eq!((&processing["status"], &created["status"]), (&json!("processing"), &json!("created")));
    assert_eq!((&created["output"], &created["logs"]), (&Value::Null, &Value::Null));
    assert_eq!(created["metrics"], json!({"cost": 0.0, "predict_time": 0.0}));
}

#[sqlx::test]
async fn a_failure_is_an_envelope_in_the_place_of_the_output(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_eachlabs().await;
    let failure = Failure { code: FailureCode::WorkerLost, message: "every worker was lost".to_owned() };
    app.end(&app.claim().await, Outcome::Failed { failure, device_time: Duration::from_secs(1) }).await;
    let failed = app.get_eachlabs(&id).await;
    assert_eq!((&failed["status"], &failed["logs"]), (&json!("error"), &json!("every worker was lost")));
    assert_eq!(failed["metrics"], json!({"cost": 0.0, "predict_time": 1.0}));
    assert_json_snapshot!(failed["output"], {".execution_id" => "[id]", ".model_id" => "[version]"}, @r#"
    {
      "classification": {
        "category": "PROVIDER"
      },
      "error": "Execution failed",
      "error_code": "PROVIDER_SERVER_ERROR",
      "error_message": "every worker was lost",
      "error_step": "execution",
      "execution_id": "[id]",
      "model_id": "[version]",
      "model_slug": "sdxl-lightning-4step",
      "provider": "fourstep",
      "retryable": true,
      "status": "ERROR",
      "success": false
    }
    "#);
}

#[sqlx::test]
async fn a_run_is_answered_with_what_became_of_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let run = async || {
        let held = tokio::spawn(app.eachlabs(Method::POST, "/v1/prediction/run").json(&sample()).send());
        app.until_watched(1).await;
        let claim = app.claim().await;
        (held, claim)
    };
    let answer = async |held: tokio::task::JoinHandle<reqwest::Result<reqwest::Response>>| {
        let response = held.await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        json(response).await
    };
    let (held, claim) = run().await;
    app.finish(&claim).await;
    let succeeded = answer(held).await;
    assert_eq!((&succeeded["status"], &succeeded["error"]), (&json!("success"), &json!("")));
    assert_eq!((&succeeded["predictionID"], succeeded["output"].as_array().unwrap().len()), (&json!(claim.id), 2));

    let (held, claim) = run().await;
    let failure = Failure { code: FailureCode::Internal, message: "broken".to_owned() };
    app.end(&claim, Outcome::Failed { failure, device_time: Duration::ZERO }).await;
    let failed = answer(held).await;
    assert_eq!(
        (&failed["status"], &failed["error"], &failed["output"]),
        (&json!("failed"), &json!("broken"), &Value::Null)
    );

    let (held, claim) = run().await;
    app.end(&claim, Outcome::Canceled { device_time: Duration::ZERO }).await;
    assert_eq!(answer(held).await["status"], "cancelled");
}

#[sqlx::test]
async fn a_run_that_takes_too_long_names_the_prediction_that_goes_on(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let held = tokio::spawn(app.eachlabs(Method::POST, "/v1/prediction/run").json(&sample()).send());
    app.until_watched(1).await;
    // Ends every wait early, as a minute would.
    app.service.drain(async {}).await;
    let response = held.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    let timed_out = json(response).await;
    assert_eq!((&timed_out["status"], &timed_out["error"]), (&json!(408), &json!("Request timeout")));
    let id = timed_out["details"]["predictionID"].as_str().unwrap();
    assert_eq!(app.get_eachlabs(id).await["status"], "created");
}

#[sqlx::test]
async fn a_cancel_is_free_and_comes_too_late_for_what_has_ended(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let cancel = async |id: &str| {
        let path = format!("/v1/prediction/{id}/cancel");
        let response = app.eachlabs(Method::POST, &path).send().await.unwrap();
        (response.status().as_u16(), json(response).await)
    };
    let id = app.create_eachlabs().await;
    let expected = json!({"status": "cancelled", "message": "Prediction canceled successfully", "predictionID": id});
    assert_eq!(cancel(&id).await, (200, expected.clone()));
    assert_eq!(cancel(&id).await, (200, expected));
    assert_eq!(app.get_eachlabs(&id).await["status"], "cancelled");

    let id = app.create_eachlabs().await;
    let claim = app.claim().await;
    assert_eq!(cancel(&id).await.0, 200);
    app.end(&claim, Outcome::Canceled { device_time: Duration::from_secs(2) }).await;
    let canceled = app.get_eachlabs(&id).await;
    assert_eq!((&canceled["status"], &canceled["output"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(canceled["metrics"], json!({"cost": 0.0, "predict_time": 2.0}));

    let id = app.create_eachlabs().await;
    app.run_one().await;
    let (status, refused) = cancel(&id).await;
    assert_eq!((status, &refused["error"]), (400, &json!("Prediction already completed")));
    assert_eq!(cancel(&Uuid::new_v4().to_string()).await.0, 404);
}

#[sqlx::test]
async fn models_are_listed_for_everybody_with_real_types(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let get = async |path: &str| json(app.client.get(format!("{}{path}", app.url)).send().await.unwrap()).await;
    let model = get("/v1/model?slug=sdxl-lightning-4step").await;
    let head = [&model["title"], &model["slug"], &model["version"], &model["output_type"]];
    assert_eq!(head, ["SDXL-Lightning 4-step", "sdxl-lightning-4step", "0.0.1", "array"]);
    let properties = &model["request_schema"]["properties"];
    assert_eq!((&properties["width"]["type"], &properties["width"]["default"]), (&json!("integer"), &json!(1024)));
    assert_eq!(properties["prompt"]["default"], "A superhero smiling");
    assert_eq!(properties["disable_safety_checker"]["default"], true);
    assert_eq!(properties["scheduler"]["enum"].as_array().unwrap().len(), 8);
    let validator = jsonschema::validator_for(&model["request_schema"]).unwrap();
    assert!(
        validator.is_valid(&json!({"prompt": "a cat", "lora": "x"})) && !validator.is_valid(&json!({"width": "8"}))
    );

    let all = get("/v1/models").await;
    assert_eq!(all[0], model);
    let count = all.as_array().unwrap().len();
    assert!(count >= 2);
    for (query, listed) in
        [("?limit=1", 1), ("?offset=1", count - 1), ("?name=LIGHTNING", 1), ("?name=nobody", 0), ("?offset=9999", 0)]
    {
        assert_eq!(get(&format!("/eachlabs/v1/models{query}")).await.as_array().unwrap().len(), listed, "{query}");
    }
}

#[sqlx::test]
async fn the_list_of_models_is_each_vendors_own(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for (agent, query, is_page) in [
        ("replicate-python/1.0.7", "", true),
        ("replicate-javascript/1.4.0", "", true),
        ("replicate-javascript/1.4.0", "?limit=5", false),
        ("OpenAI/Python 2.0.0", "", true),
        ("each-js/0.0.3", "", false),
        ("curl/8.0", "", false),
    ] {
        let response = app.get(&format!("/v1/models{query}")).header("User-Agent", agent).send().await.unwrap();
        assert_eq!(response.headers()["vary"], "Authorization, X-API-Key, User-Agent");
        let listed = json(response).await;
        assert_eq!(listed.is_object(), is_page, "{agent} {query}");
        assert_eq!(listed["object"] == "list", agent.starts_with("OpenAI"), "{agent}");
    }
}

#[sqlx::test]
async fn executions_are_what_was_run_and_what_it_cost(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let list = async |query: &str| {
        json(app.eachlabs(Method::GET, &format!("/v1/executions{query}")).send().await.unwrap()).await
    };
    let succeeded = app.create_eachlabs().await;
    app.run_one().await;
    app.create_eachlabs().await;
    let failure = Failure { code: FailureCode::Internal, message: "broken".to_owned() };
    app.end(&app.claim().await, Outcome::Failed { failure, device_time: Duration::ZERO }).await;
    app.create_eachlabs().await;
    app.claim().await;
    app.create_eachlabs().await;

    let listed = list("").await;
    let statuses: Vec<_> = listed["executions"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, ["created", "starting", "error", "success"]);
    assert_eq!((&listed["total_count"], &listed["total_capped"]), (&json!(4), &json!(false)));
    assert_eq!((&listed["offset"], &listed["limit"]), (&json!(0), &json!(20)));
    let first = &listed["executions"][3];
    assert_eq!((&first["id"], &first["model"]), (&json!(succeeded), &json!("sdxl-lightning-4step")));
    assert_eq!((&first["execution_cost"], &first["run_time"]), (&json!(0.00308), &json!(2.0)));
    assert!(first["output"].as_str().unwrap().ends_with("out-0.png") && first["requested_model"].is_null());

    for (query, count, total) in [
        ("?status=success,error", 2, 2),
        ("?status=created", 1, 1),
        ("?limit=1&offset=1", 1, 4),
        ("?model=sdxl-lightning-4step", 4, 4),
        ("?model=demo-4step", 0, 0),
        ("?workflow_id=x", 0, 0),
        ("?error_classification=provider_error,internal_error", 1, 1),
        ("?error_classification=invalid_user_input", 0, 0),
        ("?error_classification=provider_auth&status=error", 0, 0),
        ("?to=2020-01-01T00:00:00Z", 0, 0),
        ("?from=2020-01-01T00:00:00Z", 4, 4),
        ("?from=2020-01-01T00:00:00+01:00&to=9999-12-31T23:59:59Z", 4, 4),
    ] {
        let listed = list(query).await;
        assert_eq!(listed["executions"].as_array().unwrap().len(), count, "{query}");
        assert_eq!(listed["total_count"], total, "{query}");
    }
}

#[sqlx::test]
async fn every_refusal_is_of_eachlabs_shape(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.body_limit = 2048).await;
    let create = |body: Value| app.eachlabs(Method::POST, "/v1/prediction/").json(&body);
    let get = |path: &str| app.eachlabs(Method::GET, path);
    let with = |field: &str, value: Value| {
        let mut body = sample();
        body[field] = value;
        body
    };
    let raw = |body: &'static str, kind: &'static str| {
        app.eachlabs(Method::POST, "/v1/prediction").body(body).header("Content-Type", kind)
    };
    let no_key = app.client.post(format!("{}/v1/prediction/", app.url)).json(&sample());
    let cases = [
        (401, "Invalid or missing API key", no_key),
        (400, "model field is required", create(json!({"input": {}}))),
        (400, "model field is required", create(with("model", json!("")))),
        (400, "Invalid input for model", create(with("input", json!({"width": "wide"})))),
        (400, "Invalid input for model", create(with("input", json!("a cat")))),
        (
            400,
            "webhook_url leads to an address that is not public",
            create(with("webhook_url", json!("https://10.1.2.3"))),
        ),
        (404, "Failed to fetch model: model not found", create(with("model", json!("nobody")))),
        (404, "Failed to fetch model: model not found", get("/v1/model?slug=nobody")),
        (400, "slug parameter is required", get("/v1/model")),
        (400, "limit must be an integer between 1 and 500", get("/eachlabs/v1/models?limit=0")),
        (400, "status must be a list of created, starting, success, error", get("/v1/executions?status=cancelled")),
        (
            400,
            "error_classification must be a list of content_moderation, execution_timeout, invalid_user_input, \
             invalid_model_config, provider_auth, provider_error, provider_rate_limit, provider_unavailable, \
             internal_error, unknown",
            get("/v1/executions?error_classification=provider_error,bad_luck"),
        ),
        (400, "model must not contain the NUL character", get("/v1/executions?model=%00")),
        (400, "from must be a time like 2026-01-31T12:00:00Z", get("/v1/executions?from=-99999-01-01T00:00:00Z")),
        (422, "invalid request body", raw("{", "application/json")),
        (415, "the header Content-Type must be application/json, not text/plain", raw("{}", "text/plain")),
        (413, "the body must be at most 2048 bytes long", create(with("input", json!({"prompt": "x".repeat(4096)})))),
        (404, "there is nothing at this URL", get("/eachlabs/v1/nothing")),
        (
            405,
            "this URL does not take this method; see the Allow header",
            app.eachlabs(Method::DELETE, "/v1/prediction"),
        ),
    ];
    for (status, error, request) in cases {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{error}");
        assert_eq!(response.headers()["content-type"], "application/json", "{error}");
        let body = json(response).await;
        assert_eq!((&body["status"], &body["error"]), (&json!(status), &json!(error)));
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    }
    let made: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(made, 0);
}

#[sqlx::test]
async fn a_poll_that_can_never_succeed_is_refused_without_a_status(pool: PgPool) {
    let app = TestApp::start(pool).await;
    // A client's loop goes on while `status` is there and is not one of its words.
    let unknown = format!("/v1/prediction/{}", Uuid::new_v4());
    let no_key = app.client.get(format!("{}{unknown}", app.url));
    for (status, request) in [
        (404, app.eachlabs(Method::GET, &unknown)),
        (404, app.eachlabs(Method::GET, "/v1/prediction/not-an-id")),
        (404, app.eachlabs(Method::GET, "/eachlabs/v1/prediction/x/y/z")),
        (405, app.eachlabs(Method::GET, "/v1/prediction/run")),
        (401, no_key),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status);
        let body = json(response).await;
        assert!(body.get("status").is_none() && body["error"].is_string(), "{body}");
    }
}

#[sqlx::test]
async fn fields_nobody_knows_are_left_alone(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut body = sample();
    body["priority"] = json!("high");
    body["webhook_secret"] = json!("s");
    body["input"] = json!({"enable_safety_checker": true, "lora": "x"});
    let response = app.eachlabs(Method::POST, "/v1/prediction").json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let claim = app.claim().await;
    assert!(!claim.input.disable_safety_checker);
    assert_eq!(claim.input.prompt, "A superhero smiling");
}
