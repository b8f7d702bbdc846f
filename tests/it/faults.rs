//! Real processes, really killed: nothing acknowledged is lost and nothing is charged twice.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    process::{Client, Program, TestFolder, url_of},
    support::eventually,
};

const KILLS: usize = 20;
/// Four steps of a mock at 50 ms.
const RUN_TIME: Duration = Duration::from_millis(200);
/// From a kill to the end of the prediction that another worker takes over, besides its run time.
const RESCUE: Duration = Duration::from_secs(3);

/// Σ of all charges against Σ of all costs, and at most one charge a prediction.
async fn assert_books_agree(pool: &PgPool) {
    let (costs, charges, charged_twice): (i64, i64, i64) = sqlx::query_as(
        "select (select coalesce(sum(cost_nano), 0)::bigint from predictions),
                (select coalesce(sum(amount_nano), 0)::bigint from ledger),
                (select count(*) from (select from ledger group by prediction_id having count(*) > 1) as twice)",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(costs, charges);
    assert_eq!(charged_twice, 0);
}

struct Worker {
    id: Uuid,
    program: Program,
}

async fn start_worker(folder: &TestFolder, url: &str, pool: &PgPool) -> Worker {
    let before: Vec<Uuid> = sqlx::query_scalar("select id from workers").fetch_all(pool).await.unwrap();
    let program = Program::worker(&folder.0, url, 50);
    let id =
        sqlx::query_scalar("select id from workers where id <> all ($1)").bind(before).fetch_one(pool).await.unwrap();
    Worker { id, program }
}

#[sqlx::test]
async fn twenty_killed_workers_lose_nothing_and_charge_nothing_twice(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    let client = Client::of(&server, &folder.0);
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(start_worker(&folder, &url, &pool).await);
    }
    let mut ids = Vec::new();
    for kill in 0..KILLS {
        for _ in 0..3 {
            ids.push(client.create().await.unwrap());
        }
        // The victim is in the middle of a prediction.
        let (victim, held) = loop {
            let held: Option<(Uuid, Uuid)> =
                sqlx::query_as("select worker_id, id from predictions where status = 'processing' limit 1")
                    .fetch_optional(&pool)
                    .await
                    .unwrap();
            if let Some(held) = held {
                break held;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let index = workers.iter().position(|worker| worker.id == victim).expect("a worker of ours holds it");
        workers.swap_remove(index).program.kill();
        let killed = Instant::now();
        let ended = client.terminal(&held.to_string()).await;
        let took = killed.elapsed();
        assert_eq!(ended["status"], "succeeded");
        // Two others were queued before it, and the survivors share the work.
        assert!(took < RESCUE + RUN_TIME * 3, "kill {kill}: finished {took:?} after the kill");
        workers.push(start_worker(&folder, &url, &pool).await);
    }
    for id in &ids {
        assert_eq!(client.terminal(id).await["status"], "succeeded");
    }
    let charges: i64 = sqlx::query_scalar("select count(*) from ledger").fetch_one(&pool).await.unwrap();
    assert_eq!(charges, ids.len() as i64);
    assert_books_agree(&pool).await;
}

#[sqlx::test]
async fn a_stopped_worker_that_wakes_up_late_is_fenced(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    let client = Client::of(&server, &folder.0);
    let zombie = Program::worker(&folder.0, &url, 500);
    let id = client.create().await.unwrap();
    while client.get(&id, 0).await.unwrap()["status"] != "processing" {
        tokio::task::yield_now().await;
    }
    zombie.signal(Signal::SIGSTOP);
    // Its lease would run out in fifteen seconds; the database says that they are over.
    sqlx::query("update predictions set lease_until = now() where status = 'processing'").execute(&pool).await.unwrap();
    let _rescuer = Program::worker(&folder.0, &url, 1);
    let ended = client.terminal(&id).await;
    zombie.signal(Signal::SIGCONT);
    // It goes on, is told at its next renewal or fenced at its finish, and takes the next prediction as if nothing was.
    for _ in 0..4 {
        let next = client.create().await.unwrap();
        client.terminal(&next).await;
    }
    assert_eq!(client.get(&id, 0).await.unwrap(), ended);
    assert_books_agree(&pool).await;
}

#[tokio::test]
async fn a_killed_server_with_its_own_postgres_keeps_every_acknowledged_prediction() {
    let folder = TestFolder::new();
    let server = Program::serve(&folder.0, None, &[]);
    let client = Client::of(&server, &folder.0);
    let mut creating = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        creating.spawn(async move {
            let mut acknowledged = Vec::new();
            while let Ok(id) = client.create().await {
                acknowledged.push(id);
            }
            acknowledged
        });
    }
    // Under load: some are done, some run, most wait.
    let first = client.create().await.unwrap();
    client.terminal(&first).await;
    server.kill();
    let mut acknowledged = vec![first];
    while let Some(ids) = creating.join_next().await {
        acknowledged.extend(ids.unwrap());
    }
    assert!(acknowledged.len() > 8, "there was load");

    let mut server = Program::serve(&folder.0, None, &["--workers", "4"]);
    let client = Client::of(&server, &folder.0);
    for id in &acknowledged {
        assert_eq!(client.terminal(id).await["status"], "succeeded");
    }
    server.signal(Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(35)).await.success());
}

async fn until_one_runs(pool: &PgPool) {
    let processing = "select exists (select from predictions where status = 'processing')";
    eventually("one runs", async || sqlx::query_scalar(processing).fetch_one(pool).await.unwrap()).await;
}

#[sqlx::test]
async fn a_terminated_server_answers_who_waits_and_hands_back_what_runs(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let config = folder.0.join("fourstep.toml");
    // A prediction of four seconds cannot finish within a shutdown of one.
    std::fs::write(&config, "[server]\nshutdown_seconds = 1\n[worker]\nmock_step_ms = 1000\n").unwrap();
    let mut server = Program::serve(&folder.0, Some(&url), &["--config", config.to_str().unwrap()]);
    let client = Client::of(&server, &folder.0);
    let waiting = tokio::spawn(async move { client.create_and_wait(60).await });
    // Once the row is there, the request that made it is being held.
    until_one_runs(&pool).await;
    server.signal(Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(10)).await.success());
    assert_eq!(waiting.await.unwrap().expect("answered")["status"], "processing");
    let (status, losses): (String, i16) =
        sqlx::query_as("select status, losses from predictions").fetch_one(&pool).await.unwrap();
    assert_eq!((status.as_str(), losses), ("queued", 0));
}

#[sqlx::test]
async fn a_terminated_server_draws_what_its_client_would_have_to_buy_again(pool: PgPool) {
    let (folder, url) = (TestFolder::new(), url_of(&pool));
    let config = folder.0.join("fourstep.toml");
    std::fs::write(&config, "[worker]\nmock_step_ms = 500\n").unwrap();
    let mut server = Program::serve(&folder.0, Some(&url), &["--config", config.to_str().unwrap()]);
    let client = Client::of(&server, &folder.0);
    let body = serde_json::json!({"prompt": "a cat", "size": "256x256"});
    let request = reqwest::Client::new().post(format!("{}/v1/images/generations", server.url)).json(&body);
    let drawn = tokio::spawn(request.bearer_auth(&client.key).send());
    until_one_runs(&pool).await;
    server.signal(Signal::SIGTERM);
    assert_eq!(drawn.await.unwrap().expect("answered").status(), 200);
    assert!(server.ended_within(Duration::from_secs(10)).await.success());
}
