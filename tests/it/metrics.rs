//! `/metrics`: what is in it, who may read it, and that it can be read when it is needed most.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fourstep::{
    domain::ApiKey,
    service::scrape::Scrape,
    store::{self, Store},
};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;

use crate::{
    ledger::usual_key,
    process::{Client, Program, TestFolder, url_of},
    support::{PATIENCE, TestApp},
};

/// Every series and its value.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap())).unwrap())
        .collect()
}

/// The address of `/metrics` that a program wrote into its log.
async fn own_listener(log: &std::path::Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = std::fs::read_to_string(log).unwrap();
        if let Some(at) = text.find("Metrics on ") {
            return text[at + "Metrics on ".len()..].split(['"', '\n']).next().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "no listener: {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn read(url: &str) -> String {
    let response = reqwest::get(url).await.unwrap().error_for_status().unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    response.text().await.unwrap()
}

#[sqlx::test]
async fn a_key_of_an_operator_reads_the_metrics_and_no_other(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let usual = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("usual"), &usual).await.unwrap();
    let status = async |key: Option<&str>| {
        let request = app.client.get(format!("{}/metrics", app.url));
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        request.send().await.unwrap().status()
    };
    assert_eq!(status(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(Some(usual.expose())).await, StatusCode::FORBIDDEN);
    assert_eq!(status(Some(&app.key)).await, StatusCode::OK);
}

#[sqlx::test]
async fn a_prediction_leaves_its_trace_in_the_metrics_of_the_processes_it_went_through(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    let client = Client::of(&server, &folder.0);
    // One waits for a worker that is not there yet.
    let id = client.create().await.unwrap();
    let api = async || {
        let request = reqwest::Client::new().get(format!("{}/metrics", server.url)).bearer_auth(&client.key);
        request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
    };
    let before = series(&api().await);
    assert_eq!(before["fourstep_queue_depth{model=\"sdxl-lightning-4step\"}"], 1.0);
    assert!(before["fourstep_queue_oldest_seconds{model=\"sdxl-lightning-4step\"}"] > 0.0);
    assert_eq!(before["fourstep_database_up"], 1.0);

    let log = folder.0.join("worker.log");
    let variables = [("RUST_LOG", "info"), ("FOURSTEP_METRICS__LISTEN", "127.0.0.1:0")];
    let _worker = Program::worker_logging(&folder.0, &url, &variables, &log);
    let ended = client.terminal(&id).await;
    assert_eq!(ended["status"], "succeeded");
    let listener = own_listener(&log).await;
    let text = read(&listener).await;
    // A page whose name leads to this machine is not answered.
    let ask =
        async |host: &str| reqwest::Client::new().get(&listener).header("Host", host).send().await.unwrap().status();
    for (host, status) in [
        ("rebound.example:9464", StatusCode::MISDIRECTED_REQUEST),
        ("127.0.0.1.example", StatusCode::MISDIRECTED_REQUEST),
        ("localhost:9464", StatusCode::OK),
        ("[::1]:9464", StatusCode::OK),
    ] {
        assert_eq!(ask(host).await, status, "{host}");
    }
    let worker = series(&text);
    for (name, value) in [
        ("fourstep_predictions_total{status=\"succeeded\",mode=\"text_to_image\"}", 1.0),
        ("fourstep_predictions_total{status=\"succeeded\",mode=\"image_to_image\"}", 0.0),
        ("fourstep_predictions_total{status=\"failed\",mode=\"text_to_image\"}", 0.0),
        ("fourstep_pool_waiters", 0.0),
        ("fourstep_held_requests", 0.0),
        ("fourstep_predict_seconds_count{stage=\"unet_step\"}", 4.0),
        ("fourstep_predict_seconds_count{stage=\"png\"}", 1.0),
        ("fourstep_predict_seconds_count{stage=\"store\"}", 1.0),
        ("fourstep_queue_wait_seconds_count{model=\"sdxl-lightning-4step\"}", 1.0),
        ("fourstep_worker_up{device=\"device-0\"}", 1.0),
        ("fourstep_workers{phase=\"ready\"}", 1.0),
        ("fourstep_leases_expired_total", 0.0),
        ("fourstep_results_fenced_total", 0.0),
        ("fourstep_notifications_lost_total", 0.0),
    ] {
        assert_eq!(worker.get(name), Some(&value), "{name} in {text}");
    }
    let device_us: i64 = sqlx::query_scalar("select device_us from predictions").fetch_one(&pool).await.unwrap();
    let cost: i64 = sqlx::query_scalar("select cost_nano from predictions").fetch_one(&pool).await.unwrap();
    let key: i64 = sqlx::query_scalar("select key_id from predictions").fetch_one(&pool).await.unwrap();
    let charged = format!(
        "fourstep_cost_usd_total{{key=\"{key}\",model=\"sdxl-lightning-4step\"}} {}.{:09}\n",
        cost / 1_000_000_000,
        cost % 1_000_000_000
    );
    assert!(text.contains(&charged), "{charged} in {text}");
    assert!(worker["fourstep_device_memory_bytes{device=\"device-0\"}"] > 1e6, "a CPU's is the process's");
    let busy = worker["fourstep_device_busy_microseconds_total{device=\"device-0\"}"];
    // Both are cut to whole microseconds, and no more is billed than the device worked.
    assert!((-1.0..1000.0).contains(&(busy - device_us as f64)), "{device_us} billed of {busy}");
    assert!(!worker.contains_key("fourstep_queue_depth{model=\"sdxl-lightning-4step\"}"), "nothing waits: {text}");

    let text = api().await;
    let created = "http_server_request_duration_seconds_count{http_request_method=\"POST\",\
                   http_route=\"/predictions\",http_response_status_code=\"202\"}";
    assert_eq!(series(&text).get(created), Some(&1.0), "{text}");
    assert!(!text.contains(&id) && !text.contains(&client.key), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(text.contains(&format!("# HELP {family} ")), "{family} is not explained");
    }
}

#[tokio::test]
async fn a_scrape_is_answered_without_the_database_and_says_so() {
    let nowhere = Store::connect(&store::Settings {
        url: "postgres://nobody@127.0.0.1:1/nothing".to_owned(),
        pool_size: 2,
        acquire_timeout: Duration::from_secs(60),
        statement_timeout: Duration::from_secs(60),
        seal: store::Seal::default(),
    });
    let text = Scrape::new(nowhere.unwrap()).text().await;
    let series = series(&text);
    assert_eq!(series["fourstep_database_up"], 0.0);
    assert_eq!(series["fourstep_pool_max_connections"], 2.0);
    assert!(!text.contains("fourstep_queue_depth"), "what is not known is not there: {text}");
}

/// Sixty-four predictions that wait, of fifty milliseconds each, with PNG encoding on.
#[sqlx::test]
async fn a_device_with_a_queue_works_at_least_97_percent_of_the_time(pool: PgPool) {
    const QUEUED: usize = 64;
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    let client = Client::of(&server, &folder.0);
    let log = folder.0.join("worker.log");
    let variables =
        [("FOURSTEP_METRICS__LISTEN", "127.0.0.1:0"), ("FOURSTEP_MOCK_STEP_MS", "50"), ("RUST_LOG", "info")];
    let mut best: f64 = 0.0;
    // The machine may have something else to do; what the service takes is what is left in a good moment.
    for _ in 0..8 {
        for _ in 0..QUEUED {
            let input = json!({"prompt": "a cat", "width": 256, "height": 256, "num_inference_steps": 1});
            client.post(0, &input).await.unwrap();
        }
        let worker = Program::worker_logging(&folder.0, &url, &variables, &log);
        let metrics = own_listener(&log).await;
        let look = async || {
            let at = Instant::now();
            let busy = series(&read(&metrics).await)["fourstep_device_busy_microseconds_total{device=\"device-0\"}"];
            (at + at.elapsed() / 2, busy / 1e6)
        };
        let ended = "select count(*) from predictions where completed_at is not null and data_removed_at is null";
        let begun: i64 = sqlx::query_scalar(ended).fetch_one(&pool).await.unwrap();
        let until = async |more: i64| {
            while sqlx::query_scalar::<_, i64>(ended).fetch_one(&pool).await.unwrap() < begun + more {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waiting: i64 = sqlx::query_scalar("select count(*) from predictions where status = 'queued'")
            .fetch_one(&pool)
            .await
            .unwrap();
        until(1).await;
        let (from, busy_then) = look().await;
        until(waiting - 4).await;
        let (to, busy) = look().await;
        best = best.max((busy - busy_then) / (to - from).as_secs_f64());
        drop(worker);
        sqlx::query("update predictions set status = 'queued', lease_until = null where status = 'processing'")
            .execute(&pool)
            .await
            .unwrap();
        if best >= 0.97 {
            return;
        }
    }
    panic!("the device was busy for {:.1} % of the time at best", best * 100.0);
}

#[sqlx::test]
async fn a_transaction_that_somebody_keeps_open_is_told(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut report = app.pool.begin().await.unwrap();
    let isolated = "set transaction isolation level repeatable read";
    sqlx::query(isolated).execute(&mut *report).await.unwrap();
    sqlx::query("select from predictions").execute(&mut *report).await.unwrap();
    let first = app.store.queue_facts().await.unwrap().oldest_snapshot;
    let later = app.store.queue_facts().await.unwrap().oldest_snapshot;
    assert!(Duration::ZERO < first && first < later, "{first:?}, then {later:?}");
    report.rollback().await.unwrap();
    let after = app.store.queue_facts().await.unwrap().oldest_snapshot;
    assert!(after < later, "{after:?}");
}
