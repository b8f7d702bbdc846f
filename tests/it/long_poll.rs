//! Waiting clients: woken when they should be, by whatever ends a prediction, and cheap while they wait.

use std::time::{Duration, Instant};

use fourstep::{
    domain::{Failure, FailureCode, Outcome, PredictionId},
    store::Store,
};
use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;

use crate::support::{TestApp, eventually, json, waiting_for_a_lock};

const CLIENTS: usize = 2_000;
const MAX_DATABASE_CONNECTIONS: i64 = 20;

impl TestApp {
    /// A client that waits for a prediction.
    fn hold(&self, id: &str) -> JoinHandle<Value> {
        let request = self.get(&format!("/predictions/{id}?wait=60"));
        tokio::spawn(async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            json(response).await
        })
    }
}

#[sqlx::test]
async fn a_held_request_is_answered_when_the_prediction_ends_whatever_ends_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let finished = app.create_small().await;
    let held = app.hold(&finished);
    app.until_watched(1).await;
    app.run_one().await;
    assert_eq!(held.await.unwrap()["status"], "succeeded");

    let canceled = app.create_small().await;
    let held = app.hold(&canceled);
    app.until_watched(1).await;
    app.post(&format!("/predictions/{canceled}/cancel")).send().await.unwrap();
    assert_eq!(held.await.unwrap()["status"], "canceled");

    let stopped = app.create_small().await;
    let claim = app.claim().await;
    let held = app.hold(&stopped);
    app.until_watched(1).await;
    app.end(&claim, Outcome::Canceled { device_time: Duration::from_millis(500) }).await;
    let stopped = held.await.unwrap();
    assert_eq!((&stopped["status"], &stopped["metrics"]["cost"]), (&json!("canceled"), &json!(0.00077)));
}

#[sqlx::test]
async fn an_end_in_another_process_is_heard_of(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    let held = app.hold(&id);
    app.until_watched(1).await;
    // A store of its own shares nothing with the server's but the database, and spreads no news of its own: this is the
    // poll underneath.
    let elsewhere = Store::with_pool(app.pool.clone());
    let id: PredictionId = id.parse().unwrap();
    elsewhere.request_cancel(app.caller.account_id, id).await.unwrap();
    assert_eq!(held.await.unwrap()["status"], "canceled");
}

#[sqlx::test]
async fn patience_that_ends_first_is_answered_with_what_there_is(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    let started = Instant::now();
    let response = app.get(&format!("/predictions/{id}")).header("Prefer", "wait=1").send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["preference-applied"]),
        (StatusCode::OK, &"wait=1".parse().unwrap())
    );
    assert_eq!(json(response).await["status"], "starting");
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[sqlx::test]
async fn a_client_that_hangs_up_is_waited_for_no_longer(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let held = app.hold(&app.create_small().await);
    app.until_watched(1).await;
    held.abort();
    app.until_watched(0).await;
}

#[sqlx::test]
async fn two_thousand_clients_wait_on_a_handful_of_connections(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let made = stream::iter(0..CLIENTS).map(|_| app.create_small()).buffer_unordered(32);
    let ids: Vec<String> = made.collect().await;
    let clients: Vec<_> = ids.iter().map(|id| app.hold(id)).collect();
    app.until_watched(CLIENTS).await;

    let connections: i64 =
        sqlx::query_scalar("select count(*) from pg_stat_activity where datname = current_database()")
            .fetch_one(&app.pool)
            .await
            .unwrap();
    assert!(connections <= MAX_DATABASE_CONNECTIONS, "{connections} connections");

    // Failed ones will do: two thousand pictures would only keep the disk busy.
    let failure = Failure { code: FailureCode::Internal, message: "no pictures".to_owned() };
    let end_one = async || {
        let outcome = Outcome::Failed { failure: failure.clone(), device_time: Duration::ZERO };
        app.end(&app.claim().await, outcome).await;
    };
    stream::iter(0..CLIENTS).for_each_concurrent(8, async |_| end_one().await).await;
    for (client, id) in clients.into_iter().zip(ids) {
        let answer = client.await.unwrap();
        assert_eq!((&answer["id"], &answer["status"]), (&json!(id), &json!("failed")));
    }
    eventually("nobody waits", async || app.store.changes().watched_predictions() == 0).await;
}

#[sqlx::test]
async fn two_thousand_clients_of_the_same_prediction_are_all_told_its_end(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    let clients: Vec<_> = (0..CLIENTS).map(|_| app.hold(&id)).collect();
    app.until_watched(1).await;
    // Whoever comes now meets those who are being told.
    app.run_one().await;
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!((&answer["id"], &answer["status"]), (&json!(id), &json!("succeeded")));
    }
    eventually("nobody waits", async || app.store.changes().watched_predictions() == 0).await;
}

#[sqlx::test]
async fn those_who_read_the_same_prediction_at_once_share_a_connection(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id: PredictionId = app.create_small().await.parse().unwrap();
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("lock table predictions in access exclusive mode").execute(&mut *lock).await.unwrap();
    let readers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (store, account) = (app.store.clone(), app.caller.account_id);
            tokio::spawn(async move { store.get(account, id).await.unwrap().unwrap() })
        })
        .collect();
    let mut reading = 0_i64;
    eventually("somebody reads", async || {
        reading = waiting_for_a_lock(&mut lock, "%where id = $1 and%").await;
        reading > 0
    })
    .await;
    assert_eq!(reading, 1, "of {CLIENTS} who have come");
    lock.commit().await.unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap().id, id);
    }
}
