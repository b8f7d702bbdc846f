//! The database a short command works on: the configured one, or the private one of the data folder.

use anyhow::{Context, Result, bail};
use fourstep::{
    config::Config,
    postgres::{self, PrivateCluster},
    store::{Seal, Settings, Store},
};

use super::{block_on, logging, options::Place};

/// An open database, to be closed with `close`.
pub(crate) struct Database {
    store: Store,
    /// Started for this command, because no server runs on the data folder.
    started: Option<PrivateCluster>,
}

/// Does something with the migrated database of a place, and closes it, however that went.
pub(crate) fn with_store<T>(place: &Place, work: impl AsyncFnOnce(&Store) -> Result<T>) -> Result<T> {
    let config = place.load(Vec::new())?;
    logging::start()?;
    block_on(async {
        let database = Database::open_migrated(&config).await?;
        let result = work(&database.store).await;
        database.close().await;
        result
    })
}

impl Database {
    /// Opens the database; starts the private one for as long as the command takes, if it does not run.
    pub(crate) async fn open(config: &Config) -> Result<Self> {
        let (url, started) = match &config.database.url {
            Some(url) => (url.expose().to_owned(), None),
            None => match postgres::running_url(&config.data.dir) {
                Ok(url) => (url, None),
                Err(postgres::Error::NotRunning { .. }) => {
                    let cluster = PrivateCluster::start(&config.data.dir, postgres::Options::default()).await?;
                    (cluster.url().to_owned(), Some(cluster))
                }
                Err(error) => return Err(error.into()),
            },
        };
        match connect(config, &url).await {
            Ok(store) => Ok(Self { store, started }),
            Err(error) => {
                if let Some(cluster) = started {
                    cluster.stop().await;
                }
                Err(error)
            }
        }
    }

    /// Opens a database that the command needs migrated. Only a private one is migrated on the way: another's schema
    /// is changed when its owner says so. None is made: what is done in a new one is not done where somebody meant it to be.
    async fn open_migrated(config: &Config) -> Result<Self> {
        if config.database.url.is_none() && !postgres::is_there(&config.data.dir) {
            bail!(
                "there is no database in {}; name the server's folder (--data-dir, FOURSTEP_DATA__DIR) or database \
                 (DATABASE_URL), or make one there with `fourstep serve` or `fourstep migrate`",
                config.data.dir.display()
            );
        }
        let database = Self::open(config).await?;
        let ready = async {
            match database.started {
                Some(_) => database.store.migrate().await?,
                None if database.store.pending_migrations().await? > 0 => {
                    bail!("the database's schema is older than this program; run `fourstep migrate`")
                }
                None => {}
            }
            Ok(())
        };
        match ready.await {
            Ok(()) => Ok(database),
            Err(error) => {
                database.close().await;
                Err(error)
            }
        }
    }

    /// Its statements.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Ends the connection, and the private database with it if it was started for this command.
    pub(crate) async fn close(self) {
        self.store.close().await;
        if let Some(cluster) = self.started {
            cluster.stop().await;
        }
    }
}

/// A connection for a handful of statements.
pub(crate) async fn connect(config: &Config, url: &str) -> Result<Store> {
    let settings = Settings {
        url: url.to_owned(),
        pool_size: 1,
        acquire_timeout: config.database.acquire_timeout,
        statement_timeout: config.database.statement_timeout,
        seal: Seal::default(),
    };
    let store = Store::connect(&settings)?;
    store.try_connection().await.context("could not connect to the database")?;
    Ok(store)
}
