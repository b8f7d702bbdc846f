//! What becomes of predictions whose workers are gone or go, when something is in the way.

use std::time::Duration;

use fourstep::{
    domain::{AccountMode, ApiKey, Caller, NanoUsd, NewPrediction, PredictionId, Status},
    postgres::{Options, PrivateCluster},
    store::{Store, Swept},
    worker::{Settings, sweep_in_turn},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::{
    ledger::usual_key,
    process::TestFolder,
    queue::{MODEL, Queue},
    support::eventually,
    worker::settings,
};

const LEASE: Duration = Duration::from_secs(60);
const MAX_LOSSES: i16 = 5;

/// A key of an account that has a balance and places in flight.
async fn payer(queue: &Queue) -> Caller {
    assert!(queue.store.create_account("payer", AccountMode::Prepaid, Some(10)).await.unwrap());
    assert!(queue.store.credit("payer", NanoUsd::new(1_000_000_000_000), None).await.unwrap());
    queue.store.issue_key(&usual_key("payer"), &ApiKey::generate().unwrap()).await.unwrap()
}

async fn create(queue: &Queue, caller: Caller, cancel_after: Option<Duration>) -> PredictionId {
    let Caller { account_id, key_id, .. } = caller;
    let id = PredictionId::generate();
    let new = NewPrediction { id, account_id, key_id, cancel_after, ..queue.new_prediction() };
    queue.store.create(&new).await.unwrap().unwrap().id
}

async fn status(queue: &Queue, id: PredictionId) -> String {
    let status = sqlx::query_scalar("select status from predictions where id = $1").bind(id.as_uuid());
    status.fetch_one(&queue.pool).await.unwrap()
}

#[sqlx::test]
async fn one_that_the_database_does_not_let_end_keeps_no_other_from_being_swept(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let payer = payer(&queue).await;
    let (stuck, lost) = (create(&queue, payer, None).await, create(&queue, queue.caller, None).await);
    for _ in 0..2 {
        queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    }
    queue.store.request_cancel(payer.account_id, stuck).await.unwrap();
    let stuck_late = create(&queue, payer, Some(Duration::ZERO)).await;
    let late = create(&queue, queue.caller, Some(Duration::ZERO)).await;
    for statement in [
        "update predictions set lease_until = now() - interval '1 s' where status = 'processing'",
        // Wrong books: fewer in flight than none cannot be.
        "update accounts set in_flight = 0 where name = 'payer'",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let Swept { requeued, ended, .. } = queue.store.sweep(MAX_LOSSES).await.unwrap();
    assert_eq!((requeued, ended), (vec![lost], vec![late]));
    assert_eq!((status(&queue, stuck).await, status(&queue, stuck_late).await), ("processing".into(), "queued".into()));

    sqlx::query("update accounts set in_flight = 2 where name = 'payer'").execute(&pool).await.unwrap();
    let Swept { requeued, ended, .. } = queue.store.sweep(MAX_LOSSES).await.unwrap();
    assert_eq!((requeued, ended), (vec![], vec![stuck, stuck_late]), "and when the books are put right they end");
    assert!(queue.store.audit().await.unwrap().is_clean());
}

#[sqlx::test]
async fn what_is_handed_back_after_its_owner_canceled_it_ends_there_and_is_free(pool: PgPool) {
    let queue = Queue::new(pool).await;
    let payer = payer(&queue).await;
    let id = create(&queue, payer, None).await;
    let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    queue.store.request_cancel(payer.account_id, id).await.unwrap();
    queue.store.hand_back(&claim).await.unwrap();
    let canceled = queue.store.get(payer.account_id, id).await.unwrap().unwrap();
    assert_eq!((canceled.status, canceled.cost), (Status::Canceled, Some(NanoUsd::ZERO)));
    assert!(queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().is_none());
    let kept: (i64, i32) = sqlx::query_as("select held_nano, in_flight from accounts where name = 'payer'")
        .fetch_one(&queue.pool)
        .await
        .unwrap();
    assert_eq!(kept, (0, 0), "what was held is given back");
    assert!(queue.charges(id).await.is_empty());
    assert!(queue.store.audit().await.unwrap().is_clean());
}

#[sqlx::test]
async fn of_many_processes_one_sweeps_at_a_time(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let settings = Settings { sweep: Duration::from_secs(3600), ..settings() };
    let mut ids = Vec::new();
    for swept_by in 0..2 {
        ids.push(queue.create().await.id);
        queue.store.claim(MODEL, Uuid::new_v4(), Duration::ZERO).await.unwrap().unwrap();
        sweep_in_turn(&Store::with_pool(pool.clone()), &queue.artifacts(), &settings).await;
        let expected = if swept_by == 0 { "queued" } else { "processing" };
        assert_eq!(status(&queue, ids[swept_by]).await, expected, "process {swept_by}");
        sqlx::query("update predictions set run_after = 'infinity' where status = 'queued'")
            .execute(&pool)
            .await
            .unwrap();
    }
    // In time for who was lost right after that; and if the clock was set back.
    for begun in ["begun_at - interval '25 min'", "now() + interval '1 hour'"] {
        sqlx::query(AssertSqlSafe(format!("update chores set begun_at = {begun} where name = 'sweep'")))
            .execute(&pool)
            .await
            .unwrap();
        assert!(sweep_in_turn(&queue.store, &queue.artifacts(), &settings).await);
        assert_eq!(status(&queue, ids[1]).await, "queued", "{begun}");
        sqlx::query("update predictions set run_after = 'infinity' where status = 'queued'")
            .execute(&pool)
            .await
            .unwrap();
        ids[1] = queue.create().await.id;
        queue.store.claim(MODEL, Uuid::new_v4(), Duration::ZERO).await.unwrap().unwrap();
    }
}

/// After a failover no worker has its session on the new server yet, whose postmaster may be as old as the other's.
#[sqlx::test]
async fn workers_whose_database_was_just_promoted_are_given_time_to_show_that_they_live(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let (leased, expired) = (queue.create().await.id, queue.create().await.id);
    queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    queue.store.claim(MODEL, Uuid::new_v4(), Duration::ZERO).await.unwrap().unwrap();
    // What a promoted server knows are the timelines before its own.
    sqlx::query("update chores set name = 'timeline 00000000' where name like 'timeline %'")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().requeued, [expired]);
    assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().requeued, []);
    let aged = "update chores set begun_at = begun_at - interval '10 s' where name like 'timeline %'";
    sqlx::query(aged).execute(&pool).await.unwrap();
    assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().requeued, [leased]);
    let known: Vec<String> =
        sqlx::query_scalar("select name from chores where name like 'timeline %'").fetch_all(&pool).await.unwrap();
    assert_eq!(known.len(), 1, "its number may come again, and would be taken for the one of now: {known:?}");
}

/// The postmaster goes on, and is as old as it was; but every connection is gone, and no worker has another one yet.
#[tokio::test]
async fn workers_whose_database_began_anew_after_a_crash_are_given_time_to_show_that_they_live() {
    let place = TestFolder::new();
    let database = PrivateCluster::start(&place.0.join("data"), Options::default()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(3).connect(database.url()).await.unwrap();
    Store::with_pool(pool.clone()).migrate().await.unwrap();
    let queue = Queue::new(pool.clone()).await;
    let running = queue.create().await.id;
    let worker = Uuid::new_v4();
    let mut session = queue.store.worker_session().await.unwrap();
    session.hold(worker).await.unwrap();
    queue.store.claim(MODEL, worker, LEASE).await.unwrap().unwrap();
    // From when on locks count.
    eventually("the database has been there for a while", async || {
        let settled = "select pg_postmaster_start_time() < now() - interval '5 s'";
        sqlx::query_scalar::<_, bool>(settled).fetch_one(&pool).await.unwrap()
    })
    .await;
    assert_eq!(queue.store.sweep(MAX_LOSSES).await.unwrap().requeued, []);

    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&pool).await.unwrap();
    kill(Pid::from_raw(backend), Signal::SIGKILL).unwrap();
    eventually("its session is gone", async || session.check().await.is_err()).await;
    let mut swept = None;
    eventually("it is back", async || {
        swept = queue.store.sweep(MAX_LOSSES).await.ok();
        swept.is_some()
    })
    .await;
    assert_eq!(swept.unwrap().requeued, []);
    assert_eq!(status(&queue, running).await, "processing");
    pool.close().await;
    database.stop().await;
}
