//! Processes that start before what they need is there.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use fourstep::{
    domain::ApiKey,
    postgres::{Options, PrivateCluster},
    store::Store,
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    process::{Client, Program, TestFolder, url_of},
    queue::{MODEL, Queue, succeeded},
    support::{eventually, waiting_for_a_lock},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_starts_before_its_database_waits_for_it() {
    let (place, folder) = (TestFolder::new(), TestFolder::new());
    let start = async || PrivateCluster::start(&place.0.join("data"), Options::default()).await.unwrap();
    let database = start().await;
    let url = database.url().to_owned();
    database.stop().await;

    let log = folder.0.join("log");
    let starting = tokio::task::spawn_blocking({
        let (folder, url, log) = (folder.0.clone(), url.clone(), log.clone());
        move || Program::serve_logging(&folder, &url, &[("FOURSTEP_MOCK_STEP_MS", "1")], &log)
    });
    eventually("it waits", async || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(!starting.is_finished(), "it gave up: {said}");
        said.contains("Waiting for the database")
    })
    .await;

    let database = start().await;
    assert_eq!(database.url(), url);
    let mut server = tokio::time::timeout(Duration::from_secs(30), starting).await.expect("it starts").unwrap();
    let client = Client::of(&server, &folder.0);
    let id = client.create().await.unwrap();
    assert_eq!(client.terminal(&id).await["status"], "succeeded");
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(server.ended_within(Duration::from_secs(35)).await.success());
    database.stop().await;
}

/// It might make and charge for what it cannot tell of yet.
#[sqlx::test]
async fn a_server_makes_nothing_before_the_schema_is_up_to_date(pool: PgPool) {
    let (folder, key) = (TestFolder::new(), ApiKey::generate().unwrap());
    Store::with_pool(pool.clone()).create_key("owner", "test", &key).await.unwrap();
    let mut migrates = pool.begin().await.unwrap();
    sqlx::query("lock table _sqlx_migrations in access exclusive mode").execute(&mut *migrates).await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let starting = tokio::task::spawn_blocking({
        let (folder, url) = (folder.0.clone(), url_of(&pool));
        move || Program::serve_at(free, &folder, &url)
    });
    let (http, at) = (reqwest::Client::new(), |path| format!("http://{free}{path}"));
    eventually("it lives", async || http.get(at("/livez")).send().await.is_ok_and(|live| live.status() == 200)).await;
    eventually("it waits for the other", async || waiting_for_a_lock(&mut migrates, "%_sqlx_migrations%").await > 0)
        .await;
    let ready = http.get(at("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert_eq!(ready.json::<serde_json::Value>().await.unwrap()["phase"], "migrating");
    let create = || http.post(at("/predictions")).bearer_auth(key.expose()).json(&serde_json::json!({"input": {}}));
    let refused = create().send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let made: i64 = sqlx::query_scalar("select count(*) from predictions").fetch_one(&mut *migrates).await.unwrap();
    assert_eq!(made, 0);
    migrates.commit().await.unwrap();
    let _server = tokio::time::timeout(Duration::from_secs(30), starting).await.expect("it starts").unwrap();
    assert_eq!(create().send().await.unwrap().status(), 202);
}

#[sqlx::test]
async fn the_first_key_is_a_servers_to_make(pool: PgPool) {
    let (worker, server) = (TestFolder::new(), TestFolder::new());
    let (store, url) = (Store::with_pool(pool.clone()), url_of(&pool));
    let _worker = Program::worker(&worker.0, &url, 1);
    assert!(store.list_keys().await.unwrap().is_empty());
    assert!(!worker.0.join("key").exists());
    let serving = Program::serve(&server.0, Some(&url), &["--workers", "0"]);
    let client = Client::of(&serving, &server.0);
    let id = client.create().await.unwrap();
    assert_eq!(client.terminal(&id).await["status"], "succeeded");
}

#[sqlx::test]
async fn of_servers_that_start_at_once_one_makes_the_first_key(pool: PgPool) {
    let start = async || {
        let key = || Ok::<_, anyhow::Error>(ApiKey::generate().unwrap());
        Store::with_pool(pool.clone()).create_first_key("default", "first", key).await.unwrap();
    };
    tokio::join!(start(), start(), start(), start());
    assert_eq!(Store::with_pool(pool.clone()).list_keys().await.unwrap().len(), 1);
}

#[sqlx::test]
async fn data_is_deleted_when_a_server_says_so_and_not_a_worker(pool: PgPool) {
    let (queue, folder, url) = (Queue::new(pool.clone()).await, TestFolder::new(), url_of(&pool));
    let old = queue.create().await.id;
    let claim = queue.store.claim(MODEL, Uuid::new_v4(), Duration::from_secs(15)).await.unwrap().unwrap();
    queue.store.finish(&claim, &succeeded(), "").await.unwrap();
    sqlx::query("update predictions set completed_at = now() - interval '2 days'").execute(&pool).await.unwrap();

    // It looks for old data, if at all, as soon as it starts, and runs something after that.
    let _worker = Program::worker(&folder.0, &url, 1);
    let run = queue.create().await.id;
    eventually("it is run", async || queue.get(run).await.status.is_terminal()).await;
    assert!(!queue.get(old).await.data_removed, "it may be kept for longer elsewhere");

    let variables = [("FOURSTEP_QUEUE__RETENTION_HOURS", "720"), ("FOURSTEP_WORKER__COUNT", "0")];
    let careful = Program::serve_logging(&folder.0, &url, &variables, &folder.0.join("careful"));
    let run = queue.create().await.id;
    eventually("another is run", async || queue.get(run).await.status.is_terminal()).await;
    assert!(!queue.get(old).await.data_removed);
    drop(careful);

    let _server = Program::serve(&folder.0, Some(&url), &["--workers", "0"]);
    eventually("a server deletes it", async || queue.get(old).await.data_removed).await;
}

#[sqlx::test]
async fn a_data_folder_that_the_server_makes_is_closed_to_other_accounts(pool: PgPool) {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = TestFolder::new();
    let (made, found) = (folder.0.join("some/data"), folder.0.join("found"));
    std::fs::create_dir(&found).unwrap();
    std::fs::set_permissions(&found, Permissions::from_mode(0o750)).unwrap();
    let server = Program::serve(&made, Some(&url_of(&pool)), &[]);
    // Root's private Postgres runs under an account of its own, which has to get through.
    assert_eq!(mode(&made), if nix::unistd::Uid::effective().is_root() { 0o711 } else { 0o700 });
    assert_eq!(mode(&made.join("artifacts")), 0o700);
    assert_eq!(mode(&made.join("key")), 0o600);
    drop(server);
    let _server = Program::serve(&found, Some(&url_of(&pool)), &[]);
    assert_eq!(mode(&found), 0o750);
}
