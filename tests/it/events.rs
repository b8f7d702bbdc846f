//! A prediction as it happens: what a client is told, when, and what it is told when it comes back.

use base64::{Engine, prelude::BASE64_STANDARD};
use fourstep::{
    domain::{Outcome, Progress},
    store::{Audience, Claim},
};
use futures_util::{StreamExt, stream::BoxStream};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;

use crate::{
    queue::MODEL,
    support::{PATIENCE, TestApp, eventually, json},
};

/// One event of a stream.
#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

/// A client's side of a stream.
struct Events {
    bytes: BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    text: String,
}

impl Events {
    async fn open(request: RequestBuilder) -> Self {
        let response: Response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { bytes: response.bytes_stream().boxed(), text: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                    line.unwrap_or_default().to_owned()
                };
                let (name, id, data) = (field("event"), field("id"), field("data"));
                self.text = rest.to_owned();
                // A heartbeat has no data.
                if !data.is_empty() {
                    return Some(Event { name, id, data: serde_json::from_str(&data).unwrap() });
                }
                continue;
            }
            let more = tokio::time::timeout(PATIENCE, self.bytes.next()).await.expect("an event")?;
            self.text.push_str(std::str::from_utf8(&more.unwrap()).unwrap());
        }
    }

    async fn expect(&mut self, name: &str) -> Event {
        let event = self.next().await.expect("an event");
        assert_eq!(event.name, name, "{event:?}");
        event
    }
}

fn progress(claim: &Claim, done: u32) -> Progress {
    let elapsed = Duration::from_millis(500) * done;
    Progress { attempt: claim.attempt, done, total: 4, finished_images: 0, elapsed, preview: Some(vec![0xff, 0xd8]) }
}

#[sqlx::test]
async fn a_client_is_told_of_the_queue_the_steps_and_the_end(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let ahead = app.create_small().await;
    let id = app.create_small().await;
    let mut events = Events::open(app.get(&format!("/predictions/{id}/events"))).await;
    let queued = events.expect("queued").await;
    assert_eq!(queued.data, json!({"position": 2, "eta_seconds": 4.0}));
    // It moves up without any change to its row.
    app.post(&format!("/predictions/{ahead}/cancel")).send().await.unwrap();
    assert_eq!(events.expect("queued").await.data["position"], 1);

    let claim = app.claim().await;
    app.store.record_progress(&claim, &progress(&claim, 1)).await.unwrap();
    let step = loop {
        let event = events.next().await.unwrap();
        if event.name == "step" {
            break event;
        }
        assert_eq!(event.name, "started");
    };
    let expected = json!({"step": 1, "total": 4, "finished_images": 0, "elapsed_seconds": 0.5, "preview": "data:image/jpeg;base64,/9g="});
    assert_eq!((step.data, step.id.as_str()), (expected, "step-1-1-0"));
    app.store.record_progress(&claim, &progress(&claim, 3)).await.unwrap();
    assert_eq!(events.expect("step").await.data["step"], 3);

    // A finished image is news though no step is.
    app.store.record_progress(&claim, &Progress { finished_images: 1, ..progress(&claim, 3) }).await.unwrap();
    let image = events.expect("step").await;
    assert_eq!((&image.data["step"], &image.data["finished_images"]), (&json!(3), &json!(1)));

    app.finish(&claim).await;
    let finished = events.expect("finished").await;
    assert_eq!(finished.data, app.prediction(&id).await);
    assert!(events.next().await.is_none(), "the stream ends");
}

#[sqlx::test]
async fn a_client_that_comes_back_is_told_only_what_it_has_not_heard(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    let path = format!("/predictions/{id}/events");
    let claim = app.claim().await;
    app.store.record_progress(&claim, &progress(&claim, 2)).await.unwrap();
    let back = |last: &'static str| app.get(&path).header("Last-Event-ID", last);

    let mut missed_one = Events::open(back("step-1-1-0")).await;
    assert_eq!(missed_one.expect("step").await.data["step"], 2);
    let mut up_to_date = Events::open(back("step-1-2-0")).await;
    let mut of_a_lost_attempt = Events::open(back("step-0-9-0")).await;
    assert_eq!(of_a_lost_attempt.expect("step").await.data["step"], 2);

    app.end(&claim, Outcome::Canceled { device_time: Duration::from_millis(500) }).await;
    assert_eq!(up_to_date.expect("finished").await.data["status"], "canceled");
    assert_eq!(Events::open(back("anything")).await.expect("finished").await.id, "finished");
    assert_eq!(back("finished").send().await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[sqlx::test]
async fn who_watches_is_heard_of_in_other_processes_and_holds_no_connection(pool: PgPool) {
    const WATCHERS: usize = 300;
    let app = TestApp::start(pool).await;
    let elsewhere = fourstep::store::Store::with_pool(app.pool.clone());
    let spreading = tokio::spawn({
        let elsewhere = elsewhere.clone();
        async move { elsewhere.spread_changes(Audience::Clients).await }
    });
    let id = app.create_small().await;
    let claim = app.claim().await;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        let mut events = Events::open(app.get(&format!("/predictions/{id}/events"))).await;
        events.expect("started").await;
        watchers.push(events);
    }
    let held: i64 = sqlx::query_scalar("select count(*) from pg_stat_activity where datname = current_database()")
        .fetch_one(&app.pool)
        .await
        .unwrap();
    assert!(held < 30, "{held} connections");
    elsewhere.record_progress(&claim, &progress(&claim, 1)).await.unwrap();
    for events in &mut watchers {
        assert_eq!(events.expect("step").await.data["step"], 1);
    }
    drop(watchers);
    app.until_watched(0).await;
    spreading.abort();
}

#[sqlx::test]
async fn a_stream_is_its_owners_alone_and_ends_with_the_server(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    let path = format!("/predictions/{id}/events");
    let stranger = app.client.get(format!("{}{path}", app.url)).send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let nobodys = app.get(&format!("/predictions/{}/events", uuid::Uuid::new_v4())).send().await.unwrap();
    assert_eq!(nobodys.status(), StatusCode::NOT_FOUND);

    let mut events = Events::open(app.get(&path)).await;
    events.expect("queued").await;
    app.shut_down().await;
    assert!(events.next().await.is_none());
}

#[sqlx::test]
async fn progress_is_fenced_and_forgotten_when_it_is_over(pool: PgPool) {
    let app = TestApp::start(pool).await;
    app.create_small().await;
    let claim = app.claim().await;
    app.store.record_progress(&claim, &progress(&claim, 1)).await.unwrap();
    assert_eq!(app.store.forget_progress().await.unwrap(), 0);
    app.finish(&claim).await;
    assert!(app.store.record_progress(&claim, &progress(&claim, 2)).await.is_err());
    assert_eq!(app.store.forget_progress().await.unwrap(), 1);
}

#[sqlx::test]
async fn a_mock_run_is_seen_while_it_runs(pool: PgPool) {
    use fourstep::worker::{WorkerPool, predictor::Mock};

    let app = TestApp::start(pool).await;
    let loads: Vec<fourstep::worker::Load> = vec![Box::new(|| Ok(Box::new(Mock::new(Duration::from_millis(150)))))];
    let workers = WorkerPool::start(&app.store, &app.artifacts, &crate::worker::settings(), loads).unwrap();
    let id = app.create_small().await;
    let mut events = Events::open(app.get(&format!("/predictions/{id}/events"))).await;
    let mut steps = Vec::new();
    loop {
        let event = events.next().await.expect("the end is told");
        match event.name.as_str() {
            "step" => {
                assert!(event.data["preview"].as_str().unwrap().starts_with("data:image/jpeg;base64,/9j/"));
                steps.push(event.data["step"].as_u64().unwrap());
            }
            "finished" => break,
            _ => {}
        }
    }
    assert!(!steps.is_empty() && steps.is_sorted(), "{steps:?}");
    eventually("the progress is swept away", async || {
        let left: i64 = sqlx::query_scalar("select count(*) from progress").fetch_one(&app.pool).await.unwrap();
        left == 0
    })
    .await;
    workers.drain(&app.store, PATIENCE).await;
}

/// Or whoever cancels before the last of several would have the others for nothing.
#[sqlx::test]
async fn a_finished_image_is_shown_only_where_a_cancel_has_its_price(pool: PgPool) {
    use fourstep::worker::{WorkerPool, predictor::Mock};

    let app = TestApp::start(pool).await;
    let loads: Vec<fourstep::worker::Load> = vec![Box::new(|| Ok(Box::new(Mock::new(Duration::from_millis(200)))))];
    let workers = WorkerPool::start(&app.store, &app.artifacts, &crate::worker::settings(), loads).unwrap();
    let input = json!({"prompt": "x", "width": 256, "height": 256, "num_inference_steps": 1, "num_outputs": 4});
    for (path, body, id, shows_finished) in [
        ("/predictions", json!({"input": input}), "/id", true),
        ("/replicate/v1/models/bytedance/sdxl-lightning-4step/predictions", json!({"input": input}), "/id", true),
        ("/eachlabs/v1/prediction", json!({"model": MODEL, "input": input}), "/predictionID", false),
    ] {
        let created = json(app.post(path).json(&body).send().await.unwrap()).await;
        let id = created.pointer(id).unwrap().as_str().unwrap();
        let mut events = Events::open(app.get(&format!("/predictions/{id}/events"))).await;
        let (mut widths, mut finished) = (Vec::new(), 0);
        while let Some(event) = events.next().await {
            if let Some(preview) = event.data["preview"].as_str() {
                let jpeg = BASE64_STANDARD.decode(preview.trim_start_matches("data:image/jpeg;base64,")).unwrap();
                widths.push(image::load_from_memory(&jpeg).unwrap().width());
            }
            finished = finished.max(event.data["finished_images"].as_u64().unwrap_or(0));
        }
        assert!(finished > 0, "{path}: no image was finished while it was watched");
        assert_eq!(widths.iter().any(|width| *width > 32), shows_finished, "{path}: {widths:?}");
    }
    workers.drain(&app.store, PATIENCE).await;
}

#[sqlx::test]
async fn a_stream_ends_after_a_while_and_its_client_comes_back(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.event_stream = Duration::from_millis(100)).await;
    let id = app.create_small().await;
    let drawn = json!({"prompt": "a cat", "size": "256x256", "stream": true});
    let drawn = app.post("/openai/v1/images/generations").json(&drawn).send().await.unwrap();
    let events = || app.get(&format!("/predictions/{id}/events"));
    let mut first = Events::open(events()).await;
    let queued = first.expect("queued").await;
    let end = tokio::time::timeout(PATIENCE, first.next()).await.expect("it ends");
    assert!(end.is_none(), "{end:?}");
    let mut second = Events::open(events().header("Last-Event-ID", queued.id)).await;
    assert!(second.next().await.is_none(), "nothing is new");
    // Whose client cannot come back, it lasts until the end.
    app.run_one().await;
    app.run_one().await;
    let drawn = drawn.text().await.unwrap();
    assert!(drawn.contains("event: image_generation.completed\n"), "{drawn}");
}
