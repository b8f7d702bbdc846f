//! What proves webhooks, and that it stays a secret.

use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    process::{Program, TestFolder, url_of},
    receiver::{Receiver, SECRET},
    support::{PICTURES, TestApp, eventually, json},
};

#[sqlx::test]
async fn a_replaced_secret_signs_beside_its_successor_for_a_day(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let old = app.secret().await;
    assert_eq!(app.secret().await, old, "it stays");
    let new = json(app.post("/webhooks/secret/rotate").send().await.unwrap()).await["key"].as_str().unwrap().to_owned();
    assert_eq!((app.secret().await == new, new == old), (true, false));
    let _delivering = app.deliver();
    app.create_hooked(&receiver).await;
    app.run_one().await;
    let told = receiver.next().await;
    assert!(told.is_signed_with(&old) && told.is_signed_with(&new));
    sqlx::query("update webhook_secrets set signs_until = now() where signs_until is not null")
        .execute(&app.pool)
        .await
        .unwrap();
    app.create_hooked(&receiver).await;
    app.run_one().await;
    let told = receiver.next().await;
    assert!(!told.is_signed_with(&old) && told.is_signed_with(&new));
}

#[sqlx::test]
async fn no_secret_and_no_url_of_a_webhook_reaches_a_log(pool: PgPool) {
    const CANARIES: [&str; 4] =
        ["t0ken", "v3rbatim", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", "k3y-k3y-k3y-k3y-k3y-k3y-k3y-k3y-k3y"];
    let folder = TestFolder::new();
    let (config, log) = (folder.0.join("fourstep.toml"), folder.0.join("log"));
    let settings = format!("[fetch]\nallowed_networks = [{PICTURES:?}]\n[webhooks]\nkey = {:?}\n", CANARIES[3]);
    std::fs::write(&config, settings).unwrap();
    let arguments = ["--config", config.to_str().unwrap()];
    let program = Program::serve_logged(&folder.0, &url_of(&pool), &arguments, &log);
    let key = std::fs::read_to_string(folder.0.join("key")).unwrap();
    let (http, mut receiver) = (reqwest::Client::new(), Receiver::start().await);
    let post = |path: &str, body: Value| {
        http.post(format!("{}{path}", program.url)).bearer_auth(key.trim()).json(&body).send()
    };
    let down = format!("{}&down", receiver.url().replace("127.0.0.2", "127.0.0.3"));
    for (path, body) in [
        ("/predictions", json!({"webhook": receiver.url(), "webhook_secret": SECRET})),
        (
            "/v1/prediction",
            json!({"model": "sdxl-lightning-4step", "webhook_url": receiver.url(), "webhook_secret": "v3rbatim"}),
        ),
        // Refused, and the refusal is not to say more than it must.
        ("/predictions", json!({"webhook": down, "webhook_secret": SECRET})),
    ] {
        post(path, body).await.unwrap();
    }
    let told = [receiver.next().await, receiver.next().await];
    assert!(told.iter().any(|told| told.is_signed_with(SECRET)), "it was sealed and opened again");
    let secret = http.get(format!("{}/webhooks/secret", program.url)).bearer_auth(key.trim()).send().await.unwrap();
    let secret = json(secret).await["key"].as_str().unwrap().to_owned();
    assert!(told.iter().any(|told| told.is_signed_with(&secret)));
    let kept: Vec<Vec<u8>> =
        sqlx::query_scalar("select secret from webhooks where secret is not null").fetch_all(&pool).await.unwrap();
    assert!(kept.len() == 2 && !kept.iter().any(|kept| kept.windows(8).any(|bytes| bytes == b"v3rbatim")));
    let delivered = async || std::fs::read_to_string(&log).unwrap().matches("Delivered a webhook").count() == 2;
    eventually("both are in the log", delivered).await;
    let log = std::fs::read_to_string(&log).unwrap();
    for canary in CANARIES.into_iter().chain([&secret[6..], key.trim()]) {
        let line = log.lines().find(|line| line.contains(canary));
        assert!(line.is_none(), "{canary} is in the log: {line:?}");
    }
}
