//! Webhooks: what receivers are told, by real servers to real sockets, whatever the receivers do.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use fourstep::{
    domain::{ApiKey, Catalog, Failure, FailureCode, Outcome},
    fetch::{self, Fetcher},
    webhook::{self, Schedule},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use standardwebhooks::Webhook;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    process::{Program, TestFolder, url_of},
    support::{PATIENCE, PICTURES, TestApp, eventually, id, json},
};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";

/// What a receiver was told.
struct Told {
    headers: HeaderMap,
    body: String,
}

impl Told {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether it is signed with this secret.
    fn is_signed_with(&self, secret: &str) -> bool {
        Webhook::new(secret).unwrap().verify(self.body.as_bytes(), &self.headers).is_ok()
    }
}

/// What a receiver answers.
enum Reply {
    Status(u16),
    Answer(Response),
    /// Nothing, until the test gives this many permits.
    Hang(Arc<Semaphore>),
}

/// A server on the one address of this machine that may be reached.
struct Receiver {
    address: SocketAddr,
    told: mpsc::UnboundedReceiver<Told>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.2:0").await.unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let replies: Arc<Mutex<VecDeque<Reply>>> = Arc::default();
        let script = Arc::clone(&replies);
        let routes = Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
            let body = String::from_utf8(body.to_vec()).unwrap();
            let reply = script.lock().unwrap().pop_front();
            // The test may have seen enough.
            let _ = sender.send(Told { headers, body });
            match reply {
                None => StatusCode::OK.into_response(),
                Some(Reply::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
                Some(Reply::Answer(response)) => response,
                Some(Reply::Hang(until)) => {
                    until.acquire().await.unwrap().forget();
                    StatusCode::OK.into_response()
                }
            }
        });
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, told, replies, server }
    }

    fn url(&self) -> String {
        format!("http://{}/hook?token=t0ken", self.address)
    }

    /// Answers the next requests so, and all that follow with 200.
    fn will(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().extend(replies);
    }

    async fn next(&mut self) -> Told {
        tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("told in time").unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A process that delivers.
struct Delivering {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Delivering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn impatient() -> webhook::Settings {
    webhook::Settings {
        timeout: Duration::from_secs(30),
        per_receiver: 4,
        poll: Duration::from_millis(20),
        schedule: Schedule::new(vec![Duration::from_millis(1); 8]),
        retention: Duration::from_secs(3600),
    }
}

impl TestApp {
    fn deliver(&self) -> Delivering {
        self.deliver_as(impatient())
    }

    fn deliver_as(&self, settings: webhook::Settings) -> Delivering {
        let allowed_networks = vec![PICTURES.parse().unwrap()];
        let fetcher = Fetcher::new(fetch::Settings { allowed_networks, timeout: PATIENCE }).unwrap();
        let catalog = Catalog::parse(include_str!("../../config/models.toml")).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(webhook::deliver(self.store.clone(), fetcher, catalog, settings, stop.clone()));
        Delivering { stop, task }
    }

    /// Creates a prediction by this body; its small input is added.
    async fn create_on(&self, path: &str, mut body: Value) -> Value {
        body["input"] = json!({"prompt": "a cat", "width": 256, "height": 256});
        let response = self.post(path).json(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{}: {:?}", response.status(), response.text().await);
        json(response).await
    }

    /// Creates a prediction with a webhook and returns its id.
    async fn create_hooked(&self, receiver: &Receiver) -> String {
        id(&self.create_on("/predictions", json!({"webhook": receiver.url()})).await)
    }

    async fn fail_one(&self, message: &str) {
        let claim = self.claim().await;
        let failure = Failure { code: FailureCode::Internal, message: message.to_owned() };
        self.end(&claim, Outcome::Failed { failure, device_time: Duration::ZERO }).await;
    }

    async fn webhook(&self, id: &str) -> Value {
        json(self.get(&format!("/predictions/{id}/webhook")).send().await.unwrap()).await
    }

    async fn state(&self, id: &str) -> Value {
        self.webhook(id).await["deliveries"][0]["state"].clone()
    }

    async fn secret(&self) -> String {
        let answer = json(self.get("/v1/webhooks/default/secret").send().await.unwrap()).await;
        answer["key"].as_str().unwrap().to_owned()
    }

    /// What is posted, told or not.
    async fn events(&self, id: &str) -> Vec<String> {
        sqlx::query_scalar(
            "select event from webhook_deliveries where prediction_id = $1::uuid order by created_at, event",
        )
        .bind(id)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }
}

#[sqlx::test]
async fn a_receiver_is_told_what_its_client_would_read(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let _delivering = app.deliver();
    let model = "/replicate/v1/models/bytedance/sdxl-lightning-4step/predictions";
    for (path, read) in [("/predictions", "/predictions"), (model, "/replicate/v1/predictions")] {
        let body = json!({"webhook": receiver.url(), "webhook_events_filter": ["completed"]});
        let id = id(&app.create_on(path, body).await);
        app.run_one().await;
        let told = receiver.next().await;
        assert!(told.is_signed_with(&app.secret().await));
        assert_eq!(told.header("content-type"), "application/json");
        let mut expected = json(app.get(&format!("{read}/{id}")).send().await.unwrap()).await;
        let mut body = told.json();
        // Without TLS clients of the vendor's are given the image itself; receivers are given its URL.
        let url = body["output"].take();
        let file = app.client.get(url[0].as_str().unwrap()).send().await.unwrap();
        assert_eq!(file.headers()["content-type"], "image/png");
        expected["output"].take();
        assert_eq!(body, expected);
        eventually("it is noted", async || app.state(&id).await == "delivered").await;
    }
}

#[sqlx::test]
async fn eachlabs_receivers_are_told_in_its_words_with_its_secret(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let _delivering = app.deliver();
    let body = json!({"model": "sdxl-lightning-4step", "webhook_url": receiver.url(), "webhook_secret": "s3cret"});
    let id = |created: Value| created["predictionID"].as_str().unwrap().to_owned();

    let succeeding = id(app.create_on("/eachlabs/v1/prediction", body.clone()).await);
    app.run_one().await;
    let told = receiver.next().await;
    assert_eq!(told.header("x-webhook-secret"), "s3cret");
    assert!(told.is_signed_with(&app.secret().await), "signed as well, with what is no secret of the request");
    let output =
        json(app.get(&format!("/eachlabs/v1/prediction/{succeeding}")).send().await.unwrap()).await["output"].take();
    let expected =
        json!({"exec_id": succeeding, "flow_id": null, "status": "succeeded", "output": output, "error": ""});
    assert_eq!(told.json(), expected);

    let failing = id(app.create_on("/v1/prediction/", body.clone()).await);
    app.fail_one("out of paint").await;
    let failure = json!([{"id": "", "status": "", "output": "", "error": "Error: out of paint"}]);
    let expected = json!({"exec_id": failing, "flow_id": null, "status": "failed", "output": failure, "error": ""});
    assert_eq!(receiver.next().await.json(), expected);

    let canceled = id(app.create_on("/v1/prediction/", body).await);
    app.post(&format!("/v1/prediction/{canceled}/cancel")).send().await.unwrap();
    assert!(app.events(&canceled).await.is_empty(), "of a cancel nothing is told");
}

#[sqlx::test]
async fn a_receiver_is_told_until_it_understands_by_the_same_id(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    // Somewhere that nobody is to be led to.
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = format!("http://{}/", canary.local_addr().unwrap());
    let away = (StatusCode::TEMPORARY_REDIRECT, [("location", inner)]).into_response();
    receiver.will([
        Reply::Status(500),
        Reply::Status(404),
        Reply::Answer(away),
        Reply::Hang(Arc::new(Semaphore::new(0))),
    ]);
    let id = app.create_hooked(&receiver).await;
    app.run_one().await;
    let _delivering = app.deliver_as(webhook::Settings { timeout: Duration::from_secs(2), ..impatient() });
    let mut ids = Vec::new();
    for _ in 0..5 {
        let told = receiver.next().await;
        assert!(told.is_signed_with(&app.secret().await));
        assert_eq!(told.json()["status"], "succeeded");
        ids.push(told.header("webhook-id").to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    eventually("it is noted", async || app.state(&id).await == "delivered").await;
    let webhook = app.webhook(&id).await;
    let delivery = &webhook["deliveries"][0];
    assert_eq!((&delivery["id"], &delivery["event"]), (&json!(ids[0]), &json!("completed")));
    let attempts = delivery["attempts"].as_array().unwrap();
    let codes: Vec<_> = attempts.iter().map(|attempt| attempt["status_code"].as_u64()).collect();
    assert_eq!(codes, [Some(500), Some(404), Some(307), None, Some(200)]);
    assert_eq!(attempts[3]["error"], "took longer than 2 seconds");
    assert!(tokio::time::timeout(Duration::ZERO, canary.accept()).await.is_err(), "the redirect was followed");
}

#[sqlx::test]
async fn a_receiver_that_was_down_is_told_when_it_is_back(pool: PgPool) {
    let app = TestApp::start(pool).await;
    // Has its address, and refuses connections until it listens.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap());
    let id = id(&app.create_on("/predictions", json!({"webhook": url, "webhook_secret": SECRET})).await);
    app.run_one().await;
    let patient = Schedule::new(vec![Duration::from_millis(5); 100_000]);
    let _delivering = app.deliver_as(webhook::Settings { schedule: patient, ..impatient() });
    let attempts = async || app.webhook(&id).await["deliveries"][0]["attempts"].as_array().unwrap().clone();
    eventually("it has failed a few times", async || attempts().await.len() >= 3).await;
    assert_eq!(attempts().await[0]["error"], "could not be reached");
    let mut receiver = Receiver::on(socket.listen(16).unwrap());
    let told = receiver.next().await;
    assert!(told.is_signed_with(SECRET) && !told.is_signed_with(&app.secret().await), "by the request's own secret");
    eventually("it is noted", async || app.state(&id).await == "delivered").await;
}

#[sqlx::test]
async fn after_the_last_pause_a_delivery_is_given_up(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    receiver.will([Reply::Status(500), Reply::Status(503)]);
    let id = app.create_hooked(&receiver).await;
    app.run_one().await;
    let schedule = Schedule::new(vec![Duration::from_millis(1)]);
    let _delivering = app.deliver_as(webhook::Settings { schedule, ..impatient() });
    eventually("it is given up", async || app.state(&id).await == "failed").await;

    // Until somebody asks for it: then it begins again.
    let first = receiver.next().await;
    receiver.next().await;
    let asked = app.post(&format!("/predictions/{id}/webhook/redeliver")).send().await.unwrap();
    assert_eq!(asked.status(), 202);
    assert_eq!(receiver.next().await.header("webhook-id"), first.header("webhook-id"));
    eventually("it is noted", async || app.state(&id).await == "delivered").await;
    assert_eq!(app.webhook(&id).await["deliveries"][0]["attempts"].as_array().unwrap().len(), 3);
}

#[sqlx::test]
async fn a_receiver_that_is_gone_is_told_nothing_more(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    receiver.will([Reply::Status(410)]);
    let body = json!({"webhook": receiver.url(), "webhook_events_filter": ["start", "completed"]});
    let id = id(&app.create_on("/predictions", body).await);
    let _delivering = app.deliver();
    let claim = app.claim().await;
    receiver.next().await;
    eventually("it is noted", async || app.state(&id).await == "failed").await;
    app.finish(&claim).await;
    assert_eq!(app.events(&id).await, ["start"]);
}

#[sqlx::test]
async fn a_receiver_may_ask_to_be_left_alone_for_a_while(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let busy = (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", HeaderValue::from_static("3600"))]).into_response();
    receiver.will([Reply::Answer(busy)]);
    let id = app.create_hooked(&receiver).await;
    app.run_one().await;
    let _delivering = app.deliver();
    receiver.next().await;
    let attempted = async || app.webhook(&id).await["deliveries"][0]["attempts"].as_array().unwrap().len() == 1;
    eventually("it is noted", attempted).await;
    let pause: i64 = sqlx::query_scalar("select extract(epoch from due_at - now())::bigint from webhook_deliveries")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert!((3500..=3600).contains(&pause), "{pause}");
    assert_eq!(app.state(&id).await, "pending");
}

#[sqlx::test]
async fn a_dead_receiver_holds_up_nobody_else(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let (mut dead, mut alive) = (Receiver::start().await, Receiver::start().await);
    let revived = Arc::new(Semaphore::new(0));
    dead.will((0..100).map(|_| Reply::Hang(Arc::clone(&revived))));
    for _ in 0..10 {
        app.create_hooked(&dead).await;
        app.run_one().await;
    }
    app.create_hooked(&alive).await;
    app.run_one().await;
    // Two processes, and still no more than four at a time.
    let _delivering = (app.deliver(), app.deliver());
    for _ in 0..4 {
        dead.next().await;
    }
    alive.next().await;
    // Were a fifth on its way to the dead one, it would have gone before all these.
    for _ in 0..5 {
        app.create_hooked(&alive).await;
        app.run_one().await;
        alive.next().await;
    }
    assert!(dead.told.try_recv().is_err(), "a fifth delivery to a receiver that has not answered four");
    revived.add_permits(100);
    for _ in 0..6 {
        dead.next().await;
    }
}

#[sqlx::test]
async fn a_delivery_whose_process_died_is_made_by_another(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let id = app.create_hooked(&receiver).await;
    app.run_one().await;
    let lease = Duration::from_secs(60);
    let [lost] = &app.store.claim_webhooks(10, 4, lease).await.unwrap()[..] else { panic!("one is due") };
    assert!(app.store.claim_webhooks(10, 4, lease).await.unwrap().is_empty(), "it is somebody's");
    sqlx::query("update webhook_deliveries set due_at = now(), lease_until = now()").execute(&app.pool).await.unwrap();
    let _delivering = app.deliver();
    assert_eq!(receiver.next().await.header("webhook-id"), lost.id.to_string());
    eventually("it is noted", async || app.state(&id).await == "delivered").await;
    // The one that was taken for dead comes too late to say anything.
    let verdict = fourstep::store::WebhookVerdict::Failed;
    assert!(!app.store.settle_webhook(lost, &Default::default(), verdict).await.unwrap());
    assert_eq!(app.state(&id).await, "delivered");
}

#[sqlx::test]
async fn a_receiver_is_told_the_events_it_asked_for_and_as_they_were(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let model = "/replicate/v1/models/bytedance/sdxl-lightning-4step/predictions";
    let create = async |filter: Value| {
        let body = json!({"webhook": receiver.url(), "webhook_events_filter": filter});
        id(&app.create_on(model, body).await)
    };
    for (filter, events) in [
        (json!(["start", "output", "logs", "completed"]), vec!["start", "logs", "completed", "output"]),
        (json!(["start"]), vec!["start"]),
        (json!(["logs"]), vec!["logs"]),
        (json!(null), vec!["completed", "output"]),
    ] {
        let id = create(filter.clone()).await;
        let claim = app.claim().await;
        app.store.record_logs(&claim, "half way\n").await.unwrap();
        app.store.record_logs(&claim, "nearly there\n").await.unwrap();
        app.finish(&claim).await;
        assert_eq!(app.events(&id).await, events, "{filter}");
    }
    sqlx::query("delete from webhook_deliveries where event <> 'output' and event <> 'start'")
        .execute(&app.pool)
        .await
        .unwrap();
    // Told late, and still what happened.
    let _delivering = app.deliver();
    for _ in 0..4 {
        let told = receiver.next().await.json();
        assert_eq!(
            (&told["status"], &told["completed_at"], &told["metrics"]),
            (&json!("processing"), &json!(null), &json!({}))
        );
    }
}

#[sqlx::test]
async fn what_a_fenced_worker_says_is_not_posted(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let receiver = Receiver::start().await;
    let body = json!({"webhook": receiver.url(), "webhook_events_filter": ["start", "output", "logs", "completed"]});
    let id = id(&app.create_on("/predictions", body).await);
    let zombie = app.claim().await;
    sqlx::query("update predictions set lease_until = now() - interval '1 s'").execute(&app.pool).await.unwrap();
    app.store.sweep(5).await.unwrap();
    let claim = app.claim().await;
    let outcome = || Outcome::Succeeded { output: Vec::new(), device_time: Duration::ZERO };
    assert!(app.store.record_logs(&zombie, "braiins\n").await.is_err());
    assert!(app.store.finish(&zombie, &outcome(), "").await.is_err());
    assert_eq!(app.events(&id).await, ["start"], "once, though it was claimed twice");
    app.store.finish(&claim, &outcome(), "").await.unwrap();
    assert_eq!(app.events(&id).await, ["start", "completed", "output"]);
}

#[sqlx::test]
async fn every_way_to_end_is_told(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let canceled = app.create_hooked(&receiver).await;
    app.post(&format!("/predictions/{canceled}/cancel")).send().await.unwrap();
    let late = app.create_hooked(&receiver).await;
    sqlx::query("update predictions set deadline = now() where status = 'queued'").execute(&app.pool).await.unwrap();
    app.store.sweep(5).await.unwrap();
    let lost = app.create_hooked(&receiver).await;
    app.claim().await;
    sqlx::query("update predictions set lease_until = now() - interval '1 s' where status = 'processing'")
        .execute(&app.pool)
        .await
        .unwrap();
    app.store.sweep(1).await.unwrap();
    let _delivering = app.deliver();
    let mut told = Vec::new();
    for _ in 0..3 {
        let body = receiver.next().await.json();
        told.push((id(&body), body["status"].clone(), body["error_code"].clone()));
    }
    for end in [
        (canceled, json!("canceled"), json!(null)),
        (late, json!("canceled"), json!("deadline_exceeded")),
        (lost, json!("failed"), json!("worker_lost")),
    ] {
        assert!(told.contains(&end), "{end:?} is not among {told:?}");
    }
}

#[sqlx::test]
async fn a_webhook_that_leads_nowhere_good_is_refused_by_name(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let create = |path: &str, body: Value| {
        let mut body = body;
        body["input"] = json!({});
        app.post(path).json(&body)
    };
    let long = format!("https://example.com/{}", "x".repeat(2048));
    for url in [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest",
        "ftp://example.com/",
        "example.com",
        "https://user:password@example.com/",
        "http://10.0.0.1:22/",
        "https://exa\u{0}mple.com/",
        &long,
    ] {
        for (path, field, body) in [
            ("/predictions", "webhook", json!({"webhook": url})),
            ("/v1/models/bytedance/sdxl-lightning-4step/predictions", "webhook", json!({"webhook": url})),
            ("/v1/prediction", "webhook_url", json!({"model": "sdxl-lightning-4step", "webhook_url": url})),
        ] {
            let response = create(path, body).send().await.unwrap();
            assert_eq!(response.status(), if field == "webhook" { 422 } else { 400 }, "{path} {url}");
            let refusal = response.text().await.unwrap();
            assert!(refusal.contains(field) && !refusal.contains("password@"), "{refusal}");
        }
    }
    for (field, body) in [
        ("webhook", json!({"webhook": 5})),
        ("webhook_events_filter", json!({"webhook": "https://example.com", "webhook_events_filter": ["end"]})),
        ("webhook_events_filter", json!({"webhook": "https://example.com", "webhook_events_filter": []})),
        ("webhook_secret", json!({"webhook": "https://example.com", "webhook_secret": "secret"})),
    ] {
        let refusal = json(create("/predictions", body.clone()).send().await.unwrap()).await;
        assert_eq!(refusal["invalid_fields"][0]["field"], field, "{body}");
    }
    let predictions: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&app.pool).await.unwrap();
    assert_eq!(predictions, 0);
}

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
async fn eachlabs_log_lists_what_was_sent_and_how_it_went(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    receiver.will([Reply::Status(500), Reply::Answer("thanks".into_response())]);
    let body = json!({"model": "sdxl-lightning-4step", "webhook_url": receiver.url(), "webhook_secret": "s3cret"});
    let id = app.create_on("/v1/prediction", body).await["predictionID"].as_str().unwrap().to_owned();
    app.run_one().await;
    let pending = json(app.get(&format!("/v1/webhooks/{id}")).send().await.unwrap()).await;
    assert_eq!(pending["attempts"][0]["status"], "PENDING");
    let _delivering = app.deliver();
    receiver.next().await;
    let told = receiver.next().await;
    eventually("it is noted", async || app.state(&id).await == "delivered").await;
    for mount in ["/v1", "/eachlabs/v1"] {
        let list = json(app.get(&format!("{mount}/webhooks?limit=1")).send().await.unwrap()).await;
        assert_eq!((&list["limit"], &list["offset"]), (&json!(1), &json!(0)));
        let entry = &list["webhooks"][0];
        assert_eq!(
            (&entry["execution_id"], &entry["url"], &entry["request"]),
            (&json!(id), &json!(receiver.url()), &json!(told.body))
        );
        assert_eq!(entry["headers"], json!({"Content-Type": "application/json", "X-Webhook-Secret": "***"}));
        let one = json(app.get(&format!("{mount}/webhooks/{id}")).send().await.unwrap()).await;
        let attempt = |index: usize| {
            let attempt = &one["attempts"][index];
            (attempt["status"].clone(), attempt["status_code"].clone(), attempt["response"].clone())
        };
        assert_eq!(attempt(0), (json!("FAILED"), json!(500), json!("")));
        assert_eq!(attempt(1), (json!("SUCCESS"), json!(200), json!("thanks")));
    }
    let other = ApiKey::generate().unwrap();
    app.store.create_key("somebody else", "test", &other).await.unwrap();
    for (path, status, error) in [
        ("/v1/webhooks/x".to_owned(), 400, "invalid execution_id"),
        (format!("/v1/webhooks/{}", uuid::Uuid::new_v4()), 404, "webhook not found"),
        (format!("/v1/webhooks/{id}"), 404, "webhook not found"),
    ] {
        let request = app.client.request(Method::GET, format!("{}{path}", app.url)).bearer_auth(other.expose());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(json(response).await["error"], error, "{path}");
    }
    for (method, path) in [
        (Method::GET, format!("/predictions/{id}/webhook")),
        (Method::POST, format!("/predictions/{id}/webhook/redeliver")),
    ] {
        let request = app.client.request(method, format!("{}{path}", app.url)).bearer_auth(other.expose());
        assert_eq!(request.send().await.unwrap().status(), 404, "{path}");
    }
    let list = app.client.get(format!("{}/v1/webhooks", app.url)).bearer_auth(other.expose()).send().await.unwrap();
    assert_eq!(json(list).await["webhooks"], json!([]));
}

#[sqlx::test]
async fn a_process_that_stops_finishes_what_it_has_begun(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let answered = Arc::new(Semaphore::new(0));
    receiver.will([Reply::Hang(Arc::clone(&answered))]);
    let id = app.create_hooked(&receiver).await;
    app.run_one().await;
    let mut delivering = app.deliver();
    receiver.next().await;
    delivering.stop.cancel();
    app.create_hooked(&receiver).await;
    app.run_one().await;
    answered.add_permits(1);
    tokio::time::timeout(PATIENCE, &mut delivering.task).await.expect("it ends").unwrap();
    assert_eq!(app.state(&id).await, "delivered");
    assert!(receiver.told.try_recv().is_err(), "nothing new was begun");
}

#[sqlx::test]
async fn what_was_told_is_forgotten_after_a_while_and_what_is_to_be_told_is_not(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut receiver = Receiver::start().await;
    let told = app.create_hooked(&receiver).await;
    app.run_one().await;
    let delivering = app.deliver();
    receiver.next().await;
    eventually("it is noted", async || app.state(&told).await == "delivered").await;
    delivering.stop.cancel();
    let waiting = app.create_hooked(&receiver).await;
    app.run_one().await;
    assert_eq!(app.store.forget_webhooks(Duration::from_secs(60), 10).await.unwrap(), 0);
    assert_eq!(app.store.forget_webhooks(Duration::ZERO, 10).await.unwrap(), 1);
    assert_eq!(app.get(&format!("/predictions/{told}/webhook")).send().await.unwrap().status(), 404);
    assert_eq!(app.state(&waiting).await, "pending");
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
