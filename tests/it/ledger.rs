//! Money: what may be spent is never exceeded, what is held is given back, and the books add up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use fourstep::{
    domain::{
        AccountMode, ApiKey, Budget, Caller, Dialect, Failure, FailureCode, Idempotency, NanoUsd, NewKey,
        NewPrediction, Outcome, Period, PredictionId, Scopes, Shortage, Status,
    },
    store::{Error, Store},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

use crate::{
    queue::{MODEL, Queue, succeeded},
    support::{TestApp, eventually, json},
};

const LEASE: Duration = Duration::from_secs(60);
const TWO_SECONDS: Duration = Duration::from_secs(2);

/// What one of these predictions may cost.
fn hold(queue: &Queue) -> i64 {
    queue.new_prediction().hold().get()
}

/// A key without the operator's privileges, of an account of its own.
pub(crate) fn usual_key(account: &str) -> NewKey {
    NewKey {
        account: account.to_owned(),
        name: "usual".to_owned(),
        scopes: Scopes::USUAL,
        budget: None,
        expires_at: None,
    }
}

async fn prepaid(store: &Store, account: &str, balance: i64) {
    assert!(store.create_account(account, AccountMode::Prepaid, None).await.unwrap());
    assert!(store.credit(account, NanoUsd::new(balance), Some("test")).await.unwrap());
}

fn of(caller: Caller, queue: &Queue) -> NewPrediction {
    NewPrediction {
        id: PredictionId::generate(),
        account_id: caller.account_id,
        key_id: caller.key_id,
        ..queue.new_prediction()
    }
}

async fn assert_clean(store: &Store) {
    let audit = store.audit().await.unwrap();
    assert!(audit.is_clean(), "{audit:#?}");
}

async fn held(pool: &PgPool) -> (i64, i64, i64) {
    sqlx::query_as(
        "select (select sum(held_nano)::bigint from accounts), (select sum(held_nano)::bigint from api_keys),
                (select sum(in_flight)::bigint from accounts)",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

#[sqlx::test]
async fn sixty_four_clients_racing_a_balance_for_a_thousand_get_exactly_a_thousand(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let hold = 60 * 1_540_000;
    prepaid(&app.store, "racer", 1000 * hold + hold - 1).await;
    let key = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("racer"), &key).await.unwrap();
    let clients = (0..64).map(|_| {
        let request =
            app.client.post(format!("{}/predictions", app.url)).bearer_auth(key.expose()).json(&json!({"input": {}}));
        tokio::spawn(async move {
            let mut accepted = 0;
            loop {
                let response = request.try_clone().unwrap().send().await.unwrap();
                match response.status() {
                    StatusCode::ACCEPTED => accepted += 1,
                    StatusCode::PAYMENT_REQUIRED => return accepted,
                    other => panic!("{other}: {}", response.text().await.unwrap()),
                }
            }
        })
    });
    let mut accepted = 0;
    for client in clients.collect::<Vec<_>>() {
        accepted += client.await.unwrap();
    }
    assert_eq!(accepted, 1000);
    assert_eq!(held(&app.pool).await.0, 1000 * hold);
    assert_clean(&app.store).await;
}

#[sqlx::test]
async fn of_creates_that_come_together_only_those_fail_that_must(pool: PgPool) {
    let queue = Arc::new(Queue::new(pool.clone()).await);
    prepaid(&queue.store, "together", 20 * hold(&queue)).await;
    let caller = queue.store.issue_key(&usual_key("together"), &ApiKey::generate().unwrap()).await.unwrap();
    let new = || of(caller, &queue);
    let repeatable = || {
        let idempotency = Idempotency { key: "once".to_owned(), request_hash: [0; 32] };
        NewPrediction { idempotency: Some(idempotency), ..new() }
    };
    // Postgres has no text with a zero in it.
    let refused = NewPrediction { raw_input: json!({"prompt": "\0"}), ..new() };
    let (same, first) = (new(), new());
    let mut news = vec![first, same.clone(), same, repeatable(), repeatable(), refused];
    news.extend((0..10).map(|_| new()));

    // The first waits for its account, and all others for the first.
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("select from accounts where id = $1 for update")
        .bind(caller.account_id)
        .execute(&mut *lock)
        .await
        .unwrap();
    let creates = news.into_iter().map(|new| {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { queue.store.create(&new).await })
    });
    let creates: Vec<_> = creates.collect();
    eventually("all have a turn", async || {
        let turn: Option<i64> = sqlx::query_scalar("select turn from turns where account_id = $1")
            .bind(caller.account_id)
            .fetch_optional(&pool)
            .await
            .unwrap();
        turn == Some(15)
    })
    .await;
    lock.commit().await.unwrap();
    let (mut created, mut taken, mut failed) = (0, 0, 0);
    for create in creates {
        match create.await.unwrap() {
            Ok(Some(_)) => created += 1,
            Ok(None) => taken += 1,
            Err(Error::Database(_)) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((created, taken, failed), (13, 2, 1));
    assert_eq!(held(&pool).await.0, 13 * hold(&queue));
    assert_clean(&queue.store).await;
}

#[sqlx::test]
async fn a_budget_begins_anew_with_its_period_exactly_while_it_is_being_spent(pool: PgPool) {
    let queue = Arc::new(Queue::new(pool.clone()).await);
    let budget = Budget { amount: NanoUsd::new(100 * hold(&queue)), period: Period::Day };
    let new_key = NewKey { budget: Some(budget), ..usual_key("spender") };
    let caller = queue.store.issue_key(&new_key, &ApiKey::generate().unwrap()).await.unwrap();
    let (accepted, refused, stop) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let clients = (0..16).map(|_| {
        let (queue, accepted, refused, stop) =
            (Arc::clone(&queue), Arc::clone(&accepted), Arc::clone(&refused), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(SeqCst) {
                match queue.store.create(&of(caller, &queue)).await {
                    Ok(Some(_)) => accepted.fetch_add(1, SeqCst),
                    Err(Error::Refused(Shortage::Budget { .. })) => refused.fetch_add(1, SeqCst),
                    other => panic!("{other:?}"),
                };
            }
        })
    });
    let clients: Vec<_> = clients.collect();

    // Midnight: what there is of the period is a day old.
    eventually("some of the budget is spent", async || accepted.load(SeqCst) >= 60).await;
    let mut midnight = pool.begin().await.unwrap();
    for statement in [
        "update api_keys set period_start = period_start - interval '1 day' where budget_nano is not null",
        "update predictions set held_budget = held_budget - interval '1 day' where held_budget is not null",
    ] {
        sqlx::query(statement).execute(&mut *midnight).await.unwrap();
    }
    midnight.commit().await.unwrap();
    let refused_by_then = refused.load(SeqCst);
    eventually("both periods are spent", async || {
        accepted.load(SeqCst) > 100 && refused.load(SeqCst) > refused_by_then + 100
    })
    .await;
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let by_period: Vec<i64> = sqlx::query_scalar(
        "select count(*) from predictions where held_budget is not null group by held_budget order by held_budget",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert!((60..=100).contains(&by_period[0]), "{by_period:?}");
    assert_eq!(by_period[1..], [100]);

    // What yesterday's predictions cost is not today's.
    let spent = "select spent_nano from api_keys where budget_nano is not null";
    let first = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    queue.store.finish(&first, &succeeded(), "").await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(spent).fetch_one(&pool).await.unwrap(), 0);
    assert_clean(&queue.store).await;
}

#[sqlx::test]
async fn whatever_ends_a_prediction_gives_back_what_was_held(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    prepaid(&queue.store, "payer", 100 * hold(&queue)).await;
    queue.store.set_max_in_flight("payer", Some(100)).await.unwrap();
    let budget = Budget { amount: NanoUsd::new(100 * hold(&queue)), period: Period::Month };
    let new_key = NewKey { budget: Some(budget), ..usual_key("payer") };
    let caller = queue.store.issue_key(&new_key, &ApiKey::generate().unwrap()).await.unwrap();
    let create = async || queue.store.create(&of(caller, &queue)).await.unwrap().unwrap().id;
    let worker = Uuid::new_v4();
    let claim = async || queue.store.claim(MODEL, worker, LEASE).await.unwrap().unwrap();
    let assert_held = async |predictions: i64, what: &str| {
        let nano = predictions * hold(&queue);
        assert_eq!(held(&pool).await, (nano, nano, predictions), "{what}");
        assert_clean(&queue.store).await;
    };

    create().await;
    assert_held(1, "created").await;
    let running = claim().await;
    assert_held(1, "claimed").await;
    queue.store.finish(&running, &succeeded(), "").await.unwrap();
    assert_held(0, "succeeded").await;

    create().await;
    let failure = Failure { code: FailureCode::Internal, message: "broken".to_owned() };
    let failed = Outcome::Failed { failure, device_time: TWO_SECONDS };
    queue.store.finish(&claim().await, &failed, "").await.unwrap();
    assert_held(0, "failed").await;

    let queued = create().await;
    queue.store.request_cancel(caller.account_id, queued).await.unwrap();
    assert_held(0, "canceled while queued").await;
    queue.store.request_cancel(caller.account_id, queued).await.unwrap();
    assert_held(0, "canceled again").await;

    let running = create().await;
    let claimed = claim().await;
    queue.store.request_cancel(caller.account_id, running).await.unwrap();
    assert_held(1, "asked to stop").await;
    queue.store.finish(&claimed, &Outcome::Canceled { device_time: TWO_SECONDS }, "").await.unwrap();
    assert_held(0, "canceled while running").await;

    let late = NewPrediction { cancel_after: Some(Duration::ZERO), ..of(caller, &queue) };
    queue.store.create(&late).await.unwrap().unwrap();
    queue.store.sweep(5).await.unwrap();
    assert_eq!(queue.store.get(caller.account_id, late.id).await.unwrap().unwrap().status, Status::Canceled);
    assert_held(0, "late").await;

    create().await;
    for losses in (0..2).rev() {
        claim().await;
        sqlx::query("update predictions set lease_until = now() - interval '1 s' where status = 'processing'")
            .execute(&pool)
            .await
            .unwrap();
        queue.store.sweep(2).await.unwrap();
        assert_held(losses, "lost").await;
    }

    // Two ran for two seconds, one to its end and one until it was canceled.
    let balance: i64 =
        sqlx::query_scalar("select balance_nano from accounts where name = 'payer'").fetch_one(&pool).await.unwrap();
    assert_eq!(balance, 100 * hold(&queue) - 2 * 3_080_000);
}

#[sqlx::test]
async fn one_who_may_spend_everything_holds_nothing(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    queue.create().await;
    assert_eq!(held(&pool).await, (0, 0, 0));
    let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    assert_eq!(claim.time_limit, Some(Duration::from_secs(3600)), "a slow device may take its time, and not for ever");
    queue.store.finish(&claim, &succeeded(), "").await.unwrap();
    assert_clean(&queue.store).await;
}

#[sqlx::test]
async fn a_prediction_costs_no_more_than_was_held_for_it(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    prepaid(&queue.store, "payer", hold(&queue)).await;
    let caller = queue.store.issue_key(&usual_key("payer"), &ApiKey::generate().unwrap()).await.unwrap();
    queue.store.create(&of(caller, &queue)).await.unwrap().unwrap();
    let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    assert_eq!(claim.time_limit, Some(Duration::from_secs(60)));
    let Outcome::Succeeded { output, .. } = succeeded() else { unreachable!() };
    let outcome = Outcome::Succeeded { output, device_time: Duration::from_secs(3600) };
    assert_eq!(queue.store.finish(&claim, &outcome, "").await.unwrap().get(), hold(&queue));
    assert_clean(&queue.store).await;
    // And the balance, which is used up, goes no lower whatever is tried.
    let refused = sqlx::query("update accounts set balance_nano = -1 where name = 'payer'").execute(&pool).await;
    assert!(refused.unwrap_err().to_string().contains("balance_covers_holds"));
    assert!(matches!(queue.store.credit("payer", NanoUsd::new(-1), None).await, Err(Error::OverLimit)));
}

#[sqlx::test]
async fn a_create_that_is_repeated_is_held_for_once_also_when_nothing_is_left(pool: PgPool) {
    let app = TestApp::start(pool).await;
    prepaid(&app.store, "payer", 60 * 1_540_000).await;
    let key = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("payer"), &key).await.unwrap();
    let create = || {
        let request = app.client.post(format!("{}/predictions", app.url)).bearer_auth(key.expose());
        request.header("Idempotency-Key", "once").json(&json!({"input": {}}))
    };
    let ids: Vec<Value> = futures_util::future::join_all((0..20).map(|_| async {
        let response = create().send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        json(response).await["id"].clone()
    }))
    .await;
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(held(&app.pool).await.0, 60 * 1_540_000);
    assert_clean(&app.store).await;
}

#[sqlx::test]
async fn every_face_says_in_its_own_words_what_is_missing(pool: PgPool) {
    let app = TestApp::start(pool).await;
    prepaid(&app.store, "poor", 1_000_000).await;
    let key = ApiKey::generate().unwrap();
    app.store.issue_key(&usual_key("poor"), &key).await.unwrap();
    let refused = async |path: &str, body: Value| {
        let response =
            app.client.post(format!("{}{path}", app.url)).bearer_auth(key.expose()).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED, "{path}");
        json(response).await
    };
    let missing = "the account's balance is too low: this prediction may cost $0.0924, and $0.001 is left ($0.00 is \
                   held for predictions that have not ended)";
    let native = refused("/predictions", json!({"input": {}})).await;
    assert_eq!((&native["code"], &native["detail"]), (&json!("payment_required"), &json!(missing)));
    let replicate = refused("/v1/models/bytedance/sdxl-lightning-4step/predictions", json!({"input": {}})).await;
    assert_eq!(replicate, json!({"title": "Insufficient credit", "detail": missing, "status": 402}));
    let eachlabs = refused("/v1/prediction/", json!({"model": MODEL, "input": {}})).await;
    let expected = json!({"status": 402, "error": "payment required", "message": missing, "details": missing});
    assert_eq!(eachlabs, expected);
}

#[sqlx::test]
async fn the_audit_finds_every_way_in_which_the_books_can_be_wrong(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    prepaid(&queue.store, "payer", 100 * hold(&queue)).await;
    queue.store.set_max_in_flight("payer", Some(5)).await.unwrap();
    let budget = Budget { amount: NanoUsd::new(100 * hold(&queue)), period: Period::Month };
    let new_key = NewKey { budget: Some(budget), ..usual_key("payer") };
    let caller = queue.store.issue_key(&new_key, &ApiKey::generate().unwrap()).await.unwrap();
    queue.store.create(&of(caller, &queue)).await.unwrap().unwrap();
    let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    queue.store.finish(&claim, &succeeded(), "").await.unwrap();
    queue.store.create(&of(caller, &queue)).await.unwrap().unwrap();
    assert_clean(&queue.store).await;

    let planted = [
        ("update accounts set balance_nano = balance_nano + 1 where name = 'payer'", "a balance is"),
        ("update accounts set held_nano = held_nano + 1 where name = 'payer'", "an account's holds"),
        ("update accounts set in_flight = 0 where name = 'payer'", "an account's places"),
        ("update api_keys set held_nano = 0 where budget_nano is not null", "what a key's budget holds"),
        ("update api_keys set spent_nano = 0 where budget_nano is not null", "what is spent"),
        ("update predictions set cost_nano = cost_nano - 1 where status = 'succeeded'", "every cost is charged"),
        ("update usage set cost_nano = cost_nano + 1", "an account's usage"),
        (
            "insert into device_sessions (worker_id, started_at, seen_at)
             select worker_id, created_at - interval '1 s', created_at from ledger where kind = 'charge'",
            "no worker's device",
        ),
    ];
    for (error, law) in planted {
        let mut books = pool.begin().await.unwrap();
        sqlx::query(error).execute(&mut *books).await.unwrap();
        books.commit().await.unwrap();
        let audit = queue.store.audit().await.unwrap();
        let finding = audit.findings.iter().find(|finding| finding.law.starts_with(law)).unwrap();
        assert_eq!((finding.wrong, finding.examples.len()), (1, 1), "{error}");
    }
    let changed = sqlx::query("update ledger set amount_nano = 0").execute(&pool).await.unwrap_err();
    assert!(changed.to_string().contains("only ever appended to"), "{changed}");
}

#[sqlx::test]
async fn the_audit_of_large_books_may_take_longer_than_other_statements(pool: PgPool) {
    const LIMIT_MS: u32 = 300;
    let impatient = (*pool.connect_options()).clone().options([("statement_timeout", format!("{LIMIT_MS}ms"))]);
    let store = Store::with_pool(PgPoolOptions::new().connect_lazy_with(impatient));
    let mut held_up = pool.begin().await.unwrap();
    sqlx::query("lock table ledger").execute(&mut *held_up).await.unwrap();
    let audit = tokio::spawn(async move { store.audit().await });
    eventually("the audit is over the limit", async || {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database()
                       and wait_event_type = 'Lock' and clock_timestamp() - query_start > $1 * interval '1 ms'";
        sqlx::query_scalar::<_, i64>(waiting).bind(f64::from(2 * LIMIT_MS)).fetch_one(&pool).await.unwrap() == 1
    })
    .await;
    held_up.rollback().await.unwrap();
    assert!(audit.await.unwrap().unwrap().is_clean());
}

#[sqlx::test]
async fn a_canceled_run_is_free_on_eachlabs_face_and_in_the_ledger(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let new = NewPrediction { dialect: Dialect::Eachlabs, ..queue.new_prediction() };
    queue.store.create(&new).await.unwrap().unwrap();
    let claim = queue.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().unwrap();
    queue.store.finish(&claim, &Outcome::Canceled { device_time: TWO_SECONDS }, "").await.unwrap();
    assert_eq!(queue.charges(new.id).await, [0]);
    assert_clean(&queue.store).await;
}

/// Rows of predictions and charges lead to accounts and keys without a lock on them, so that nothing else may take
/// these away.
#[sqlx::test]
async fn an_account_and_a_key_are_there_for_ever(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    queue.create().await;
    for attempt in [
        "delete from api_keys",
        "delete from accounts",
        "truncate api_keys cascade",
        "truncate accounts cascade",
        "update accounts set id = default",
        "update api_keys set account_id = account_id + 1",
    ] {
        let refused = sqlx::query(attempt).execute(&pool).await.unwrap_err();
        assert!(refused.to_string().contains("never deleted"), "{attempt}: {refused}");
    }
}
