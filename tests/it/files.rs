//! Output files over HTTP: whole, in part, and not again.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use fourstep::{artifacts::Artifacts, domain::PredictionId};
use reqwest::{Method, RequestBuilder, StatusCode};
use sqlx::PgPool;

use crate::{
    process::TestFolder,
    support::{TestApp, json},
};

const BYTES: &[u8] = b"0123456789";

impl TestApp {
    /// Stores a file and returns its URL.
    async fn store_file(&self, bytes: &[u8]) -> String {
        let folder = Artifacts::attempt_folder(PredictionId::generate(), 1).unwrap();
        let key = format!("{folder}/out-0.png");
        self.artifacts.put(&key, bytes.to_vec()).await.unwrap();
        format!("{}/files/{key}", self.url)
    }

    /// A request without a key.
    fn anonymous(&self, method: Method, url: &str) -> RequestBuilder {
        self.client.request(method, url)
    }
}

#[test]
fn a_folder_that_is_made_for_outputs_is_closed_to_other_accounts() {
    let mode = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o777;
    let scratch = TestFolder::new();
    let made = scratch.0.join("above").join("artifacts");
    Artifacts::in_folder(&made, false).unwrap();
    assert_eq!(mode(&made), 0o700);
    // It may be another's to pass, as the database's.
    assert_ne!(mode(made.parent().unwrap()), 0o700);
    fs::set_permissions(&made, Permissions::from_mode(0o750)).unwrap();
    Artifacts::in_folder(&made, false).unwrap();
    assert_eq!(mode(&made), 0o750, "what is there keeps its mode");
}

#[sqlx::test]
async fn a_file_is_served_to_whoever_knows_its_url(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let url = app.store_file(BYTES).await;
    for method in [Method::GET, Method::HEAD] {
        let response = app.anonymous(method.clone(), &url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        for (name, value) in [
            ("content-type", "image/png"),
            ("content-length", "10"),
            ("accept-ranges", "bytes"),
            ("x-content-type-options", "nosniff"),
            ("access-control-allow-origin", "*"),
            ("cache-control", "private, max-age=86400, immutable"),
        ] {
            assert_eq!(response.headers()[name], value, "{method} {name}");
        }
        let expected = if method == Method::GET { BYTES } else { b"" };
        assert_eq!(response.bytes().await.unwrap(), expected);
    }
    // Some clients send their key wherever they go.
    let with_key = app.anonymous(Method::GET, &url).bearer_auth("nonsense").send().await.unwrap();
    assert_eq!(with_key.status(), StatusCode::OK);
}

#[sqlx::test]
async fn a_part_of_a_file_can_be_asked_for(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let url = app.store_file(BYTES).await;
    for (range, expected, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ] {
        let response = app.anonymous(Method::GET, &url).header("Range", range).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(response.headers()["content-range"], content_range);
        assert_eq!(response.text().await.unwrap(), expected);
    }
    let beyond = app.anonymous(Method::GET, &url).header("Range", "bytes=10-").send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers()["content-range"], "bytes */10");
    assert_eq!(json(beyond).await["code"], "range_not_satisfiable");
}

#[sqlx::test]
async fn a_file_the_client_has_is_not_sent_again(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let url = app.store_file(BYTES).await;
    let etag = app.anonymous(Method::HEAD, &url).send().await.unwrap().headers()["etag"].clone();
    let again = app.anonymous(Method::GET, &url).header("If-None-Match", &etag).send().await.unwrap();
    assert_eq!((again.status(), &again.headers()["etag"]), (StatusCode::NOT_MODIFIED, &etag));
    let other = app.store_file(BYTES).await;
    let other = app.anonymous(Method::GET, &other).header("If-None-Match", &etag).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK);
}

#[sqlx::test]
async fn what_is_no_file_is_not_found(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let stored = app.store_file(BYTES).await;
    let folder = stored.rsplit_once('/').unwrap().0.to_owned();
    let long = format!("{folder}/{}", "x".repeat(300));
    for url in [&folder, &format!("{stored}/x"), &format!("{stored}%00"), &format!("{stored}%FF"), &long] {
        let response = app.anonymous(Method::GET, url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{url}");
        assert_eq!(json(response).await["code"], "not_found");
    }
    for path in ["/files/", "/files/outputs", "/files/..%2F..%2Fetc%2Fpasswd", "/files/outputs/%2e%2e/x/y"] {
        let response = app.anonymous(Method::GET, &format!("{}{path}", app.url)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
}
