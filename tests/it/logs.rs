//! The log: what it says of a prediction, and what it never says of anybody.

use std::{path::Path, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::process::{Client, Program, TestFolder, url_of};

/// A caller's trace.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines of a program's log, each a JSON object.
fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

#[sqlx::test]
async fn a_request_is_followed_to_the_end_of_its_prediction_by_two_ids(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let log = folder.0.join("server.log");
    let mut server = Program::serve_logging(&folder.0, &url, &[("RUST_LOG", "info")], &log);
    let client = Client::of(&server, &folder.0);
    let response = reqwest::Client::new()
        .post(format!("{}/predictions?wait=60", server.url))
        .header("X-Request-Id", "abc-7")
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .bearer_auth(&client.key)
        .json(&json!({"input": {"prompt": "a cat", "width": 256, "height": 264}}))
        .send()
        .await
        .unwrap();
    let ended: Value = response.json().await.unwrap();
    server.signal(Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(35)).await.success());

    let lines = lines(&log);
    let one = |is: &dyn Fn(&&Value) -> bool| {
        let found: Vec<&Value> = lines.iter().filter(is).collect();
        assert_eq!(found.len(), 1, "{found:?} in {lines:#?}");
        found[0]
    };
    let queued = one(&|line| line["message"] == "Queueing a prediction");
    assert_eq!((&queued["span"]["request_id"], &queued["prediction_id"]), (&json!("abc-7"), &ended["id"]));
    let finished = one(&|line| line["status"] == "succeeded");
    assert_eq!(finished["prediction_id"], ended["id"]);
    assert_eq!((&finished["width"], &finished["height"], &finished["steps"]), (&json!(256), &json!(264), &json!(4)));
    assert_eq!((&finished["key_id"], &finished["model"]), (&queued["key_id"], &json!("sdxl-lightning-4step")));
    assert!(finished["queue_ms"].is_u64() && finished["predict_ms"].is_u64() && finished["cost_usd"].is_string());
    assert_eq!(finished["span"]["request_id"], "abc-7", "the worker's line leads to the request's");
    let answered = one(&|line| line["path"] == "/predictions");
    assert_eq!(answered["span"]["request_id"], "abc-7");
    let span = (&answered["span"]["trace_id"], &answered["span"]["parent_span_id"]);
    assert_eq!(span, (&json!(TRACE), &json!("00f067aa0ba902b7")), "and to the trace that the caller is in");
}

/// Everything a caller says that is nobody else's business, said on every face, with everything logged that can be.
#[sqlx::test]
async fn nothing_a_caller_says_in_confidence_is_in_the_log_at_any_level(pool: PgPool) {
    const CANARIES: [&str; 7] =
        ["canaryprompt", "canarynegative", "canaryurl", "canaryhook", "canarysecret", "canaryreplay", "canaryquery"];
    // Where pictures come from: it has none, but it hears the whole URL.
    let pictures = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = pictures.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = pictures.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        }
    });
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let log = folder.0.join("server.log");
    let variables = [("RUST_LOG", "trace"), ("FOURSTEP_FETCH__ALLOWED_NETWORKS", "127.0.0.2/32")];
    let mut server = Program::serve_logging(&folder.0, &url, &variables, &log);
    let key = Client::of(&server, &folder.0).key;
    let http = reqwest::Client::new();
    let image = format!("http://{address}/canaryurl.png?signature=canaryurl");
    let inputs = [
        json!({"prompt": "canaryprompt", "negative_prompt": "canarynegative", "guidance_scale": 2, "width": 256, "height": 256}),
        json!({"prompt": "canaryprompt", "image": image, "width": 256, "height": 256}),
        json!({"prompt": "canaryprompt", "image": "data:image/png;base64,canaryurl", "width": 256, "height": 256}),
        json!({"prompt": "canaryprompt", "width": "canaryprompt"}),
    ];
    let mut statuses = Vec::new();
    for face in ["/predictions", "/replicate/v1/predictions", "/eachlabs/v1/prediction", "/eachlabs/v1/prediction/run"]
    {
        for input in &inputs {
            for more in [
                json!({}),
                json!({"webhook": "https://hooks.example/canaryhook", "webhook_secret": "canarysecret"}),
                json!({"webhook_url": "https://hooks.example/canaryhook", "webhook_secret": "canarysecret"}),
            ] {
                let mut body = json!({"input": input, "version": "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637",
                                      "model": "sdxl-lightning-4step"});
                if face == "/predictions" {
                    body.as_object_mut().unwrap().remove("version");
                }
                body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let request = http.post(format!("{}{face}?wait=5&token=canaryquery", server.url));
                let answer = request
                    .header("Idempotency-Key", format!("canaryreplay-{}", statuses.len()))
                    .header("Prefer", "wait=5")
                    .bearer_auth(&key)
                    .json(&body)
                    .send()
                    .await
                    .unwrap();
                statuses.push((face, answer.status().as_u16()));
            }
        }
        // A key that is none, and a body that is no JSON.
        let wrong = http.post(format!("{}{face}", server.url)).bearer_auth("fs_canarysecret").body("canaryprompt");
        wrong.send().await.unwrap();
        let broken = http.post(format!("{}{face}", server.url)).header("X-API-Key", &key);
        broken.header("Content-Type", "application/json").body("{\"input\": canaryprompt").send().await.unwrap();
    }
    let accepted = statuses.iter().filter(|(_, status)| *status < 300).count();
    assert!(accepted >= 4 && accepted < statuses.len(), "something was drawn and something refused: {statuses:?}");
    server.signal(Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(35)).await.success());
    serving.abort();

    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("\"TRACE\"") && text.contains("Finished prediction"), "everything was logged");
    // The part of a key after its id is the secret.
    let secret = key.rsplit('_').next().unwrap();
    for canary in CANARIES.into_iter().chain([secret]) {
        let told: Vec<&str> = text.lines().filter(|line| line.contains(canary)).take(3).collect();
        assert!(told.is_empty(), "{canary}: {told:#?}");
    }
}
