//! Which database the program uses: the one it is given, or a private one of its own.

use std::time::Duration;

use anyhow::Context;

use crate::{
    config::Config,
    metrics,
    postgres::{self, PrivateCluster},
    store::{self, Store},
};

/// Between attempts to reach a database that does not answer yet.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// The store, and the cluster under it when it is ours.
pub(super) struct Database {
    store: Store,
    private: Option<PrivateCluster>,
}

impl Database {
    /// The database of `database.url`, or else the private cluster of the data folder, which is started.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let Some(url) = &config.database.url else {
            let cluster = PrivateCluster::start(&config.data.dir, postgres::Options::default()).await?;
            metrics::watch_disk("database", &cluster.cluster_folder());
            let store = connect(config, cluster.url())?;
            return Ok(Self { store, private: Some(cluster) });
        };
        Ok(Self { store: connect(config, url.expose())?, private: None })
    }

    /// The database of `database.url`, or else the private cluster that another process runs on the data folder.
    pub(super) fn join(config: &Config) -> anyhow::Result<Self> {
        let url = match &config.database.url {
            Some(url) => url.expose().to_owned(),
            None => postgres::running_url(&config.data.dir).context(
                "a worker needs a database: set DATABASE_URL, or run it beside `fourstep serve` on the same data folder",
            )?,
        };
        Ok(Self { store: connect(config, &url)?, private: None })
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    /// Whether nobody but this process and workers beside it can reach it.
    pub(super) const fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// For the start's summary.
    pub(super) fn in_words(&self) -> String {
        match &self.private {
            Some(cluster) => format!("private Postgres in {}", cluster.cluster_folder().display()),
            None => "Postgres of DATABASE_URL".to_owned(),
        }
    }

    /// Returns when the private cluster has ended by itself. A database of somebody else's may come back.
    pub(super) async fn lost(&self) -> anyhow::Error {
        match &self.private {
            Some(cluster) => cluster.exited().await.into(),
            None => std::future::pending().await,
        }
    }

    /// Closes the pool, and stops the cluster if it is ours.
    pub(super) async fn close(self) {
        self.store.close().await;
        if let Some(cluster) = self.private {
            cluster.stop().await;
        }
    }
}

/// Brings the schema up to date, as soon as the database answers.
pub(super) async fn migrate(store: &Store) -> anyhow::Result<()> {
    loop {
        match store.migrate().await {
            Ok(()) => return Ok(()),
            Err(error @ store::Error::Unavailable(_)) => tracing::warn!(%error, "Waiting for the database"),
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// A store that does nothing before [`migrate`] has returned.
fn connect(config: &Config, url: &str) -> store::Result<Store> {
    let settings = store::Settings {
        url: url.to_owned(),
        pool_size: config.database.pool_size,
        acquire_timeout: config.database.acquire_timeout,
        statement_timeout: config.database.statement_timeout,
        seal: config.webhooks.key.as_ref().map(|key| store::Seal::with_key(key.expose())).unwrap_or_default(),
    };
    Ok(Store::connect(&settings)?.until_migrated())
}
