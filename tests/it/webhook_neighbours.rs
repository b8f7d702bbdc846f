//! What a healthy receiver of webhooks notices of its neighbours' trouble: nothing.
//!
//! `make test` runs it for as long as a few hundred deliveries take. The long form goes on for ten minutes, by the
//! schedule that is in force:
//! `FOURSTEP_FAULTS=long tools/with-postgres cargo test --test it webhook_neighbours -- --nocapture`.
#![expect(clippy::print_stdout, reason = "the long form is run for its figures")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{http::StatusCode, response::IntoResponse};
use fourstep::{
    store::Store,
    webhook::{self, Schedule},
};
use serde_json::json;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
};

use crate::{
    delivering::impatient,
    receiver::{Receiver, Reply},
    support::{TestApp, eventually, id},
};

/// Deliveries that are measured, at least.
const MEASURED: usize = 100;
/// Predictions that each troubled receiver wants to be told of.
const UNTOLD: usize = 5;
/// What a busy machine may add to the slowest. Waiting for a neighbour would add seconds.
const NOISE: Duration = Duration::from_millis(250);

/// From the end of a prediction until its receiver is told, for at least `lasts`: the 99th of a hundred.
async fn p99(app: &TestApp, well: &mut Receiver, lasts: Duration) -> Duration {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while took.len() < MEASURED || begun.elapsed() < lasts {
        app.create_hooked(well).await;
        app.run_one().await;
        let ended = Instant::now();
        well.next().await;
        took.push(ended.elapsed());
        if !lasts.is_zero() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    took.sort();
    println!("{} deliveries to a healthy receiver: p50 {:?}", took.len(), took[took.len() / 2]);
    took[(took.len() - 1) * 99 / 100]
}

#[sqlx::test]
async fn the_p99_of_a_healthy_receiver_is_what_it_was_while_its_neighbours_are_in_trouble(pool: PgPool) {
    let is_long = std::env::var("FOURSTEP_FAULTS").is_ok_and(|scale| scale == "long");
    let (lasts, settings) = if is_long {
        // Slower than the longest wait for an answer, whatever that is.
        (Duration::from_secs(600), webhook::Settings { schedule: Schedule::default(), ..impatient() })
    } else {
        let schedule = Schedule::new(vec![Duration::from_millis(200); 1000]);
        (Duration::ZERO, webhook::Settings { schedule, ..impatient() })
    };
    let app = TestApp::start(pool).await;
    let mut well = Receiver::start().await;
    let _delivering = app.deliver_as(settings);
    let alone = p99(&app, &mut well, Duration::ZERO).await;

    // Has its address, and refuses connections until it listens.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let down = format!("http://{}/", socket.local_addr().unwrap());
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = format!("http://{}/", canary.local_addr().unwrap());
    let (failing, leading_away, slow) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    failing.will((0..100_000).map(|_| Reply::Status(500)));
    leading_away.will(
        (0..100_000)
            .map(|_| Reply::Answer((StatusCode::TEMPORARY_REDIRECT, [("location", inner.clone())]).into_response())),
    );
    let revived = Arc::new(Semaphore::new(0));
    slow.will((0..1000).map(|_| Reply::Hang(Arc::clone(&revived))));
    let mut troubled = Vec::new();
    for url in [down, failing.url(), leading_away.url(), slow.url()] {
        for _ in 0..UNTOLD {
            troubled.push(id(&app.create_on("/predictions", json!({"webhook": url})).await));
            app.run_one().await;
        }
    }
    let beside = p99(&app, &mut well, lasts).await;
    println!(
        "p99 {alone:?} alone, {beside:?} beside a receiver that is down, one that fails, one that leads away, one that is slow"
    );
    assert!(beside <= alone + NOISE, "{alone:?} alone, {beside:?} beside neighbours in trouble");
    let untold = "select count(*) from webhook_deliveries where state <> 'delivered'";
    let count = async || sqlx::query_scalar::<_, i64>(untold).fetch_one(&app.pool).await.unwrap();
    assert!(count().await >= troubled.len() as i64, "they were in trouble all the time");

    // All is well again, and the next pauses are over.
    for receiver in [&failing, &leading_away, &slow] {
        receiver.replies.lock().unwrap().clear();
    }
    revived.add_permits(1000);
    let _back = Receiver::on(socket.listen(16).unwrap());
    eventually("everything is told", async || {
        sqlx::query("update webhook_deliveries set due_at = now() where state = 'pending' and lease_until is null")
            .execute(&app.pool)
            .await
            .unwrap();
        count().await == 0
    })
    .await;
    let led_away = tokio::time::timeout(Duration::ZERO, canary.accept()).await;
    assert!(led_away.is_err(), "nobody was led to an inner address");
}

/// Counted by the database itself.
#[sqlx::test]
async fn a_claim_does_not_visit_receivers_that_wait_for_their_next_attempt(pool: PgPool) {
    let app = TestApp::start(pool.clone()).await;
    let well = Receiver::start().await;
    let down = app.create_hooked(&well).await;
    sqlx::query(
        "insert into webhook_deliveries (prediction_id, receiver, event, due_at)
         select $1::uuid, 'down-' || number || ':443', 'logs', now() + interval '1 hour'
         from generate_series(1, 5000) as number",
    )
    .bind(&down)
    .execute(&pool)
    .await
    .unwrap();
    app.run_one().await;
    let due_now = app.create_hooked(&well).await;
    app.run_one().await;
    let before = visits(&pool).await;

    let options = (*pool.connect_options()).clone().application_name("deliverer");
    let deliverer = Store::with_pool(PgPoolOptions::new().connect_lazy_with(options));
    let due = deliverer.claim_webhooks(64, 4, 16, Duration::from_secs(60)).await.unwrap();
    assert_eq!(due.iter().map(|due| due.prediction.id.to_string()).collect::<Vec<_>>(), [due_now]);
    // What its connections counted is known when they are gone.
    deliverer.close().await;
    eventually("the claim is counted", async || {
        let connections = "select count(*) from pg_stat_activity where application_name = 'deliverer'";
        sqlx::query_scalar::<_, i64>(connections).fetch_one(&pool).await.unwrap() == 0
    })
    .await;
    let visited = visits(&pool).await - before;
    assert!(visited < 100, "one was due, and {visited} places were looked up");
}

/// How often something was looked up by any index of the deliveries.
async fn visits(pool: &PgPool) -> i64 {
    let visits = "select sum(idx_scan)::bigint from pg_stat_user_indexes where relname = 'webhook_deliveries'";
    sqlx::query_scalar(visits).fetch_one(pool).await.unwrap()
}
