//! Keys, accounts and scopes over HTTP.

use std::time::{Duration, Instant};

use fourstep::domain::{ApiKey, NewKey, Scope, Scopes};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    auth::{GUARDED, VENDORS},
    ledger::usual_key,
    support::{TestApp, eventually, json},
};

const ADMIN: [(Method, &str); 9] = [
    (Method::GET, "/admin/keys"),
    (Method::POST, "/admin/keys"),
    (Method::DELETE, "/admin/keys/fs_00000000"),
    (Method::POST, "/admin/keys/fs_00000000/rotate"),
    (Method::PUT, "/admin/keys/fs_00000000/budget"),
    (Method::GET, "/admin/accounts"),
    (Method::POST, "/admin/accounts"),
    (Method::PATCH, "/admin/accounts/nobody"),
    (Method::POST, "/admin/accounts/nobody/credits"),
];

async fn opens(app: &TestApp, key: &str) -> StatusCode {
    app.client.get(format!("{}/models", app.url)).bearer_auth(key).send().await.unwrap().status()
}

async fn ok(response: Response) -> Value {
    assert!(response.status().is_success(), "{}: {}", response.status(), response.text().await.unwrap());
    json(response).await
}

#[sqlx::test]
async fn a_key_opens_what_its_scopes_say_and_nothing_else(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for scope in Scope::ALL {
        let key = ApiKey::generate().unwrap();
        let new = NewKey { scopes: Scopes::from_iter([scope]), ..usual_key("scoped") };
        app.store.issue_key(&new, &key).await.unwrap();
        let usage = [(Method::GET, "/usage")];
        for (method, path) in GUARDED.iter().chain(&VENDORS).chain(&ADMIN).chain(&usage) {
            let needed = match () {
                () if path.starts_with("/admin") => Scope::Admin,
                () if path.starts_with("/usage") => Scope::UsageRead,
                () if *method == Method::GET => Scope::PredictionsRead,
                () => Scope::PredictionsWrite,
            };
            let url = format!("{}{}", app.url, path.replace("{id}", &Uuid::new_v4().to_string()));
            let request = app.client.request(method.clone(), url).bearer_auth(key.expose()).json(&json!([]));
            let response = request.send().await.unwrap();
            let is_forbidden = response.status() == StatusCode::FORBIDDEN;
            assert_eq!(is_forbidden, needed != scope, "{method} {path} with {scope}: {}", response.status());
            assert_ne!(response.status(), StatusCode::UNAUTHORIZED);
            if is_forbidden {
                let text = response.text().await.unwrap();
                assert!(text.contains(&format!("does not have the scope {needed}")), "{text}");
            }
        }
    }
}

#[sqlx::test]
async fn turning_the_safety_checker_off_takes_a_scope(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let key = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("usual"), &key).await.unwrap();
    let create = async |key: &str, path: &str, body: Value| {
        let request = app.client.post(format!("{}{path}", app.url)).bearer_auth(key).json(&body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), json(response).await)
    };
    let input = json!({"input": {"disable_safety_checker": true}});
    let of_model = "/v1/models/bytedance/sdxl-lightning-4step/predictions";
    let (status, refused) = create(key.expose(), "/predictions", input.clone()).await;
    assert_eq!((status, &refused["status"]), (403, &json!(403)));
    assert_eq!(refused["invalid_fields"][0]["field"], "input.disable_safety_checker", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("safety:disable"), "{refused}");
    let (status, refused) =
        create(key.expose(), "/v1/images/generations", json!({"prompt": "a cat", "disable_safety_checker": true}))
            .await;
    assert_eq!((status, &refused["error"]["code"]), (403, &json!("forbidden")));

    // It is among the inputs of the vendor's own model; so there it is drawn with the checker on, and said.
    let kept = "The safety checker stays on: this API key does not have the scope safety:disable";
    for (key, is_kept) in [(key.expose(), true), (&app.key, false)] {
        let (status, created) = create(key, of_model, input.clone()).await;
        assert_eq!(status, 201, "{created}");
        assert_eq!(created["logs"].as_str().unwrap().lines().any(|line| line == kept), is_kept, "{created}");
        app.run_one().await;
    }
    // So it is in the sample of this one.
    let path = "/v1/prediction/";
    let sample = json!({"model": "sdxl-lightning-4step", "input": {"disable_safety_checker": "true"}});
    // A face that has it off unless asked does not count as asking.
    let plain = json!({"model": "sdxl-lightning-4step", "input": {}});
    for (key, body, logs) in
        [(key.expose(), &sample, json!(kept)), (key.expose(), &plain, Value::Null), (&app.key, &sample, Value::Null)]
    {
        let (status, created) = create(key, path, body.clone()).await;
        assert_eq!(status, 200);
        app.run_one().await;
        let url = format!("{}/v1/prediction/{}", app.url, created["id"].as_str().unwrap());
        let ended = json(app.client.get(url).bearer_auth(key).send().await.unwrap()).await;
        assert_eq!((&ended["status"], &ended["logs"]), (&json!("success"), &logs));
    }
    let off: Vec<bool> =
        sqlx::query_scalar("select (input ->> 'disable_safety_checker')::boolean from predictions order by created_at")
            .fetch_all(&app.pool)
            .await
            .unwrap();
    assert_eq!(off, [false, true, false, false, true]);
}

#[sqlx::test]
async fn an_operator_makes_rotates_limits_and_ends_a_key(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({"name": "ci", "account": "acme", "budget": "1.5", "budget_period": "day"});
    let made = ok(app.post("/admin/keys").json(&body).send().await.unwrap()).await;
    let (key, secret) = (made["key"].as_str().unwrap(), made["secret"].as_str().unwrap());
    assert_eq!(opens(&app, secret).await, StatusCode::OK);

    let rotated = ok(app.post(&format!("/admin/keys/{key}/rotate")).json(&json!({})).send().await.unwrap()).await;
    let (new_key, new_secret) = (rotated["key"].as_str().unwrap(), rotated["secret"].as_str().unwrap());
    assert_eq!([opens(&app, secret).await, opens(&app, new_secret).await], [StatusCode::OK; 2]);
    let at_once = json!({"overlap_seconds": 0});
    let again = ok(app.post(&format!("/admin/keys/{new_key}/rotate")).json(&at_once).send().await.unwrap()).await;
    let (last_key, last_secret) = (again["key"].as_str().unwrap(), again["secret"].as_str().unwrap());
    assert_eq!(
        [opens(&app, secret).await, opens(&app, new_secret).await, opens(&app, last_secret).await],
        [StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED, StatusCode::OK]
    );

    let keys = ok(app.get("/admin/keys").send().await.unwrap()).await;
    let listed = &keys["results"][1];
    assert_eq!((&listed["key"], &listed["account"]), (&json!(last_key), &json!("acme")));
    assert_eq!(listed["budget"], json!({"amount": 1.5, "period": "day", "spent": 0.0, "held": 0.0}));
    assert!(!keys.to_string().contains(&last_secret[12..]), "a list shows no secret");
    let unlimited = app.request(Method::PUT, &format!("/admin/keys/{last_key}/budget")).json(&json!({"budget": null}));
    assert_eq!(unlimited.send().await.unwrap().status(), StatusCode::NO_CONTENT);

    let path = format!("/admin/keys/{last_key}");
    assert_eq!(app.request(Method::DELETE, &path).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(opens(&app, last_secret).await, StatusCode::UNAUTHORIZED);
    assert_eq!(app.request(Method::DELETE, &path).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[sqlx::test]
async fn an_operator_makes_and_credits_an_account(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let send = async |method: Method, path: &str, body: Value| {
        app.request(method, path).json(&body).send().await.unwrap().status()
    };
    let new = json!({"name": "acme", "mode": "prepaid"});
    assert_eq!(send(Method::POST, "/admin/accounts", new.clone()).await, StatusCode::CREATED);
    assert_eq!(send(Method::POST, "/admin/accounts", new).await, StatusCode::UNPROCESSABLE_ENTITY);
    let credits = "/admin/accounts/acme/credits";
    assert_eq!(send(Method::POST, credits, json!({"amount": "2.50", "note": "invoice 7"})).await, 204);
    assert_eq!(send(Method::POST, credits, json!({"amount": 0.1})).await, 422);
    assert_eq!(send(Method::POST, "/admin/accounts/nobody/credits", json!({"amount": "1"})).await, 404);
    assert_eq!(send(Method::PATCH, "/admin/accounts/acme", json!({"max_in_flight": 5})).await, 204);
    let accounts = ok(app.get("/admin/accounts").send().await.unwrap()).await;
    let acme = &accounts["results"][1];
    assert_eq!((&acme["balance"], &acme["max_in_flight"]), (&json!(2.5), &json!(5)));
    assert!(app.store.audit().await.unwrap().is_clean());
}

#[sqlx::test]
async fn a_key_that_another_process_revoked_opens_nothing_after_five_seconds(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let key = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("usual"), &key).await.unwrap();
    assert_eq!(opens(&app, key.expose()).await, StatusCode::OK);
    // Behind the back of the service, as another process does it.
    assert!(app.store.revoke_key(key.lookup()).await.unwrap());
    let revoked = Instant::now();
    let mut asked = revoked;
    eventually("it is refused", async || {
        asked = Instant::now();
        opens(&app, key.expose()).await == StatusCode::UNAUTHORIZED
    })
    .await;
    // Counted to the question, not to its answer, for which a busy machine may take its time.
    assert!(asked - revoked <= Duration::from_secs(5), "{:?}", asked - revoked);
}

#[sqlx::test]
async fn an_expired_key_opens_nothing(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let key = ApiKey::generate().unwrap();
    let new = NewKey { expires_at: Some(chrono::Utc::now()), ..usual_key("usual") };
    app.store.issue_key(&new, &key).await.unwrap();
    assert_eq!(opens(&app, key.expose()).await, StatusCode::UNAUTHORIZED);
}
