//! Fairness: accounts take turns, whatever each of them has queued.

use std::time::Duration;

use fourstep::{
    domain::{AccountMode, ApiKey, Caller, NanoUsd, NewPrediction, PredictionId},
    store::{Error, Store},
};
use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    ledger::usual_key,
    queue::{MODEL, Queue, succeeded},
    support::{TestApp, json},
};

const LEASE: Duration = Duration::from_secs(600);

async fn account(queue: &Queue, name: &str) -> Caller {
    queue.store.issue_key(&usual_key(name), &ApiKey::generate().unwrap()).await.unwrap()
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

/// As if what was given out had been given out a moment earlier.
async fn a_moment_later(queue: &Queue) {
    sqlx::query("update turns set given_at = given_at - interval '2 s'").execute(&queue.pool).await.unwrap();
}

/// Claims so many and says whose they are.
async fn claim(queue: &Queue, count: usize) -> Vec<(PredictionId, i64)> {
    let mut claimed = Vec::new();
    for _ in 0..count {
        let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
        let account = sqlx::query_scalar("select account_id from predictions where id = $1");
        claimed.push((claim.id, account.bind(claim.id.as_uuid()).fetch_one(&queue.pool).await.unwrap()));
    }
    claimed
}

#[sqlx::test]
async fn five_thousand_of_one_account_delay_another_by_one_job_for_each_worker(pool: PgPool) {
    const WORKERS: usize = 4;
    let queue = Queue::new(pool).await;
    let (many, few) = (account(&queue, "many").await, account(&queue, "few").await);
    stream::iter(0..5000).map(|_| create(&queue, many)).buffer_unordered(8).for_each(async |_| ()).await;
    // The workers are at it already.
    claim(&queue, WORKERS).await;
    let (first, second) = (create(&queue, few).await, create(&queue, few).await);
    let place = queue.store.get(few.account_id, first).await.unwrap().unwrap();
    let ahead = queue.store.queue_place(&place, Duration::ZERO).await.unwrap().ahead;

    let next = claim(&queue, 2 * WORKERS).await;
    let position = |id| next.iter().position(|(claimed, _)| *claimed == id).unwrap();
    assert!(position(first) < WORKERS + 1, "{next:?}");
    assert_eq!(position(first) as u64, ahead, "the place in the queue is the one that was told");
    assert!(position(second) > position(first), "an account's own stay in their order");
    assert!(next.iter().filter(|(_, account)| *account == many.account_id).count() >= WORKERS, "and nobody starves");
}

#[sqlx::test]
async fn creates_that_come_together_have_a_turn_each_in_whatever_process(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let caller = account(&queue, "many").await;
    let elsewhere = Store::with_pool(queue.pool.clone());
    let processes = [&queue.store, &elsewhere].into_iter().cycle().take(200);
    let create = async |process: &Store| {
        let new = NewPrediction { id: PredictionId::generate(), key_id: caller.key_id, ..queue.new_prediction() };
        process.create(&NewPrediction { account_id: caller.account_id, ..new }).await.unwrap().unwrap();
    };
    stream::iter(processes).map(create).buffer_unordered(50).for_each(async |()| ()).await;
    let given: (i64, i64) = sqlx::query_as("select count(distinct turn), max(turn) - min(turn) from predictions")
        .fetch_one(&queue.pool)
        .await
        .unwrap();
    assert_eq!(given, (200, 199));
}

#[sqlx::test]
async fn what_an_account_was_served_while_nobody_asked_is_not_held_against_it(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (early, late) = (account(&queue, "early").await, account(&queue, "late").await);
    for _ in 0..50 {
        create(&queue, early).await;
        let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
        queue.store.finish(&claim, &succeeded(), "").await.unwrap();
    }
    for _ in 0..10 {
        create(&queue, late).await;
    }
    for _ in 0..10 {
        create(&queue, early).await;
    }
    // One for each in turn, after the one turn that the early one has had.
    let next = claim(&queue, 9).await;
    assert_eq!(next.iter().filter(|(_, account)| *account == early.account_id).count(), 4, "{next:?}");
}

/// How many are claimed before this one, if it is among the next few.
async fn claimed_before(queue: &Queue, id: PredictionId) -> usize {
    let next = claim(queue, 10).await;
    next.iter().position(|(claimed, _)| *claimed == id).expect("it is starved")
}

#[sqlx::test]
async fn what_was_refused_is_not_held_against_an_account(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (many, poor) = (account(&queue, "many").await, account(&queue, "poor").await);
    for _ in 0..300 {
        create(&queue, many).await;
    }
    assert!(queue.store.set_account_mode("poor", AccountMode::Prepaid).await.unwrap());
    let new = |id| NewPrediction { id, account_id: poor.account_id, key_id: poor.key_id, ..queue.new_prediction() };
    for _ in 0..200 {
        let refused = queue.store.create(&new(PredictionId::generate())).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
    assert!(queue.store.credit("poor", NanoUsd::new(1_000_000_000_000), None).await.unwrap());
    a_moment_later(&queue).await;
    let first = create(&queue, poor).await;
    for _ in 0..20 {
        create(&queue, poor).await;
    }
    assert!(claimed_before(&queue, first).await <= 2, "those of the other account that were there before");
    // And its own others take turns with those of the other.
    let next = claim(&queue, 10).await;
    let own = next.iter().filter(|(_, account)| *account == poor.account_id).count();
    assert!((4..=6).contains(&own), "{next:?}");
}

#[sqlx::test]
async fn what_was_canceled_is_not_held_against_an_account(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (many, hasty) = (account(&queue, "many").await, account(&queue, "hasty").await);
    for _ in 0..300 {
        create(&queue, many).await;
    }
    let regretted = stream::iter(0..300).map(|_| create(&queue, hasty)).buffer_unordered(8).collect::<Vec<_>>().await;
    for id in regretted {
        queue.store.request_cancel(hasty.account_id, id).await.unwrap();
    }
    a_moment_later(&queue).await;
    let wanted = create(&queue, hasty).await;
    assert_eq!(claimed_before(&queue, wanted).await, 1, "one of the other account");
}

#[sqlx::test]
async fn an_urgent_prediction_puts_nobody_behind_what_its_account_has_queued(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let (many, few) = (account(&queue, "many").await, account(&queue, "few").await);
    for _ in 0..300 {
        create(&queue, many).await;
    }
    let Caller { account_id, key_id, .. } = many;
    let urgent = NewPrediction { priority: -1, account_id, key_id, ..queue.new_prediction() };
    queue.store.create(&urgent).await.unwrap().unwrap();
    let wanted = create(&queue, few).await;
    assert_eq!(claimed_before(&queue, wanted).await, 2, "the urgent one, and one that was there before");
}

#[sqlx::test]
async fn urgent_predictions_of_accounts_take_turns_among_themselves(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let accounts = [account(&queue, "one").await, account(&queue, "two").await];
    for caller in accounts {
        // Whatever either has waiting.
        for _ in 0..50 {
            create(&queue, caller).await;
        }
    }
    for caller in accounts {
        let Caller { account_id, key_id, .. } = caller;
        for _ in 0..4 {
            let id = PredictionId::generate();
            let urgent = NewPrediction { id, priority: -1, account_id, key_id, ..queue.new_prediction() };
            queue.store.create(&urgent).await.unwrap().unwrap();
        }
    }
    let next: Vec<_> = claim(&queue, 8).await.into_iter().map(|(_, account)| account).collect();
    let [one, two] = accounts.map(|caller| caller.account_id);
    assert_eq!(next, [one, two, one, two, one, two, one, two]);
}

#[sqlx::test]
async fn a_priority_is_for_operators_and_is_run_first(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let key = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("other"), &key).await.unwrap();
    app.create_small().await;
    let urgent = json!({"input": {}, "priority": -1});
    let request = app.client.post(format!("{}/predictions", app.url)).bearer_auth(key.expose()).json(&urgent);
    let refused = request.send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(json(refused).await["detail"], "this API key does not have the scope admin");
    let response = app.post("/predictions").json(&urgent).send().await.unwrap();
    let urgent = json(response).await["id"].clone();
    assert_eq!(json!(app.claim().await.id), urgent);
    let wrong = app.post("/predictions").json(&json!({"input": {}, "priority": 101})).send().await.unwrap();
    assert_eq!(json(wrong).await["invalid_fields"][0]["field"], "priority");
}
