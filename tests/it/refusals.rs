//! The document against the server, where it refuses: without a key, without the scope, and where there is nothing.

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    openapi::{Operation, assert_valid, document, operations},
    support::{TestApp, json},
};

/// A request for something that is not there, without a key.
fn request(app: &TestApp, operation: &Operation) -> RequestBuilder {
    let mut url = operation.path.clone();
    for parameter in operation.described["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        url = url.replace(&format!("{{{name}}}"), &Uuid::new_v4().to_string());
    }
    app.client.request(operation.method.to_uppercase().parse().unwrap(), format!("{}{url}", app.url))
}

/// The one scope an operation needs, if it needs a key.
fn scope(operation: &Operation) -> Option<&str> {
    let needed = operation.described["security"].as_array()?;
    let [needed] = needed.as_slice() else { panic!("{needed:?}") };
    let [scope] = needed["key"].as_array().unwrap().as_slice() else { panic!("{needed}") };
    scope.as_str()
}

#[sqlx::test]
async fn without_a_key_every_operation_that_needs_one_refuses_as_its_example_shows(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut guarded = 0;
    for operation in operations(&document()) {
        let what = format!("{} {}", operation.method, operation.path);
        let response = request(&app, &operation).send().await.unwrap();
        if scope(&operation).is_none() {
            assert_ne!(response.status(), StatusCode::UNAUTHORIZED, "{what}");
            continue;
        }
        guarded += 1;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{what}");
        let content = operation.described["responses"]["401"]["content"].as_object().unwrap();
        let media = &content[response.headers()["content-type"].to_str().unwrap()];
        let (mut refusal, mut example) = (json(response).await, media["example"].clone());
        for body in [&mut refusal, &mut example] {
            body.as_object_mut().unwrap().remove("request_id");
        }
        assert_eq!(refusal, example, "{what}");
    }
    assert!(guarded > 45, "{guarded}");
}

#[sqlx::test]
async fn every_operation_needs_the_scope_that_is_described_and_no_other(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let document = document();
    let all = ["predictions:write", "predictions:read", "usage:read", "admin", "safety:disable"];
    let key = async |scopes: &[&str]| {
        let body = json!({"name": scopes.join(" "), "scopes": scopes});
        let made = json(app.post("/admin/keys").json(&body).send().await.unwrap()).await;
        made["secret"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    };
    for operation in operations(&document) {
        let Some(scope) = scope(&operation) else { continue };
        let what = format!("{} {} {scope}", operation.method, operation.path);
        let others: Vec<&str> = all.into_iter().filter(|other| *other != scope).collect();
        let refused = request(&app, &operation).bearer_auth(key(&others).await).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{what}");
        let media = refused.headers()["content-type"].to_str().unwrap().to_owned();
        let refused = json(refused).await;
        let schema = &operation.described["responses"]["403"]["content"][media]["schema"];
        assert_valid(&document, schema, &refused, &what);
        assert!(refused.to_string().contains(&format!("the scope {scope}")), "{what}: {refused}");
        let let_in = request(&app, &operation).bearer_auth(key(&[scope]).await).send().await.unwrap();
        assert!(![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&let_in.status()), "{what}");
    }
}

#[sqlx::test]
async fn where_there_is_nothing_each_face_says_so_in_its_own_shape(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let document = document();
    let schemas = &document["components"]["schemas"];
    for (path, problem) in [
        ("/nothing", "native.Problem"),
        ("/predictions/a/b/c", "native.Problem"),
        ("/v1/nothing", "replicate.Problem"),
        ("/v1/v1/nothing", "replicate.Problem"),
        ("/replicate/v1/nothing", "replicate.Problem"),
        ("/replicate/v1/predictions/a/b/c", "replicate.Problem"),
        ("/v1/prediction/a/b/c", "eachlabs.Refused"),
        ("/eachlabs/v1/nothing", "eachlabs.Refused"),
        ("/v1/images/nothing", "openai.Refused"),
        ("/openai/v1/nothing", "openai.Refused"),
    ] {
        for method in [Method::GET, Method::POST, Method::from_bytes(b"PURGE").unwrap()] {
            let response = app.client.request(method, format!("{}{path}", app.url)).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
            assert_valid(&document, &schemas[problem], &json(response).await, path);
        }
    }
}

#[sqlx::test]
async fn a_path_that_is_no_text_leads_nowhere_on_any_face(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let document = document();
    let schemas = &document["components"]["schemas"];
    let (json_type, problem) = ("application/json", "application/problem+json");
    for (method, path, status, content_type, schema) in [
        (Method::GET, "/v1/files/%FF", 404, problem, "replicate.Problem"),
        (Method::GET, "/v1/files/%FF/download", 404, problem, "replicate.Problem"),
        (Method::DELETE, "/v1/files/%FF", 404, problem, "replicate.Problem"),
        (Method::DELETE, "/eachlabs/v1/files/%FF", 400, json_type, "eachlabs.Refused"),
        (Method::PUT, "/v1/upload/%FF/x", 404, json_type, "eachlabs.Refused"),
        (Method::GET, "/v1/models/a/b/versions/%FF", 404, problem, "replicate.Problem"),
        (Method::GET, "/v1/models/%FF/b/versions", 404, problem, "replicate.Problem"),
        (Method::GET, "/docs/x/%FF", 404, problem, "native.Problem"),
        (Method::GET, "/playground/x/%FF", 404, problem, "native.Problem"),
    ] {
        let response = app.request(method.clone(), path).send().await.unwrap();
        let what = format!("{method} {path}");
        assert_eq!(response.status(), status, "{what}");
        assert_eq!(response.headers()["content-type"], content_type, "{what}");
        assert_valid(&document, &schemas[schema], &json(response).await, &what);
    }
}
