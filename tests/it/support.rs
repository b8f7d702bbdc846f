//! A server in this process on a real socket, its client, and the hand that does a worker's work.

use std::time::{Duration, Instant};

use fourstep::{
    artifacts::{Artifacts, Bucket, Credentials},
    domain::{ApiKey, Artifact, Caller, Catalog, Outcome},
    fetch::{self, Fetcher},
    http,
    service::{PredictionService, admission::Limits, files::UploadLimits},
    store::{Audience, Claim, Phase, Store, WorkerRecord},
};
use image::{ImageFormat, RgbImage};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{process::TestFolder, queue::MODEL};

/// Longer than anything here takes; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(60);
/// The one address of this machine that input images may be fetched from.
pub(crate) const PICTURES: &str = "127.0.0.2/32";
/// How much may be uploaded.
pub(crate) const UPLOADS: UploadLimits = UploadLimits { keep: Duration::from_secs(3600), quota: 100_000 };
/// What every hand-made run takes: $0.00308.
const DEVICE_TIME: Duration = Duration::from_secs(2);

/// The whole API over a test's own database, without workers: tests finish predictions by hand.
pub(crate) struct TestApp {
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) caller: Caller,
    pub(crate) client: reqwest::Client,
    pub(crate) service: PredictionService,
    pub(crate) store: Store,
    pub(crate) artifacts: Artifacts,
    pub(crate) pool: PgPool,
    /// The two steps of a shutdown.
    pub(crate) draining: CancellationToken,
    pub(crate) closing: CancellationToken,
    server: JoinHandle<()>,
    spreading: JoinHandle<()>,
    /// Where the artifacts are.
    pub(crate) folder: TestFolder,
}

impl TestApp {
    pub(crate) async fn start(pool: PgPool) -> Self {
        Self::start_with(pool, |_| ()).await
    }

    /// Starts a server whose settings a test has changed.
    pub(crate) async fn start_with(pool: PgPool, change: impl FnOnce(&mut http::Settings)) -> Self {
        Self::start_limited(pool, Limits::NONE, change).await
    }

    /// Starts a server that lets in no more than this.
    pub(crate) async fn start_limited(pool: PgPool, limits: Limits, change: impl FnOnce(&mut http::Settings)) -> Self {
        let folder = TestFolder::new();
        let artifacts = Artifacts::in_folder(&folder.0, false).unwrap();
        Self::start_over(pool, (folder, artifacts), limits, change).await
    }

    /// Starts a server that keeps its files in a bucket.
    pub(crate) async fn start_with_bucket(pool: PgPool, artifacts: Artifacts) -> Self {
        Self::start_over(pool, (TestFolder::new(), artifacts), Limits::NONE, |_| ()).await
    }

    async fn start_over(
        pool: PgPool,
        (folder, artifacts): (TestFolder, Artifacts),
        limits: Limits,
        change: impl FnOnce(&mut http::Settings),
    ) -> Self {
        let store = Store::with_pool(pool.clone());
        let key = ApiKey::generate().unwrap();
        let caller = store.create_key("owner", "test", &key).await.unwrap();
        let catalog = Catalog::parse(include_str!("../../config/models.toml")).unwrap();
        let (draining, closing) = (CancellationToken::new(), CancellationToken::new());
        let fetcher =
            fetch::Settings { allowed_networks: vec![PICTURES.parse().unwrap()], timeout: Duration::from_secs(5) };
        let fetcher = Fetcher::new(fetcher).unwrap();
        let (uploads, stop) = (UPLOADS, draining.clone());
        let service = PredictionService::new(store.clone(), artifacts.clone(), catalog, fetcher, limits, uploads, stop);
        let mut settings = http::Settings {
            public_url: None,
            max_connections: 10_000,
            header_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(60),
            event_stream: Duration::from_secs(600),
            openai_hold: Duration::from_secs(540),
            body_limit: 1 << 20,
            bodies_limit: 64 << 20,
        };
        change(&mut settings);
        let listener = http::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(http::serve(listener, service.clone(), settings, closing.clone()));
        let spreading = tokio::spawn({
            let store = store.clone();
            async move { store.spread_changes(Audience::Clients).await }
        });
        Self {
            url,
            key: key.expose().to_owned(),
            caller,
            client: reqwest::Client::new(),
            service,
            store,
            artifacts,
            pool,
            draining,
            closing,
            server,
            spreading,
            folder,
        }
    }

    /// The server's address without the scheme.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// A request with the owner's key.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    /// Creates a prediction of this input and returns its document.
    pub(crate) async fn create(&self, input: Value) -> Value {
        let response = self.post("/predictions").json(&json!({"input": input})).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        json(response).await
    }

    /// Creates a small prediction and returns its id.
    pub(crate) async fn create_small(&self) -> String {
        id(&self.create(json!({"prompt": "a cat", "width": 256, "height": 256})).await)
    }

    /// A prediction's document as it is now.
    pub(crate) async fn prediction(&self, id: &str) -> Value {
        json(self.get(&format!("/predictions/{id}")).send().await.unwrap()).await
    }

    /// Takes the next prediction as a worker does.
    pub(crate) async fn claim(&self) -> Claim {
        self.store.claim(MODEL, Uuid::new_v4(), LEASE).await.unwrap().expect("something to claim")
    }

    /// Stores black pictures of the asked size and ends the prediction as a worker does.
    pub(crate) async fn finish(&self, claim: &Claim) {
        self.finish_in(claim, DEVICE_TIME).await;
    }

    /// The same after another time on the device.
    pub(crate) async fn finish_in(&self, claim: &Claim, device_time: Duration) {
        let folder = Artifacts::attempt_folder(claim.id, claim.attempt).unwrap();
        let mut output = Vec::new();
        for (index, seed) in claim.input.seeds().enumerate() {
            let png = black_png(claim.input.width, claim.input.height);
            let artifact = Artifact {
                key: format!("{folder}/out-{index}.png"),
                content_type: "image/png".to_owned(),
                width: claim.input.width,
                height: claim.input.height,
                bytes: png.len() as u64,
                seed,
                safety: None,
            };
            self.artifacts.put(&artifact.key, png).await.unwrap();
            output.push(artifact);
        }
        self.end(claim, Outcome::Succeeded { output, device_time }).await;
    }

    /// Ends a claimed prediction.
    pub(crate) async fn end(&self, claim: &Claim, outcome: Outcome) {
        self.store.finish(claim, &outcome, &claim.logs).await.unwrap();
    }

    /// Runs the next prediction from claim to finish.
    pub(crate) async fn run_one(&self) {
        let claim = self.claim().await;
        self.finish(&claim).await;
    }

    /// Says what a worker says of itself.
    pub(crate) async fn report_worker(&self, phase: Phase, percent: i16) {
        let worker = WorkerRecord {
            id: Uuid::from_u128(1),
            models: vec![MODEL.to_owned()],
            device: "test".to_owned(),
            host: "here".to_owned(),
            phase,
            percent,
            picture: None,
        };
        self.store.report_worker(&worker).await.unwrap();
    }

    /// Returns when this many predictions are waited for.
    pub(crate) async fn until_watched(&self, predictions: usize) {
        eventually("the clients wait", async || self.store.changes().watched_predictions() == predictions).await;
    }

    /// Shuts down in the order the program does, and returns when no connection is left.
    pub(crate) async fn shut_down(mut self) {
        self.service.drain(async {}).await;
        self.closing.cancel();
        tokio::time::timeout(PATIENCE, &mut self.server).await.expect("the server ends").unwrap();
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        // Their connections would keep the test's database from being removed.
        self.server.abort();
        self.spreading.abort();
    }
}

pub(crate) async fn json(response: Response) -> Value {
    response.json().await.unwrap()
}

pub(crate) fn id(document: &Value) -> String {
    document["id"].as_str().unwrap().to_owned()
}

/// Looks again and again until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How many statements like this one wait for a lock in the test's database.
pub(crate) async fn waiting_for_a_lock(connection: &mut PgConnection, like: &str) -> i64 {
    // What others do is looked at once in a transaction, unless it is asked for anew.
    sqlx::query("select pg_stat_clear_snapshot()").execute(&mut *connection).await.unwrap();
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and query like $1",
    )
    .bind(like)
    .fetch_one(connection)
    .await
    .unwrap()
}

pub(crate) fn black_png(width: u32, height: u32) -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    RgbImage::new(width, height).write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
}

/// A bucket that a test answers for.
pub(crate) fn bucket_at(listener: &TcpListener) -> Artifacts {
    let (id, secret) = ("id".to_owned(), "secret".to_owned());
    Artifacts::in_bucket(&Bucket {
        name: "pictures".to_owned(),
        prefix: String::new(),
        endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
        region: "us-east-1".to_owned(),
        credentials: Some(Credentials { id, secret, token: None }),
    })
    .unwrap()
}

/// Lets updates of a table fail as those that are chosen to end a deadlock.
pub(crate) async fn deadlock_when(pool: &PgPool, table: &str, condition: &str) {
    let rule = format!(
        "create function deadlock() returns trigger language plpgsql as $$ begin
             raise exception 'a deadlock' using errcode = 'deadlock_detected';
         end $$;
         create trigger deadlock before update on {table} for each row when ({condition}) execute function deadlock()"
    );
    sqlx::raw_sql(AssertSqlSafe(rule)).execute(pool).await.unwrap();
}
