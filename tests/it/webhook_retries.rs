//! Webhooks are told until they are received, whatever receivers and deliverers do.

use std::{sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode},
    response::IntoResponse,
};
use chrono::{DateTime, Utc};
use fourstep::{
    domain::ApiKey,
    store::WebhookVerdict,
    webhook::{self, Schedule},
};
use futures_util::future::join_all;
use serde_json::json;
use sqlx::PgPool;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
};

use crate::{
    delivering::impatient,
    receiver::{Receiver, Reply, SECRET},
    support::{PATIENCE, TestApp, deadlock_when, eventually, id, waiting_for_a_lock},
};

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

/// Processes claim one after the other. Whoever has waited long would else begin with a lease that is over.
#[sqlx::test]
async fn a_lease_is_counted_from_when_the_others_have_claimed(pool: PgPool) {
    const LEASE: Duration = Duration::from_secs(60);
    let app = TestApp::start(pool).await;
    let receiver = Receiver::start().await;
    app.create_hooked(&receiver).await;
    app.run_one().await;
    let mut claims = app.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock($1)")
        .bind(i64::from_be_bytes(*b"webhooks"))
        .execute(&mut *claims)
        .await
        .unwrap();
    let store = app.store.clone();
    let waiting = tokio::spawn(async move { store.claim_webhooks(10, 4, 4, LEASE).await });
    eventually("it waits for its turn", async || {
        waiting_for_a_lock(&mut claims, "select pg_advisory_xact_lock%").await == 1
    })
    .await;
    let lets_go: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut *claims).await.unwrap();
    claims.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
    let (leased, due): (DateTime<Utc>, DateTime<Utc>) =
        sqlx::query_as("select lease_until, due_at from webhook_deliveries").fetch_one(&app.pool).await.unwrap();
    assert!(leased >= lets_go + LEASE && due >= lets_go + LEASE, "{leased} and {due}, and it began at {lets_go}");
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
    let [lost] = &app.store.claim_webhooks(10, 4, 16, lease).await.unwrap()[..] else { panic!("one is due") };
    assert!(app.store.claim_webhooks(10, 4, 16, lease).await.unwrap().is_empty(), "it is somebody's");
    sqlx::query("update webhook_deliveries set due_at = now(), lease_until = now()").execute(&app.pool).await.unwrap();
    let _delivering = app.deliver();
    assert_eq!(receiver.next().await.header("webhook-id"), lost.id.to_string());
    eventually("it is noted", async || app.state(&id).await == "delivered").await;
    // The one that was taken for dead comes too late to say anything.
    assert!(!app.store.settle_webhook(lost, &Default::default(), WebhookVerdict::Failed).await.unwrap());
    assert_eq!(app.state(&id).await, "delivered");
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
async fn an_account_of_many_dead_receivers_holds_up_no_other(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let other = ApiKey::generate().unwrap();
    app.store.create_key("other", "test", &other).await.unwrap();
    let (revived, mut dead) = (Arc::new(Semaphore::new(0)), Vec::new());
    for _ in 0..4 {
        let receiver = Receiver::start().await;
        receiver.will((0..10).map(|_| Reply::Hang(Arc::clone(&revived))));
        for _ in 0..2 {
            app.create_hooked(&receiver).await;
            app.run_one().await;
        }
        dead.push(receiver);
    }
    let mut alive = Receiver::start().await;
    let _delivering = app.deliver_as(webhook::Settings { per_account: 3, ..impatient() });
    let mut told = 0;
    eventually("as many are under way as may be", async || {
        told += dead.iter_mut().map(|receiver| usize::from(receiver.told.try_recv().is_ok())).sum::<usize>();
        told == 3
    })
    .await;
    for _ in 0..3 {
        let body = json!({"input": {}, "webhook": alive.url()});
        let request = app.client.post(format!("{}/predictions", app.url)).bearer_auth(other.expose()).json(&body);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
        app.run_one().await;
        alive.next().await;
    }
    let fourth = dead.iter_mut().any(|receiver| receiver.told.try_recv().is_ok());
    assert!(!fourth, "a fourth delivery of an account that has three without an answer");
    revived.add_permits(100);
    eventually("the rest follows", async || {
        told += dead.iter_mut().map(|receiver| usize::from(receiver.told.try_recv().is_ok())).sum::<usize>();
        told == 8
    })
    .await;
}

/// By the schedule that is in force, with the clock moved on instead of waiting.
#[sqlx::test]
async fn after_ten_minutes_of_every_trouble_everything_is_told(pool: PgPool) {
    const DOWN: i64 = 600;
    let app = TestApp::start(pool).await;
    // Has its address, and refuses connections until it listens.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let down = format!("http://{}/", socket.local_addr().unwrap());
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = format!("http://{}/", canary.local_addr().unwrap());
    let (mut failing, mut leading_away, mut slow) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let mut well = Receiver::start().await;
    failing.will((0..100).map(|_| Reply::Status(500)));
    leading_away.will(
        (0..100)
            .map(|_| Reply::Answer((StatusCode::TEMPORARY_REDIRECT, [("location", inner.clone())]).into_response())),
    );
    slow.will((0..100).map(|_| Reply::Hang(Arc::new(Semaphore::new(0)))));
    let mut troubled = Vec::new();
    for url in [down, failing.url(), leading_away.url(), slow.url()] {
        troubled.push(id(&app.create_on("/predictions", json!({"webhook": url})).await));
        app.run_one().await;
    }
    let settings =
        webhook::Settings { schedule: Schedule::default(), timeout: Duration::from_millis(500), ..impatient() };
    let _delivering = app.deliver_as(settings);

    let attempts = async |id: &str| app.webhook(id).await["deliveries"][0]["attempts"].as_array().unwrap().len();
    let mut clock = 0;
    for round in 1.. {
        for id in &troubled {
            eventually("it was tried", async || attempts(id).await == round).await;
        }
        let healthy = app.create_hooked(&well).await;
        app.run_one().await;
        well.next().await;
        eventually("it is noted", async || app.state(&healthy).await == "delivered").await;
        // On to the moment when the last of them is due again.
        clock += sqlx::query_scalar::<_, i64>(
            "select ceil(extract(epoch from max(due_at) - now()))::bigint from webhook_deliveries where state = 'pending'",
        )
        .fetch_one(&app.pool)
        .await
        .unwrap();
        if clock >= DOWN {
            break;
        }
        sqlx::query("update webhook_deliveries set due_at = now() where state = 'pending'")
            .execute(&app.pool)
            .await
            .unwrap();
    }
    // All is well again, and the next pause is over.
    for receiver in [&failing, &leading_away, &slow] {
        receiver.replies.lock().unwrap().clear();
    }
    let mut back = Receiver::on(socket.listen(16).unwrap());
    for receiver in [&mut failing, &mut leading_away, &mut slow] {
        while receiver.told.try_recv().is_ok() {}
    }
    sqlx::query("update webhook_deliveries set due_at = now() where state = 'pending'")
        .execute(&app.pool)
        .await
        .unwrap();
    for receiver in [&mut back, &mut failing, &mut leading_away, &mut slow] {
        let told = receiver.next().await;
        assert!(told.is_signed_with(&app.secret().await));
        assert_eq!(told.json()["status"], "succeeded");
    }
    for id in &troubled {
        eventually("it is noted", async || app.state(id).await == "delivered").await;
    }
    assert!(clock < 2 * DOWN, "told {clock} seconds after it went down");
    assert!(tokio::time::timeout(Duration::ZERO, canary.accept()).await.is_err(), "the redirect was followed");
}

/// A database that names a deadlock has undone the statement: it is known that nobody who shared it is settled.
#[sqlx::test]
async fn a_deadlock_of_one_note_takes_no_other_with_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let receiver = Receiver::start().await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(app.create_hooked(&receiver).await);
        app.run_one().await;
    }
    let due = app.store.claim_webhooks(10, 10, 10, Duration::from_secs(60)).await.unwrap();
    assert_eq!(due.len(), ids.len());
    let victim = due[7].prediction.id;
    deadlock_when(&app.pool, "webhook_deliveries", &format!("new.prediction_id = '{victim}'")).await;
    let settle = async |due| app.store.settle_webhook(due, &Default::default(), WebhookVerdict::Delivered).await;
    let settled = join_all(due.iter().map(settle)).await;
    for (due, settled) in due.iter().zip(settled) {
        match settled {
            Ok(is_held) => assert!(is_held && due.prediction.id != victim),
            Err(error) => assert!(due.prediction.id == victim, "{error}"),
        }
        let state = if due.prediction.id == victim { "pending" } else { "delivered" };
        assert_eq!(app.state(&due.prediction.id.to_string()).await, state);
    }
}
