//! The connections that statements run on: sqlx's pool, and an end to every wait.
//!
//! The pool leaves it to TCP to find out that a line is cut. Here each statement has a deadline beside the one that the database
//! keeps, and a connection that was given up is closed instead of going back: the pool would wait for its answer.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{
    StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Describe, Either, Error, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    pool::PoolConnection,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use super::pulse::{Pulse, promptly};

/// Beyond what the database allows a statement.
const MARGIN: Duration = Duration::from_secs(5);

/// Where statements run. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pool: PgPool,
    pulse: Pulse,
    patience: Duration,
    /// Those who wait for one.
    waiters: Arc<AtomicUsize>,
    /// Whether none is lent.
    shut: Arc<AtomicBool>,
}

/// Somebody who waits for a connection, until dropped.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn among(waiters: &'a AtomicUsize) -> Self {
        waiters.fetch_add(1, Relaxed);
        Self(waiters)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Connections {
    /// Those of a pool, where the database allows statements this long.
    pub(super) fn new(pool: PgPool, pulse: Pulse, statement_timeout: Duration) -> Self {
        Self { pool, pulse, patience: statement_timeout + MARGIN, waiters: Arc::default(), shut: Arc::default() }
    }

    /// The pool itself, for what is no statement.
    pub(super) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Lends none until [`Self::open`].
    pub(super) fn shut(&self) {
        self.shut.store(true, Relaxed);
    }

    /// Lends them to whoever asks.
    pub(super) fn open(&self) {
        self.shut.store(false, Relaxed);
    }

    /// Whether none is lent.
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Relaxed)
    }

    /// A connection for more than one statement, to be given back with [`Lent::answered`].
    pub(super) async fn lend(&self) -> Result<Lent, Error> {
        if self.is_shut() {
            return Err(io::Error::other("the schema has not been brought up to date yet").into());
        }
        self.lend_anyway().await
    }

    /// The same, also while none is lent.
    pub(super) async fn lend_anyway(&self) -> Result<Lent, Error> {
        let _waiter = Waiter::among(&self.waiters);
        Ok(Lent { connection: Some(self.pool.acquire().await?) })
    }

    /// How many wait for a connection at this moment.
    pub(super) fn waiters(&self) -> usize {
        self.waiters.load(Relaxed)
    }

    /// What comes of work with the database, if it comes in time.
    pub(super) async fn awaited<T, E: From<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.pulse.unless_silent(self.patience, work).await
    }
}

/// A connection of the pool, in the hands of who waits for an answer.
pub(super) struct Lent {
    /// `None` only while dropping.
    connection: Option<PoolConnection<Postgres>>,
}

impl Lent {
    /// Gives it back; what was asked on it was answered.
    pub(super) fn answered(mut self) {
        drop(self.connection.take());
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("not dropped")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("not dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // Who asked has given up, a client that is gone or patience that is over, or the database has refused it. An answer that
        // is just coming is read, and the connection stays; else it is closed, and so is one to a server that only reads by now:
        // it was primary once, and a new connection may find the one that is.
        runtime.spawn(async move {
            let reads_only = sqlx::query_scalar("select current_setting('transaction_read_only')::bool");
            if !matches!(promptly(reads_only.fetch_one(&mut *connection)).await, Ok(false)) {
                drop(connection.detach());
            }
        });
    }
}

impl<'p> Executor<'p> for &'_ Connections {
    type Database = Postgres;

    /// All at once: no result here is larger than memory, and a connection that is waited for must not wait for a reader.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        let results = async move {
            let mut lent = connections.lend().await?;
            let results: Vec<_> = connections.awaited(lent.fetch_many(query).try_collect()).await?;
            lent.answered();
            Ok::<_, Error>(stream::iter(results).map(Ok))
        };
        stream::once(results).try_flatten().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut lent = connections.lend().await?;
            let row = connections.awaited(lent.fetch_optional(query)).await?;
            lent.answered();
            Ok(row)
        })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut lent = connections.lend().await?;
            let statement = connections.awaited(lent.prepare_with(sql, parameters)).await?;
            lent.answered();
            Ok(statement)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let connections = self.clone();
        Box::pin(async move {
            let mut lent = connections.lend().await?;
            let described = connections.awaited(lent.describe(sql)).await?;
            lent.answered();
            Ok(described)
        })
    }
}
