//! Files that are shared by a link: who has one that the owner has signed may read, for as long as it says, and nobody else.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use fourstep::domain::ApiKey;
use reqwest::{Method, Response, StatusCode};
use sqlx::{Connection, PgConnection, PgPool};

use crate::support::{PATIENCE, TestApp, black_png, eventually, id, json, waiting_for_a_lock};

/// A time that no test lives to see, in seconds since 1970.
pub(crate) const FAR_AWAY: i64 = 4_102_444_800;

/// What an owner signs a link with, as told to a client of Replicate's: from the secret that the API shows.
pub(crate) async fn signature(app: &TestApp, owner: &str, file: &str, expiry: i64) -> String {
    let shown = json(app.get("/v1/webhooks/default/secret").send().await.unwrap()).await;
    let secret = BASE64_STANDARD.decode(shown["key"].as_str().unwrap().strip_prefix("whsec_").unwrap()).unwrap();
    let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), format!("{owner} {file} {expiry}").as_bytes());
    BASE64_STANDARD.encode(signed)
}

impl TestApp {
    async fn upload_picture(&self) -> String {
        let sent = self.post("/files").header("Content-Type", "image/png").body(black_png(8, 8)).send().await.unwrap();
        id(&json(sent).await)
    }

    /// Follows a link, without a key.
    async fn follow(&self, file: &str, owner: &str, expiry: i64, signature: &str) -> Response {
        let query = [("owner", owner), ("expiry", &expiry.to_string()), ("signature", signature)];
        let url = format!("{}/v1/files/{file}/download", self.url);
        self.client.get(url).query(&query).send().await.unwrap()
    }
}

async fn refused(response: Response, status: StatusCode, words: &str) {
    assert_eq!(response.status(), status, "{words}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem = json(response).await;
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
}

#[sqlx::test]
async fn a_signed_link_is_read_without_a_key_until_it_expires(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let file = app.upload_picture().await;
    let good = signature(&app, "owner", &file, FAR_AWAY).await;
    let read = app.follow(&file, "owner", FAR_AWAY, &good).await;
    assert_eq!(read.status(), StatusCode::OK);
    assert_eq!(read.headers()["content-type"], "image/png");
    assert_eq!(read.headers()["cache-control"], "private, no-cache");
    assert_eq!(read.bytes().await.unwrap(), black_png(8, 8));
    // A part of it, its head, and with the base64 as it is in the URL.
    let url = format!("{}/replicate/v1/files/{file}/download?owner=owner&expiry={FAR_AWAY}&signature={good}", app.url);
    let part = app.client.get(&url).header("Range", "bytes=0-3").send().await.unwrap();
    assert_eq!((part.status(), &part.bytes().await.unwrap()[..]), (StatusCode::PARTIAL_CONTENT, &b"\x89PNG"[..]));
    let head = app.client.request(Method::HEAD, &url).send().await.unwrap();
    assert_eq!((head.status(), head.headers().contains_key("etag")), (StatusCode::OK, true));

    let past = 1_700_000_000;
    let was_good = signature(&app, "owner", &file, past).await;
    refused(app.follow(&file, "owner", past, &was_good).await, StatusCode::FORBIDDEN, "the link has expired").await;
    app.request(Method::DELETE, &format!("/files/{file}")).send().await.unwrap();
    refused(app.follow(&file, "owner", FAR_AWAY, &good).await, StatusCode::NOT_FOUND, "could not be found").await;
}

#[sqlx::test]
async fn a_link_is_good_only_as_its_owner_signed_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let (file, other) = (app.upload_picture().await, app.upload_picture().await);
    app.store.create_key("stranger", "test", &ApiKey::generate().unwrap()).await.unwrap();
    let good = signature(&app, "owner", &file, FAR_AWAY).await;
    // For another file, for longer, in somebody else's name, by nobody, cut short, and in no alphabet.
    let strangers = signature(&app, "stranger", &file, FAR_AWAY).await;
    for (file, owner, expiry, signature) in [
        (&other, "owner", FAR_AWAY, good.as_str()),
        (&file, "owner", FAR_AWAY + 1, &good),
        (&file, "stranger", FAR_AWAY, &good),
        (&file, "stranger", FAR_AWAY, &strangers),
        (&file, "nobody", FAR_AWAY, &good),
        (&file, "owner", FAR_AWAY, &good[..good.len() - 4]),
        (&file, "owner", FAR_AWAY, "****"),
    ] {
        refused(app.follow(file, owner, expiry, signature).await, StatusCode::FORBIDDEN, "not the owner's").await;
    }
    for (query, field) in [
        ("", "owner"),
        ("owner=owner&signature=x", "expiry"),
        ("owner=owner&expiry=tomorrow&signature=x", "expiry"),
        ("owner=owner&expiry=1", "signature"),
        ("owner=owner&expiry=1&signature=x&more=1", "more"),
    ] {
        let url = format!("{}/v1/files/{file}/download?{query}", app.url);
        let response = app.client.get(url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert_eq!(json(response).await["invalid_fields"][0]["field"], field, "{query}");
    }
}

#[sqlx::test]
async fn a_link_that_nobody_signed_makes_nothing(pool: PgPool) {
    let app = TestApp::start(pool.clone()).await;
    let file = app.upload_picture().await;
    let somebodys = BASE64_STANDARD.encode([7; 32]);
    for owner in ["owner", "nobody"] {
        refused(app.follow(&file, owner, FAR_AWAY, &somebodys).await, StatusCode::FORBIDDEN, "not the owner's").await;
    }
    let secrets: i64 = sqlx::query_scalar("select count(*) from webhook_secrets").fetch_one(&pool).await.unwrap();
    assert_eq!(secrets, 0);
}

#[sqlx::test]
async fn whoever_has_no_key_leaves_connections_to_those_who_have_one(pool: PgPool) {
    let app = TestApp::start(pool.clone()).await;
    let file = app.upload_picture().await;
    app.get("/predictions").send().await.unwrap();
    let mut locking = PgConnection::connect_with(&pool.connect_options()).await.unwrap();
    sqlx::query("begin").execute(&mut locking).await.unwrap();
    sqlx::query("lock table webhook_secrets, workers").execute(&mut locking).await.unwrap();
    let connections = pool.options().get_max_connections() as usize;
    let signature = BASE64_STANDARD.encode([7; 32]);
    let query = [("owner", "owner"), ("expiry", &FAR_AWAY.to_string()), ("signature", &signature)];
    let download = format!("{}/v1/files/{file}/download", app.url);
    let mut asking = Vec::new();
    for _ in 0..2 * connections {
        asking.push(tokio::spawn(app.client.get(&download).query(&query).send()));
        asking.push(tokio::spawn(app.client.get(format!("{}/readyz", app.url)).send()));
    }
    for what in ["%webhook_secrets%", "%from workers%"] {
        eventually("they wait for the lock", async || waiting_for_a_lock(&mut locking, what).await > 0).await;
    }
    let listed = tokio::time::timeout(PATIENCE, app.get("/predictions").send()).await.expect("in time").unwrap();
    assert_eq!(listed.status(), StatusCode::OK);
    // One looks how ready the server is, and all are told.
    assert_eq!(waiting_for_a_lock(&mut locking, "%from workers%").await, 1);
    asking.iter().for_each(|one| one.abort());
}

#[sqlx::test]
async fn an_owner_shares_its_own_files_alone_and_a_replaced_secret_is_good_for_another_day(pool: PgPool) {
    let app = TestApp::start(pool.clone()).await;
    let file = app.upload_picture().await;
    let good = signature(&app, "owner", &file, FAR_AWAY).await;
    // A stranger with an account signs by its own secret, in its own name, for a file it knows of.
    let key = ApiKey::generate().unwrap();
    let stranger = app.store.create_key("stranger", "test", &key).await.unwrap();
    let secret = app.store.signing_secrets(stranger.account_id).await.unwrap().remove(0);
    let sign = |owner: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        BASE64_STANDARD.encode(hmac::sign(&key, format!("{owner} {file} {FAR_AWAY}").as_bytes()))
    };
    let by_stranger = app.follow(&file, "stranger", FAR_AWAY, &sign("stranger")).await;
    refused(by_stranger, StatusCode::NOT_FOUND, "could not be found").await;
    let in_anothers_name = app.follow(&file, "owner", FAR_AWAY, &sign("owner")).await;
    refused(in_anothers_name, StatusCode::FORBIDDEN, "not the owner's").await;

    app.post("/webhooks/secret/rotate").send().await.unwrap();
    assert_ne!(signature(&app, "owner", &file, FAR_AWAY).await, good);
    assert_eq!(app.follow(&file, "owner", FAR_AWAY, &good).await.status(), StatusCode::OK);
    let later = "update webhook_secrets set signs_until = now() where signs_until is not null";
    sqlx::query(later).execute(&pool).await.unwrap();
    refused(app.follow(&file, "owner", FAR_AWAY, &good).await, StatusCode::FORBIDDEN, "not the owner's").await;
}
