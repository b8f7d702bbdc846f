//! What every process does besides: files that belong to nothing go, those of others stay, and no bucket keeps dead
//! workers from being noticed.

use std::time::Duration;

use fourstep::{
    artifacts::Artifacts,
    domain::{PredictionId, Status},
    store::Store,
    worker::{Settings, WorkerPool, sweep_files},
};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::{
    queue::{MODEL, Queue, succeeded},
    support::{bucket_at, eventually},
    worker::settings,
};

/// Another database on the same server, gone when the test ends well.
struct Other {
    name: String,
    queue: Queue,
}

impl Other {
    async fn beside(pool: &PgPool) -> Self {
        let name = format!("other_{}", Uuid::new_v4().simple());
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(pool).await.unwrap();
        let other = PgPool::connect_with((*pool.connect_options()).clone().database(&name)).await.unwrap();
        Store::with_pool(other.clone()).migrate().await.unwrap();
        Self { name, queue: Queue::new(other).await }
    }

    async fn remove(self, pool: &PgPool) {
        self.queue.pool.close().await;
        sqlx::query(AssertSqlSafe(format!("drop database {} with (force)", self.name))).execute(pool).await.unwrap();
    }
}

/// Stores a file of a prediction that still runs.
async fn put_output(artifacts: &Artifacts, prediction: PredictionId) -> String {
    let key = format!("{}/out-0.png", Artifacts::attempt_folder(prediction, 1).unwrap());
    artifacts.put(&key, b"picture".to_vec()).await.unwrap();
    key
}

async fn swept(store: &Store, artifacts: &Artifacts) -> usize {
    sweep_files(store, artifacts, Duration::ZERO).await.unwrap()
}

async fn site(pool: &PgPool) -> Uuid {
    sqlx::query_scalar("select id from site").fetch_one(pool).await.unwrap()
}

#[sqlx::test]
async fn a_database_does_not_sweep_the_files_of_another(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let artifacts = Artifacts::in_folder(&queue.outputs.0, false).unwrap();
    // A site from before there was a mark.
    let kept = put_output(&artifacts, queue.create().await.id).await;

    // Somebody starts with the wrong database, before anything has been said.
    let other = Other::beside(&pool).await;
    assert_eq!(swept(&other.queue.store, &artifacts).await, 0);
    assert_eq!(sweep_files(&other.queue.store, &artifacts, Duration::from_secs(3600)).await.unwrap(), 0);
    // It makes something itself, and the place is still not its own.
    let own = put_output(&artifacts, other.queue.create().await.id).await;
    for store in [&other.queue.store, &queue.store, &other.queue.store] {
        assert_eq!(swept(store, &artifacts).await, 0, "nobody knows all the files");
    }
    artifacts.delete(vec![own]).await;

    // The one that knows them says so, and is believed.
    assert_eq!(swept(&queue.store, &artifacts).await, 0);
    assert_eq!(artifacts.site().await.unwrap(), Some(site(&pool).await.to_string()));
    put_output(&artifacts, PredictionId::generate()).await;
    assert_eq!(swept(&other.queue.store, &artifacts).await, 0);
    assert_eq!(swept(&queue.store, &artifacts).await, 1);
    artifacts.load(&kept).await.expect("still there");
    other.remove(&pool).await;
}

#[sqlx::test]
async fn a_restored_database_knows_its_files_and_an_empty_place_is_anybodys(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let artifacts = Artifacts::in_folder(&queue.outputs.0, false).unwrap();
    assert_eq!(swept(&queue.store, &artifacts).await, 0);
    let other = Other::beside(&pool).await;
    put_output(&artifacts, PredictionId::generate()).await;
    assert_eq!(swept(&other.queue.store, &artifacts).await, 0);

    // What `pg_restore` does.
    sqlx::query("update site set id = $1").bind(site(&pool).await).execute(&other.queue.pool).await.unwrap();
    assert_eq!(swept(&other.queue.store, &artifacts).await, 1);
    other.remove(&pool).await;
}

#[sqlx::test]
async fn whose_files_they_are_may_be_written_by_hand(pool: PgPool) {
    let queue = Queue::new(pool.clone()).await;
    let artifacts = Artifacts::in_folder(&queue.outputs.0, false).unwrap();
    put_output(&artifacts, PredictionId::generate()).await;
    for _ in 0..2 {
        assert_eq!(swept(&queue.store, &artifacts).await, 0, "it may be another's");
    }
    std::fs::write(queue.outputs.0.join("site-id"), format!("{}\n", site(&pool).await)).unwrap();
    assert_eq!(swept(&queue.store, &artifacts).await, 1);
}

#[sqlx::test]
async fn a_bucket_that_does_not_answer_keeps_no_dead_worker_from_being_noticed(pool: PgPool) {
    let queue = Queue::new(pool).await;
    // Nobody answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Its files are to be deleted.
    queue.create().await;
    let expired = queue.store.claim(MODEL, Uuid::new_v4(), Duration::from_secs(15)).await.unwrap().unwrap();
    queue.store.finish(&expired, &succeeded(), "").await.unwrap();
    let settings = Settings { retention: Some(Duration::ZERO), sweep: Duration::from_millis(100), ..settings() };
    let upkeep = WorkerPool::start(&queue.store, &bucket_at(&listener), &settings, Vec::new()).unwrap();
    let _asked = listener.accept().await.unwrap();

    let prediction = queue.create().await;
    let lost = queue.store.claim(MODEL, Uuid::new_v4(), Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(lost.id, prediction.id);
    eventually("it is queued again", async || queue.get(prediction.id).await.status == Status::Queued).await;
    upkeep.drain(&queue.store, Duration::ZERO).await;
}
