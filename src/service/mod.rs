//! The only door for HTTP: create, get, list, wait for and cancel predictions.
//!
//! It decides what a request means and leaves what it says to `wire` and what it does to `store`. Waiting holds no
//! database connection. Workers are never called from here: they find the row.

pub mod admission;
mod cache;
mod create;
mod error;
mod estimate;
pub mod files;
mod follow;
mod held;
mod operator;
mod places;
mod request;
pub mod scrape;
pub mod shared_files;
mod start_image;
mod strangers;
mod usage;
mod webhooks;

use std::{ops::Range, sync::Arc, time::Duration};

use futures_util::stream::BoxStream;
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    artifacts::{self, Artifacts, StoredFile},
    domain::{ApiKey, Caller, Catalog, Model, Prediction, PredictionId, QueuePlace, Scope, Shortage, Status, median},
    fetch::Fetcher,
    store::{self, Mark, Store, StoredKey, Subscription},
};

pub use self::create::{CreateRequest, Created};
pub use self::error::Error;
pub use self::estimate::{Basis, Estimate};
pub use self::follow::{Follow, Sight};
pub use self::held::Held;
pub use self::request::{current_request, for_request, keep_for_body};
use self::{
    admission::Admission,
    cache::Cache,
    files::{AllReceiving, UploadLimits},
    held::Holding,
    places::Places,
    scrape::Scrape,
    strangers::Strangers,
};
pub use crate::store::{Cursor, ListFilter};

/// How long a looked-up key is believed; so long may a revoked one still work.
const KEY_CACHE: Duration = Duration::from_secs(4);
/// How long an account that was full is believed to be.
const FULL_CACHE: Duration = Duration::from_secs(1);
/// How long a measured run time is believed.
const RUN_TIME_CACHE: Duration = Duration::from_secs(5);
/// How long the readiness that was seen is shown: anybody may ask for it, as often as they like.
const READINESS_CACHE: Duration = Duration::from_millis(250);
/// Where counting ends: a list as long as this is paged through by nobody.
const MOST_COUNTED: u32 = 10_000;

/// Everything a face may do. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PredictionService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    artifacts: Artifacts,
    catalog: Catalog,
    admission: Admission,
    holding: Holding,
    keys: Cache<String, StoredKey>,
    /// Of no key that can be used. By themselves, so that made-up ones do not take the room of those.
    unknown_keys: Cache<String, ()>,
    /// Accounts that have all predictions in flight that they may.
    full: Cache<i64, Shortage>,
    run_times: Cache<String, Duration>,
    decoding: Places,
    fetching: Places,
    fetcher: Fetcher,
    scrape: Scrape,
    uploads: UploadLimits,
    receiving: AllReceiving,
    strangers: Strangers,
    /// As it was a moment ago. Of those who ask at once one looks, and the others wait for what it sees.
    readiness: Mutex<Option<(Instant, Readiness)>>,
    draining: CancellationToken,
}

/// How many there are of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// As far as it was worth counting.
    pub counted: u64,
    /// Whether there are more.
    pub has_more: bool,
}

/// How ready the server is to run predictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether a prediction made now will be run.
    pub ready: bool,
    /// What it is doing: `database`, `migrating`, `no_worker`, `loading`, `warming_up`, `ready`, `draining`.
    pub phase: String,
    /// How far it is with that, 0 to 100.
    pub percent: i16,
}

impl Readiness {
    fn not_yet(phase: &str) -> Self {
        Self { ready: false, phase: phase.to_owned(), percent: 0 }
    }
}

type Result<T, E = Error> = std::result::Result<T, E>;

impl PredictionService {
    /// A service over these. When `draining` is canceled, everybody who can come back is answered with what there is.
    pub fn new(
        store: Store,
        artifacts: Artifacts,
        catalog: Catalog,
        fetcher: Fetcher,
        limits: admission::Limits,
        uploads: UploadLimits,
        draining: CancellationToken,
    ) -> Self {
        let (keys, unknown_keys) = (Cache::new(KEY_CACHE), Cache::new(KEY_CACHE));
        let run_times = Cache::new(RUN_TIME_CACHE);
        let decoding = Places::new(start_image::DECODED_AT_ONCE, start_image::PATIENCE);
        let fetching = Places::new(start_image::FETCHED_AT_ONCE, start_image::PATIENCE);
        let (admission, full) = (Admission::new(limits), Cache::new(FULL_CACHE));
        let holding = Holding::new(limits.max_held, draining.clone());
        let scrape = Scrape::new(store.clone());
        let strangers = Strangers::new(store.connections());
        let shared = Shared {
            store,
            artifacts,
            catalog,
            admission,
            holding,
            keys,
            unknown_keys,
            full,
            run_times,
            decoding,
            fetching,
            fetcher,
            scrape,
            uploads,
            receiving: AllReceiving::default(),
            strangers,
            readiness: Mutex::default(),
            draining,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who answers scrapes of this process's metrics.
    pub fn scrape(&self) -> Scrape {
        self.shared.scrape.clone()
    }

    /// The models callers can name.
    pub fn catalog(&self) -> &Catalog {
        &self.shared.catalog
    }

    /// Who the bearer of this key is.
    pub async fn authenticate(&self, key: &str) -> Result<Caller> {
        let key = ApiKey::parse(key).map_err(|_| Error::Unauthorized)?;
        let Shared { keys, unknown_keys, .. } = &*self.shared;
        let stored = match keys.get(key.lookup()) {
            Some(stored) => stored,
            None if unknown_keys.get(key.lookup()).is_some() => return Err(Error::Unauthorized),
            // In a box of its own: what a read needs is not kept in every request that waits.
            None => Box::pin(self.clone().find_key(key.lookup().to_owned())).await?,
        };
        stored.caller(&key).ok_or(Error::Unauthorized)
    }

    async fn find_key(self, lookup: String) -> Result<StoredKey> {
        // Others share the question, and their clients may stay.
        complete(async move {
            let Shared { store, keys, unknown_keys, .. } = &*self.shared;
            match store.find_key(&lookup).await? {
                Some(stored) => {
                    keys.put(lookup, stored.clone());
                    Ok(stored)
                }
                None => {
                    unknown_keys.put(lookup, ());
                    Err(Error::Unauthorized)
                }
            }
        })
        .await
    }

    /// Whether the caller may make a request of this kind, which counts. Asks no database.
    pub fn admit(&self, caller: Caller, scope: Scope, kind: admission::Kind) -> Result<()> {
        if !caller.scopes.contains(scope) {
            return Err(Error::Forbidden(scope));
        }
        self.shared.admission.check_rate(caller, kind)?;
        match self.shared.full.get(&caller.account_id) {
            Some(shortage) if kind == admission::Kind::Create => Err(Error::TooManyInFlight(shortage)),
            _ => Ok(()),
        }
    }

    /// The name of the caller's account.
    pub async fn account_name(&self, caller: Caller) -> Result<String> {
        self.shared.store.account_name(caller.account_id).await?.ok_or(Error::Unauthorized)
    }

    /// A prediction as it is now.
    pub async fn get(&self, caller: Caller, id: PredictionId) -> Result<Prediction> {
        self.shared.store.get(caller.account_id, id).await?.ok_or(Error::NotFound)
    }

    /// A prediction as it is when it is terminal, or after `patience`, or when the server shuts down.
    pub async fn wait(&self, caller: Caller, id: PredictionId, patience: Duration) -> Result<Prediction> {
        let deadline = Instant::now() + patience;
        // Subscribed before the first look: what changes after it will wake us.
        let subscription = self.shared.store.changes().subscribe(id);
        {
            let prediction = self.look(caller, id, &subscription).await?;
            if prediction.status.is_terminal() || patience.is_zero() || self.shared.draining.is_cancelled() {
                return Ok(prediction);
            }
        }
        // Not before: what is answered at once needs no place.
        let held = self.hold(caller)?;
        self.until_over(&held, id, subscription, deadline).await
    }

    /// The same of one that was seen not to be terminal after this mark: the first look has been had.
    pub async fn wait_since(
        &self,
        held: &Held,
        id: PredictionId,
        mark: Mark,
        patience: Duration,
    ) -> Result<Prediction> {
        let subscription = self.shared.store.changes().subscribe_since(id, mark);
        self.until_over(held, id, subscription, Instant::now() + patience).await
    }

    async fn until_over(
        &self,
        held: &Held,
        id: PredictionId,
        mut subscription: Subscription,
        deadline: Instant,
    ) -> Result<Prediction> {
        loop {
            tokio::select! {
                () = subscription.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = held.let_go() => {}
            }
            // Whatever ends the wait, it is looked at afresh: it may have been claimed meanwhile.
            let prediction = self.look(held.caller, id, &subscription).await?;
            if prediction.status.is_terminal() || Instant::now() >= deadline || held.is_let_go() {
                return Ok(prediction);
            }
        }
    }

    async fn look(&self, caller: Caller, id: PredictionId, subscription: &Subscription) -> Result<Prediction> {
        match subscription.ended().filter(|ended| ended.account_id == caller.account_id) {
            Some(ended) => Ok(Prediction::clone(&ended)),
            // In a box of its own, so that what a read needs is not kept while ten thousand wait.
            None => Box::pin(self.get(caller, id)).await,
        }
    }

    /// Follows a prediction until it is terminal.
    pub async fn follow(&self, held: Held, id: PredictionId) -> Result<Follow> {
        // Subscribed before the first look at it.
        let follow = self.follow_unseen(held, id);
        self.get(follow.held.caller, id).await?;
        Ok(follow)
    }

    /// The same of one that is known to be there.
    pub fn follow_unseen(&self, held: Held, id: PredictionId) -> Follow {
        let subscription = self.shared.store.changes().subscribe_progress(id);
        Follow { service: self.clone(), held, id, subscription, pause: Duration::ZERO }
    }

    /// The caller's predictions, newest first.
    pub async fn list(&self, caller: Caller, filter: &ListFilter) -> Result<Vec<Prediction>> {
        Ok(self.shared.store.list(caller.account_id, filter).await?)
    }

    /// How many predictions the caller has that a filter lets through, whatever its place and limit.
    pub async fn count(&self, caller: Caller, filter: &ListFilter) -> Result<Count> {
        let counted = self.shared.store.count(caller.account_id, filter, MOST_COUNTED + 1).await?;
        let has_more = counted > u64::from(MOST_COUNTED);
        Ok(Count { counted: counted.min(MOST_COUNTED.into()), has_more })
    }

    /// Cancels a prediction; a terminal one stays as it is.
    pub async fn cancel(&self, caller: Caller, id: PredictionId) -> Result<Prediction> {
        let service = self.clone();
        complete(async move {
            let canceled = service.shared.store.request_cancel(caller.account_id, id).await?.ok_or(Error::NotFound)?;
            service.shared.forget_image(&canceled);
            Ok(canceled)
        })
        .await
    }

    /// Where a queued prediction stands; `None` for one that is not queued.
    pub async fn queue_place(&self, prediction: &Prediction) -> Result<Option<QueuePlace>> {
        if prediction.status != Status::Queued {
            return Ok(None);
        }
        let run = self.typical_run(&prediction.model).await?;
        Ok(Some(self.shared.store.queue_place(prediction, run).await?))
    }

    /// How long a run of a model takes here: measured, or the catalog's figure until there are measurements.
    pub async fn typical_run(&self, slug: &str) -> Result<Duration> {
        if let Some(run) = self.shared.run_times.get(slug) {
            return Ok(run);
        }
        let runs = self.shared.store.latest_runs(slug).await?;
        let measured = median(runs.into_iter().map(|(_, time)| time));
        let run =
            measured.or_else(|| self.shared.catalog.by_slug(slug).map(Model::average_run)).unwrap_or(Duration::ZERO);
        self.shared.run_times.put(slug.to_owned(), run);
        Ok(run)
    }

    /// How long a run takes as far as it is known without asking.
    fn known_run(&self, model: &Model) -> Duration {
        self.shared.run_times.get(model.slug.as_str()).unwrap_or_else(|| model.average_run())
    }

    /// Finds a stored output. Whoever knows its key may read it.
    pub async fn find_output(&self, key: &str) -> Result<StoredFile> {
        self.shared.artifacts.find(key).await?.ok_or(Error::NotFound)
    }

    /// Reads some bytes of a stored output.
    pub async fn read_output(
        &self,
        file: &StoredFile,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Vec<u8>, artifacts::Error>>> {
        Ok(self.shared.artifacts.read(file, range).await?)
    }

    /// Whether a prediction made now will be run, and if not, why.
    pub async fn readiness(&self) -> Readiness {
        if self.shared.draining.is_cancelled() {
            return Readiness::not_yet("draining");
        }
        let mut seen = self.shared.readiness.lock().await;
        if let Some((since, readiness)) = &*seen
            && since.elapsed() < READINESS_CACHE
        {
            return readiness.clone();
        }
        let readiness = self.look_whether_ready().await;
        *seen = Some((Instant::now(), readiness.clone()));
        readiness
    }

    async fn look_whether_ready(&self) -> Readiness {
        let store = &self.shared.store;
        if !store.is_migrated() {
            return Readiness::not_yet(if store.ping().await.is_ok() { "migrating" } else { "database" });
        }
        match store.readiest_worker().await {
            Ok(Some((phase, percent))) => Readiness { ready: phase == store::Phase::Ready.as_str(), phase, percent },
            Ok(None) => Readiness::not_yet("no_worker"),
            Err(_) => Readiness::not_yet("database"),
        }
    }
}

/// Runs work to its end even if the client hangs up meanwhile: axum drops a handler's future, not a task.
async fn complete<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work.in_current_span()).await.map_err(|panic| Error::Internal(panic.into()))?
}

fn internal(error: getrandom::Error) -> Error {
    Error::Internal(error.into())
}

fn random_seed() -> std::result::Result<u32, getrandom::Error> {
    getrandom::u32()
}
