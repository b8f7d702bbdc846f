//! Ends that come at the same time share a statement, and each is what it would have been alone.

use std::time::Duration;

use fourstep::{
    domain::{AccountMode, ApiKey, Budget, Caller, NanoUsd, NewKey, NewPrediction, Period, PredictionId, Status},
    store::{Claim, Error, Store},
};
use futures_util::{
    StreamExt,
    future::{join, join_all},
    stream,
};
use reqwest::StatusCode;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    ledger::usual_key,
    queue::{MODEL, Queue, succeeded},
    support::{TestApp, deadlock_when, id},
};

const LEASE: Duration = Duration::from_secs(60);
const COST: i64 = 3_080_000;

/// A key with a budget of an account with a balance.
async fn payer(queue: &Queue, name: &str) -> Caller {
    let rich = NanoUsd::new(1_000_000_000_000);
    assert!(queue.store.create_account(name, AccountMode::Prepaid, Some(10_000)).await.unwrap());
    assert!(queue.store.credit(name, rich, None).await.unwrap());
    let new = NewKey { budget: Some(Budget { amount: rich, period: Period::Day }), ..usual_key(name) };
    queue.store.issue_key(&new, &ApiKey::generate().unwrap()).await.unwrap()
}

async fn create(queue: &Queue, caller: Caller) -> PredictionId {
    let new = NewPrediction {
        id: PredictionId::generate(),
        account_id: caller.account_id,
        key_id: caller.key_id,
        ..queue.new_prediction()
    };
    queue.store.create(&new).await.unwrap().unwrap().id
}

async fn claim(store: &Store, worker: Uuid) -> Claim {
    store.claim(MODEL, worker, LEASE).await.unwrap().expect("something to claim")
}

/// So many claims of the queue's own account, all of one worker.
async fn claims(queue: &Queue, count: usize) -> Vec<Claim> {
    let (worker, mut claims) = (Uuid::new_v4(), Vec::new());
    for _ in 0..count {
        create(queue, queue.caller).await;
        claims.push(claim(&queue.store, worker).await);
    }
    claims
}

async fn assert_clean(store: &Store) {
    let audit = store.audit().await.unwrap();
    assert!(audit.is_clean(), "{audit:#?}");
}

#[sqlx::test]
async fn of_many_that_end_at_once_each_is_charged_for_once_and_those_that_were_taken_away_are_not_ended(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let payers = [payer(&queue, "one").await, payer(&queue, "two").await, queue.caller];
    for index in 0..60 {
        create(&queue, payers[index % payers.len()]).await;
    }
    let worker = Uuid::new_v4();
    let mut claims = Vec::new();
    for _ in 0..60 {
        claims.push(claim(&queue.store, worker).await);
    }
    // Every tenth is lost, and somebody else's by now.
    let lost: Vec<Uuid> = claims.iter().step_by(10).map(|claim| claim.id.as_uuid()).collect();
    sqlx::query("update predictions set attempt = attempt + 1, worker_id = gen_random_uuid() where id = any ($1)")
        .bind(&lost)
        .execute(&queue.pool)
        .await
        .unwrap();
    let store = &queue.store;
    let ended = join_all(claims.iter().map(async |claim| store.finish(claim, &succeeded(), "").await)).await;
    for (claim, ended) in claims.iter().zip(ended) {
        let is_lost = lost.contains(&claim.id.as_uuid());
        match ended {
            Ok(cost) => assert!(!is_lost && cost.get() == COST, "{cost}"),
            Err(error) => assert!(is_lost && matches!(error, Error::LeaseLost), "{error}"),
        }
        assert_eq!(queue.charges(claim.id).await, if is_lost { vec![] } else { vec![COST] });
    }
    let running: i64 = sqlx::query_scalar("select count(*) from predictions where status = 'processing'")
        .fetch_one(&queue.pool)
        .await
        .unwrap();
    assert_eq!(running, 6);
    assert_clean(&queue.store).await;
}

#[sqlx::test]
async fn one_that_the_database_refuses_takes_no_other_with_it(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let claims = claims(&queue, 20).await;
    let store = &queue.store;
    let ended = join_all(claims.iter().enumerate().map(async |(index, claim)| {
        // No text of Postgres' can hold this.
        let logs = if index == 13 { "\0" } else { "" };
        store.finish(claim, &succeeded(), logs).await
    }))
    .await;
    for (index, ended) in ended.into_iter().enumerate() {
        assert_eq!(ended.is_ok(), index != 13, "{index}: {ended:?}");
    }
    assert_eq!(queue.get(claims[13].id).await.status, Status::Processing);
    assert_clean(&queue.store).await;
}

/// A database that names a deadlock has undone the statement: it is known that nobody of those who shared it has ended.
#[sqlx::test]
async fn a_deadlock_of_one_takes_no_other_with_it(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    deadlock_when(&pool, "predictions", "new.logs = 'victim'").await;
    let claims = claims(&queue, 20).await;
    let store = &queue.store;
    let ended = join_all(claims.iter().enumerate().map(async |(index, claim)| {
        let logs = if index == 13 { "victim" } else { "" };
        store.finish(claim, &succeeded(), logs).await
    }))
    .await;
    for (index, ended) in ended.iter().enumerate() {
        match ended {
            Ok(_) => assert_ne!(index, 13),
            Err(error) => assert!(index == 13 && matches!(error, Error::Unavailable(_)), "{index}: {error}"),
        }
    }
    let told = format!("{:#}", anyhow::Error::from(ended.into_iter().nth(13).unwrap().unwrap_err()));
    assert!(told.contains("a deadlock"), "{told}");
    assert_clean(&queue.store).await;
}

/// Each of them locks several predictions, accounts and keys at a time.
#[sqlx::test]
async fn two_processes_that_end_and_renew_what_the_same_accounts_have_never_wait_for_each_other_in_a_circle(
    pool: PgPool,
) {
    const EACH: usize = 150;
    let queue = Queue::new(pool.clone()).await;
    let mut payers = Vec::new();
    for name in ["one", "two", "three", "four"] {
        payers.push(payer(&queue, name).await);
    }
    let stores = [Store::with_pool(pool.clone()), Store::with_pool(pool.clone())];
    let workers = [Uuid::new_v4(), Uuid::new_v4()];
    let mut sessions = Vec::new();
    for (store, worker) in stores.iter().zip(workers) {
        let mut session = store.worker_session().await.unwrap();
        session.hold(worker).await.unwrap();
        sessions.push(session);
    }
    let mut claims = [Vec::new(), Vec::new()];
    for index in 0..2 * EACH {
        create(&queue, payers[index % payers.len()]).await;
        // Neighbours in the table belong to either.
        claims[index / 2 % 2].push(claim(&stores[index / 2 % 2], workers[index / 2 % 2]).await);
    }
    // One in the order they came in, and one the other way round.
    claims[1].reverse();
    join_all((0..2).map(async |process| {
        let (store, claims) = (&stores[process], &claims[process]);
        let mut held: Vec<_> = claims.iter().map(|claim| (claim.id, claim.attempt)).collect();
        held.rotate_left(EACH / 2);
        let ends = stream::iter(claims).map(async |claim| store.finish(claim, &succeeded(), "").await.unwrap());
        let ends = ends.buffer_unordered(30).collect::<Vec<_>>();
        let renewals = async {
            while !store.renew(workers[process], &held, LEASE).await.unwrap().is_empty() {
                store.sweep(5).await.unwrap();
            }
        };
        assert_eq!(join(ends, renewals).await.0.len(), EACH);
    }))
    .await;
    let charged: i64 =
        sqlx::query_scalar("select count(*) from ledger where kind = 'charge'").fetch_one(&pool).await.unwrap();
    assert_eq!(charged, 2 * EACH as i64);
    assert_clean(&queue.store).await;
}

#[sqlx::test]
async fn who_waits_for_a_prediction_is_handed_what_ended_it_and_nobody_else_is(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let document = app.create(serde_json::json!({"prompt": "a cat", "width": 256, "height": 256})).await;
    let ours: PredictionId = id(&document).parse().unwrap();
    let subscription = app.store.changes().subscribe(ours);
    assert!(subscription.ended().is_none());
    app.run_one().await;
    let (handed, read) =
        (subscription.ended().unwrap(), app.store.get(app.caller.account_id, ours).await.unwrap().unwrap());
    assert_eq!(format!("{handed:?}"), format!("{read:?}"));
    let stranger = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("stranger"), &stranger).await.unwrap();
    let request = app.client.get(format!("{}/predictions/{ours}?wait=1", app.url)).bearer_auth(stranger.expose());
    assert_eq!(request.send().await.unwrap().status(), StatusCode::NOT_FOUND);
}
