//! What is told is on the disk, whoever wrote it.

use std::{future::pending, time::Duration};

use chrono::NaiveDate;
use fourstep::{
    domain::{
        AccountMode, ApiKey, Budget, Idempotency, NanoUsd, NewPrediction, Period, Prediction, PredictionId, Status,
        UsageGroup, UsageQuery,
    },
    postgres::{Options, PrivateCluster},
    store::{Error, ListFilter, Store},
};
use sqlx::{
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, UnixStream},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    ledger::usual_key,
    process::TestFolder,
    queue::{MODEL, Queue},
    support::{eventually, waiting_for_a_lock},
};

/// Does something to a prediction as another process does, which has not waited for the disk yet. Returns where the log ends by then.
async fn elsewhere(statement: &str, id: PredictionId, pool: &PgPool) -> String {
    let mut elsewhere = pool.begin().await.unwrap();
    sqlx::query("set local synchronous_commit = off").execute(&mut *elsewhere).await.unwrap();
    sqlx::query(AssertSqlSafe(statement)).bind(id.as_uuid()).execute(&mut *elsewhere).await.unwrap();
    elsewhere.commit().await.unwrap();
    sqlx::query_scalar("select pg_current_wal_insert_lsn()::text").fetch_one(pool).await.unwrap()
}

async fn end_elsewhere(prediction: &Prediction, pool: &PgPool) -> String {
    let end = "update predictions set
                   status = 'canceled', completed_at = now(), cost_nano = 0, device_us = 0, lease_until = null
               where id = $1";
    elsewhere(end, prediction.id, pool).await
}

/// Makes another like this one, with this id and this idempotency key.
async fn make_elsewhere(prediction: &Prediction, id: PredictionId, key: &str, pool: &PgPool) -> String {
    let make = format!(
        "insert into predictions
         select (jsonb_populate_record(predictions, jsonb_build_object(
                     'id', '{id}', 'idempotency_key', '{key}', 'request_hash', '\\x{hash}', 'created_at', now()
                 ))).*
         from predictions where id = $1",
        hash = "07".repeat(32)
    );
    elsewhere(&make, prediction.id, pool).await
}

/// On a database of its own that waits for the disk, which that of other tests does not.
#[tokio::test]
async fn what_another_process_has_just_written_is_told_only_when_it_is_saved() {
    let place = TestFolder::new();
    let database = PrivateCluster::start(&place.0.join("data"), Options::default()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(3).connect(database.url()).await.unwrap();
    Store::with_pool(pool.clone()).migrate().await.unwrap();
    let queue = Queue::new(pool.clone()).await;
    let account = queue.caller.account_id;
    let idempotency = Idempotency { key: "once".to_owned(), request_hash: [7; 32] };
    let saved = async |end: String| -> bool {
        let saved = sqlx::query_scalar("select pg_current_wal_flush_lsn() >= $1::pg_lsn");
        saved.bind(end).fetch_one(&pool).await.unwrap()
    };

    let read = queue.create().await;
    let end = end_elsewhere(&read, &pool).await;
    assert_eq!(queue.get(read.id).await.status, Status::Canceled);
    assert!(saved(end).await, "read");

    let listed = queue.create().await;
    let end = end_elsewhere(&listed, &pool).await;
    let filter = ListFilter { limit: 10, ..ListFilter::default() };
    assert_eq!(queue.store.list(account, &filter).await.unwrap()[0].status, Status::Canceled);
    assert!(saved(end).await, "listed");

    let new = NewPrediction { idempotency: Some(idempotency.clone()), ..queue.new_prediction() };
    let repeated = queue.store.create(&new).await.unwrap().unwrap();
    let end = end_elsewhere(&repeated, &pool).await;
    let found = queue.store.find_repeated(account, &idempotency).await.unwrap().unwrap();
    assert_eq!(found.status, Status::Canceled);
    assert!(saved(end).await, "repeated");

    // That it shall end was said here, and is saved; that it has is not.
    let running = queue.create().await;
    queue.store.claim(MODEL, Uuid::new_v4(), Duration::from_secs(60)).await.unwrap().unwrap();
    queue.store.request_cancel(account, running.id).await.unwrap().unwrap();
    let end = end_elsewhere(&running, &pool).await;
    assert_eq!(queue.get(running.id).await.status, Status::Canceled);
    assert!(saved(end).await, "asked to end");

    // Its id is its client's choice, who may ask for it before the create is answered.
    let chosen = PredictionId::generate();
    let end = make_elsewhere(&queue.create().await, chosen, "chosen", &pool).await;
    assert_eq!(queue.get(chosen).await.status, Status::Queued);
    assert!(saved(end).await, "read when it was just made");
    let end = end_elsewhere(&queue.get(chosen).await, &pool).await;
    assert_eq!(queue.get(chosen).await.status, Status::Canceled);
    assert!(saved(end).await, "read when it had just ended");

    let end = make_elsewhere(&queue.create().await, PredictionId::generate(), "made elsewhere", &pool).await;
    let idempotency = Idempotency { key: "made elsewhere".to_owned(), ..idempotency };
    assert!(queue.store.find_repeated(account, &idempotency).await.unwrap().is_some());
    assert!(saved(end).await, "made by the same request");

    let end = make_elsewhere(&queue.create().await, PredictionId::generate(), "listed", &pool).await;
    assert!(!queue.store.list(account, &filter).await.unwrap().is_empty());
    assert!(saved(end).await, "listed when it was just made");

    let day = |day| NaiveDate::from_ymd_opt(2026, 2, day).unwrap();
    // What others have spent, wherever it is read.
    let spend = "update accounts set created_at = created_at where $1::uuid is not null";
    let books = UsageQuery { from: day(1), to: day(28), group_by: UsageGroup::Key };
    let end = elsewhere(spend, read.id, &pool).await;
    queue.store.usage(None, &books).await.unwrap();
    assert!(saved(end).await, "in the usage");
    let end = elsewhere(spend, read.id, &pool).await;
    queue.store.list_accounts().await.unwrap();
    assert!(saved(end).await, "among the accounts");
    let end = elsewhere(spend, read.id, &pool).await;
    queue.store.list_keys().await.unwrap();
    assert!(saved(end).await, "among the keys");

    pool.close().await;
    database.stop().await;
}

/// Who is told that a key is revoked relies on it, whatever happens then.
#[tokio::test]
async fn what_an_operator_changes_of_accounts_and_keys_is_saved_when_it_is_told() {
    let place = TestFolder::new();
    let database = PrivateCluster::start(&place.0.join("data"), Options::default()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(3).connect(database.url()).await.unwrap();
    let store = Store::with_pool(pool.clone());
    store.migrate().await.unwrap();
    let (key, next) = (ApiKey::generate().unwrap(), ApiKey::generate().unwrap());
    let budget = Budget { amount: NanoUsd::new(1), period: Period::Day };
    let end_of_log = async || -> String {
        sqlx::query_scalar("select pg_current_wal_insert_lsn()::text").fetch_one(&pool).await.unwrap()
    };
    /// Does it, and looks whether the log's saved part has grown beyond where its end was before.
    macro_rules! saves {
        ($change:expr, $what:literal) => {
            let before = end_of_log().await;
            assert!($change.await.unwrap(), $what);
            let saved = sqlx::query_scalar::<_, bool>("select pg_current_wal_flush_lsn() > $1::pg_lsn").bind(before);
            assert!(saved.fetch_one(&pool).await.unwrap(), "{} is told and not saved", $what);
        };
    }
    saves!(store.create_account("acme", AccountMode::Prepaid, None), "an account");
    saves!(store.credit("acme", NanoUsd::new(5), None), "a credit");
    saves!(store.set_account_mode("acme", AccountMode::Unlimited), "a mode");
    saves!(store.set_max_in_flight("acme", Some(3)), "a cap");
    saves!(async { store.issue_key(&usual_key("acme"), &key).await.map(|_| true) }, "a key");
    saves!(store.set_budget(key.lookup(), Some(budget)), "a budget");
    saves!(store.rotate_key(key.lookup(), &next, Duration::from_secs(60)), "a rotation");
    saves!(store.revoke_key(next.lookup()), "a revocation");
    let account = store.find_account("acme").await.unwrap().unwrap();
    saves!(async { store.signing_secrets(account).await.map(|_| true) }, "a first secret");
    saves!(async { store.rotate_signing_secret(account).await.map(|_| true) }, "a secret's rotation");
    pool.close().await;
    database.stop().await;
}

/// Between what was read and that it is safe, the database goes and comes back: what it then saves says nothing of what was read.
#[tokio::test]
async fn what_was_read_before_a_restart_of_the_database_is_not_told_after_it() {
    let place = TestFolder::new();
    let database = PrivateCluster::start(&place.0.join("data"), Options::default()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(3).connect(database.url()).await.unwrap();
    Store::with_pool(pool.clone()).migrate().await.unwrap();
    let queue = Queue::new(pool.clone()).await;
    let prediction = queue.create().await;
    end_elsewhere(&prediction, &pool).await;

    let alone = PgPoolOptions::new().max_connections(1).connect(database.url()).await.unwrap();
    let (store, account) = (Store::with_pool(alone.clone()), queue.caller.account_id);
    // It stands in line for the only connection there is, and behind it somebody who keeps it.
    let first = alone.acquire().await.unwrap();
    let reading = tokio::spawn({
        let store = store.clone();
        async move { store.get(account, prediction.id).await }
    });
    tokio::task::yield_now().await;
    let second = tokio::spawn({
        let alone = alone.clone();
        async move { alone.acquire().await }
    });
    tokio::task::yield_now().await;
    drop(first);
    let kept = second.await.unwrap().unwrap();
    pool.close().await;
    let url = database.url().to_owned();
    database.stop().await;
    let database = PrivateCluster::start(&place.0.join("data"), Options::default()).await.unwrap();
    assert_eq!(database.url(), url);
    drop(kept);
    let told = reading.await.unwrap();
    assert!(matches!(told, Err(Error::Unavailable(_))), "{told:?}");
    // Who asks now is told what there is now.
    assert_eq!(store.get(account, prediction.id).await.unwrap().unwrap().status, Status::Canceled);
    alone.close().await;
    database.stop().await;
}

/// A replica that is promoted may lack the end of what was written, and its postmaster is as old as it was as a replica.
#[sqlx::test]
async fn what_was_written_before_a_promotion_is_not_told_after_it(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    queue.create().await;
    // What a promoted server knows are the timelines before its own.
    sqlx::query("update chores set name = 'timeline 00000000' where name like 'timeline %'")
        .execute(&pool)
        .await
        .unwrap();
    let told = queue.store.create(&queue.new_prediction()).await;
    assert!(matches!(told, Err(Error::Unavailable(_))), "{told:?}");
    // Since when the database is what it is was noted, and what is written from then on is told.
    queue.create().await;
}

/// Where both write, one of them is the old primary, which has not been told yet; and where the pool is, sweeps look.
#[tokio::test]
async fn a_session_on_another_server_than_the_pool_is_no_sign_of_life() {
    let (place, link) = (TestFolder::new(), TestFolder::new());
    let start = async |name| PrivateCluster::start(&place.0.join(name), Options::default()).await.unwrap();
    let (old, new) = (start("old").await, start("new").await);
    // A name that leads to one of them, and then to the other.
    let name = link.0.join("server");
    let options = |cluster: &PrivateCluster| cluster.url().parse::<PgConnectOptions>().unwrap();
    let lead_to = |cluster: &PrivateCluster| {
        let _ = std::fs::remove_file(&name);
        std::os::unix::fs::symlink(options(cluster).get_socket().unwrap(), &name).unwrap();
    };
    lead_to(&new);
    let pool = PgPoolOptions::new().connect_with(options(&new).socket(&name)).await.unwrap();
    let store = Store::with_pool(pool.clone());
    lead_to(&old);
    let mut session = store.worker_session().await.unwrap();
    session.hold(Uuid::new_v4()).await.unwrap();
    let shown = session.check().await;
    assert!(matches!(shown, Err(Error::Unavailable(_))), "{shown:?}");
    lead_to(&new);
    let mut session = store.worker_session().await.unwrap();
    session.hold(Uuid::new_v4()).await.unwrap();
    session.check().await.unwrap();
    // Of a pool that has no connection left nothing is known.
    pool.close().await;
    session.check().await.unwrap();
    old.stop().await;
    new.stop().await;
}

/// A line to the tests' database that can be cut, as a cable is: nothing is said any more, and nothing is closed.
async fn line_to(pool: &PgPool) -> (PgConnectOptions, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let direct = pool.connect_options();
    let through = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(listener.local_addr().unwrap().port());
    let through = through.username(direct.get_username()).database(direct.get_database().unwrap());
    let socket = direct.get_socket().expect("tests run over a unix socket").join(".s.PGSQL.5432");
    let cut = CancellationToken::new();
    let is_cut = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (socket, is_cut) = (socket.clone(), is_cut.clone());
            tokio::spawn(async move {
                let mut far = UnixStream::connect(socket).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    () = is_cut.cancelled() => pending().await,
                }
            });
        }
    });
    (through, cut)
}

#[sqlx::test]
async fn a_migration_or_an_audit_whose_line_is_cut_is_not_waited_for_without_end(pool: PgPool) {
    let (options, cut) = line_to(&pool).await;
    let far = Store::with_pool(PgPoolOptions::new().connect_lazy_with(options));
    // Both wait for as long as this is held.
    let mut held = pool.begin().await.unwrap();
    sqlx::raw_sql("lock table _sqlx_migrations, accounts in access exclusive mode").execute(&mut *held).await.unwrap();
    let work = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(far.migrate(), far.audit()) });
    let (ended, ()) = tokio::join!(work, async {
        eventually("both wait", async || waiting_for_a_lock(&mut held, "%").await == 2).await;
        cut.cancel();
    });
    let (migrated, audited) = ended.expect("they end");
    assert!(matches!(migrated, Err(Error::Unavailable(_))), "{migrated:?}");
    assert!(matches!(audited, Err(Error::Unavailable(_))), "{audited:?}");
}

/// While a server or another one brings the schema up to date. What could not be told of is not even begun.
#[sqlx::test]
async fn a_schema_that_is_behind_the_program_is_waited_for(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let made =
        async || -> i64 { sqlx::query_scalar("select count(*) from predictions").fetch_one(&pool).await.unwrap() };
    sqlx::query("alter function timeline() rename to later").execute(&pool).await.unwrap();
    let starting = Store::with_pool(pool.clone()).until_migrated();
    let told = starting.create(&queue.new_prediction()).await;
    assert!(matches!(told, Err(Error::Unavailable(_))), "{told:?}");
    assert_eq!(made().await, 0);
    sqlx::query("alter function later() rename to timeline").execute(&pool).await.unwrap();
    starting.migrate().await.unwrap();
    starting.create(&queue.new_prediction()).await.unwrap().unwrap();
    assert_eq!(made().await, 1);
}
