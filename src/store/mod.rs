//! Every SQL statement of the program, and the news of what they changed.
//!
//! A function is named by the verb of the domain and is one statement where that is possible; the table's own
//! constraints (`migrations/`) stand behind each. Nothing here waits for anything but the database.
//!
//! ```text
//! for the service
//!   create           makes predictions: several in one statement, in the order of `turns`
//!   predictions      reads, lists and cancels them, as their owners meet them
//!   uploads          files that clients bring
//!   keys, accounts   who may ask, and who pays
//!   usage            what was used, added up
//!   webhooks         what was told to receivers and is told again; `redelivery` for operators
//! for workers
//!   queue            claims, renews and hands back
//!   finish           ends what was run
//!   sweep            takes what lost workers had, ends what is late
//!   workers          says who lives
//!   chores           regular work that one does for all
//! for both
//!   changes          news of predictions, with `recent` for those who come late
//!   progress         of running predictions
//!   outbox, settle   webhooks that are due, and what came of telling them
//!   queue_facts, run_times   figures for whoever watches or guesses
//! under them
//!   ended            the end of every statement that ends predictions
//!   durable          when what was written is safe
//!   ledger, audit    money, and whether the books add up
//!   seal             how secrets are kept
//!   connections      what statements run on
//!   pulse            tells when the database has fallen silent
//!   batcher          callers share a statement that is about something of each
//!   single_flight    callers share an answer that is the same for all
//!   per_key          either of them for each key
//! ```

mod accounts;
mod audit;
mod batcher;
mod changes;
mod chores;
mod connections;
mod create;
mod durable;
mod ended;
mod finish;
mod keys;
mod ledger;
mod outbox;
mod per_key;
mod predictions;
mod progress;
mod pulse;
mod queue;
mod queue_facts;
mod recent;
mod redelivery;
mod run_times;
mod seal;
mod settle;
mod single_flight;
mod sweep;
mod turns;
mod uploads;
mod usage;
mod webhooks;
mod workers;

use std::{
    borrow::Cow,
    io::ErrorKind,
    str::FromStr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use self::{
    batcher::Batcher,
    connections::Connections,
    create::{Created, Entry},
    durable::Durability,
    finish::{End, Ended},
    per_key::PerKey,
    predictions::Reads,
    pulse::{HEARTBEAT, Pulse, promptly},
    settle::Settlement,
    turns::Turns,
};
use crate::domain::{Shortage, UnknownWord};

pub use audit::{Audit, Finding};
pub use changes::{Audience, Changes, Subscription};
pub use keys::StoredKey;
pub use outbox::DueWebhook;
pub use predictions::{Cursor, ListFilter};
pub use queue::{Claim, Renewal};
pub use recent::Mark;
pub use redelivery::GivenUp;
pub use seal::Seal;
pub use settle::{WebhookAttempt, WebhookVerdict};
pub use sweep::Swept;
pub use uploads::{Room, Writing};
pub use workers::{Phase, SeenWorker, WorkerRecord, WorkerSession};

/// `migrations/`, built into the program. Others may have been applied: while a site is upgraded, this version starts beside
/// a newer one, whose migrations leave it everything it knows.
static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!();
    migrations.set_ignore_missing(true);
    migrations
});

/// For how long after its last use a connection is taken for alive.
const BELIEVED: Duration = Duration::from_secs(1);
/// How long it may take to prove that it is.
const PROOF: Duration = Duration::from_secs(2);
/// How long a statement of a test's store may run.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How the database finds out that a client is gone that could not say so, and frees its locks and its place: after 25 s
/// of silence, or 20 s of answers that do not arrive. Nothing of it applies to a unix socket.
const MISS_US: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20000"),
];

/// The database, and the process's ear and mouth for changes in it.
#[derive(Clone, Debug)]
pub struct Store {
    pool: Connections,
    options: PgConnectOptions,
    pulse: Pulse,
    changes: Changes,
    turns: Turns,
    durability: Durability,
    key_finds: Batcher<String, Option<StoredKey>>,
    creates: PerKey<i64, Batcher<Entry, Created>>,
    ends: Batcher<End, Ended>,
    settlements: Batcher<Settlement, bool>,
    reads: Reads,
    seal: Seal,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `postgres://…`.
    pub url: String,
    /// Connections kept open and warm; the listener, the notifier and the workers' session come on top.
    pub pool_size: u32,
    /// How long a request may wait for a free connection.
    pub acquire_timeout: Duration,
    /// How long one statement may run.
    pub statement_timeout: Duration,
    /// How secrets are kept.
    pub seal: Seal,
}

/// What can go wrong with a statement. Those who have shared one are told the same. The texts tell the causes, so that a
/// line of the log has them all; a chain of sources would tell each again, since sqlx's texts have theirs as well.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The claim was taken away: its lease ran out, its worker was thought dead, or the prediction ended. The result
    /// at hand must be dropped.
    #[error("the lease on this attempt was lost")]
    LeaseLost,
    /// A row holds a word this version does not know.
    #[error("a stored row cannot be read: {0}")]
    Unreadable(String),
    /// A secret cannot be kept, or read again.
    #[error("a secret could not be used: {0}")]
    Unsealable(&'static str),
    /// The database cannot be reached or is overloaded; trying again later may help.
    #[error("the database is unavailable: {0}")]
    Unavailable(Arc<sqlx::Error>),
    /// The account or the key may not spend what was to be spent.
    #[error(transparent)]
    Refused(Shortage),
    /// A statement would have gone over a limit and has changed nothing.
    #[error("over a limit")]
    OverLimit,
    /// Anything else the database says.
    #[error("the database refused a statement: {0}")]
    Database(Arc<sqlx::Error>),
    /// The schema could not be brought up to date.
    #[error("the database could not be migrated: {0}")]
    Migrate(Arc<MigrateError>),
}

impl Error {
    /// Trying again may help. The database may have done it or not.
    fn unknown(why: &str) -> Self {
        sqlx::Error::Io(std::io::Error::other(why.to_owned())).into()
    }

    /// Whether the database has answered that nothing was done, for a reason that may lie in one of several rows: a
    /// constraint, a limit, a deadlock. One that is itself in trouble would say the same of each.
    fn may_be_of_one(&self) -> bool {
        match self {
            Self::OverLimit => true,
            Self::Database(error) => error.as_database_error().is_some(),
            Self::Unavailable(error) => code(error).is_some_and(|code| code.starts_with(UNDONE)),
            _ => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let is_over_limit = |database: &dyn sqlx::error::DatabaseError| {
            database.code().as_deref() == Some("FS402") || database.constraint() == Some("balance_covers_holds")
        };
        if error.as_database_error().is_some_and(is_over_limit) {
            return Self::OverLimit;
        }
        let is_passing = is_passing(&error) || is_ahead(&error);
        let error = Arc::new(error);
        if is_passing { Self::Unavailable(error) } else { Self::Database(error) }
    }
}

/// The class of what the database undid because of others: deadlocks.
const UNDONE: &str = "40";

/// What the database calls an error, if it is one of its own.
fn code(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error().and_then(|database| database.code())
}

/// Whether trying again later may help. Classes 53 (out of resources), 57 (shutting down, statement timeout), 08 (connection)
/// and 40 (deadlock) pass by themselves, and so does a server that only reads (25006, or 0A000 where a table is not logged):
/// after a failover connections may lead to the old one for a while.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => {
            let is_standby = |code: &str| code == "0A000" && database.message().contains("during recovery");
            database.code().is_some_and(|code| {
                ["53", "57", "08", UNDONE, "25006"].iter().any(|class| code.starts_with(class)) || is_standby(&code)
            })
        }
        _ => false,
    }
}

/// Whether a table, column or function is not there yet: a server answers while it or another one brings the schema up to date.
fn is_ahead(error: &sqlx::Error) -> bool {
    code(error).is_some_and(|code| ["42P01", "42703", "42883"].contains(&&*code))
}

impl From<UnknownWord> for Error {
    fn from(unknown: UnknownWord) -> Self {
        Self::Unreadable(unknown.to_string())
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        // Somebody who cancels a migration (57014) does not want it begun again.
        let is_canceled = |error: &sqlx::Error| code(error).as_deref() == Some("57014");
        match error {
            MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _)
                if is_passing(&inner) && !is_canceled(&inner) =>
            {
                Self::Unavailable(Arc::new(inner))
            }
            other => Self::Migrate(Arc::new(other)),
        }
    }
}

/// The result of a statement.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Store {
    /// Opens a pool, which connects by itself; a database that is down may come up later.
    pub fn connect(settings: &Settings) -> Result<Self> {
        let options = PgConnectOptions::from_str(&settings.url)?.application_name("fourstep").options([
            ("statement_timeout", format!("{}ms", settings.statement_timeout.as_millis())),
            // A transaction left open by a bug would hold back vacuum and with it the whole queue.
            ("idle_in_transaction_session_timeout", "30s".to_owned()),
        ]);
        let options = options.options(MISS_US);
        let pool = PgPoolOptions::new()
            // A pool that shrinks and grows pays for connections exactly when it is busy.
            .min_connections(settings.pool_size)
            .max_connections(settings.pool_size)
            .acquire_timeout(settings.acquire_timeout)
            // A ping before every statement would double their number. One that was used a moment ago is believed; should
            // its database be gone since, the statement says so.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for <= BELIEVED {
                        return Ok(true);
                    }
                    let proof = tokio::time::timeout(PROOF, connection.ping()).await;
                    proof.unwrap_or_else(|_| Err(sqlx::Error::PoolTimedOut)).map(|()| true)
                })
            })
            .connect_lazy_with(options.clone());
        Ok(Self { seal: settings.seal.clone(), ..Self::over(pool, options, settings.statement_timeout) })
    }

    /// A store over an existing pool: for tests, which get a database each.
    pub fn with_pool(pool: PgPool) -> Self {
        let options = (*pool.connect_options()).clone();
        Self::over(pool, options, STATEMENT_TIMEOUT)
    }

    /// Refuses every statement as [`Error::Unavailable`] until [`Self::migrate`] has returned: what is written by a
    /// schema that is behind could not be told of.
    pub fn until_migrated(self) -> Self {
        self.pool.shut();
        self
    }

    /// Whether it does so no longer.
    pub fn is_migrated(&self) -> bool {
        !self.pool.is_shut()
    }

    fn over(pool: PgPool, options: PgConnectOptions, statement_timeout: Duration) -> Self {
        let pulse = Pulse::default();
        let pool = Connections::new(pool, pulse.clone(), statement_timeout);
        let (changes, turns, seal) = (Changes::default(), Turns::default(), Seal::default());
        let (key_finds, creates) = (Batcher::default(), PerKey::default());
        let (ends, settlements) = (Batcher::default(), Batcher::default());
        let (durability, reads) = (Durability::default(), Reads::default());
        Self { pool, options, pulse, changes, turns, durability, key_finds, creates, ends, settlements, reads, seal }
    }

    /// How many connections statements share.
    pub fn connections(&self) -> u32 {
        self.pool.pool().options().get_max_connections()
    }

    /// Connects once, outside the pool. The pool repeats a refused connection until its patience ends and then tells
    /// only that; this tells why.
    pub async fn try_connection(&self) -> Result<()> {
        Ok(self.connected(&self.options).await?.close().await?)
    }

    /// Opens a connection outside the pool, waiting no longer than the pool's own acquire timeout.
    async fn connected(&self, options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
        let patience = self.pool.pool().options().get_acquire_timeout();
        tokio::time::timeout(patience, options.connect()).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    /// A connection outside the pool whose statements may take as long as they need.
    async fn patient_connection(&self) -> Result<PgConnection, sqlx::Error> {
        self.connected(&self.options.clone().options([("statement_timeout", "0")])).await
    }

    /// Brings the schema up to date. Safe to run from several processes at once. [`Error::Unavailable`] if the database
    /// could not be reached or was lost on the way: then it may be tried again.
    pub async fn migrate(&self) -> Result<()> {
        // An index of a large table may take its time, and so may another process's migration.
        let migrating = async {
            let mut connection = self.patient_connection().await?;
            MIGRATIONS.run(&mut connection).await?;
            Ok::<_, Error>(connection.close().await?)
        };
        self.as_long_as_it_takes(migrating).await?;
        self.pool.open();
        Ok(())
    }

    /// The answer to something that may take any time, unless the database falls silent meanwhile, which another
    /// connection finds out: nobody may be listening for changes.
    async fn as_long_as_it_takes<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<T> {
        let silent = async {
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                if matches!(self.ask_apart().await, Err(sqlx::Error::Io(error)) if error.kind() == ErrorKind::TimedOut)
                {
                    return;
                }
            }
        };
        tokio::select! {
            answer = self.pulse.unless_silent(Duration::MAX, answer) => answer,
            () = silent => Err(Error::unknown("the database has fallen silent")),
        }
    }

    /// Asks for answers on a connection of its own, until there is none.
    async fn ask_apart(&self) -> Result<(), sqlx::Error> {
        let mut connection = promptly(self.options.connect()).await?;
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            promptly(connection.ping()).await?;
        }
    }

    /// How many migrations the schema is behind this program. Changes nothing.
    pub async fn pending_migrations(&self) -> Result<usize> {
        let begun: bool =
            sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&self.pool).await?;
        let applied: Vec<i64> = match begun {
            true => {
                sqlx::query_scalar("select version from _sqlx_migrations where success").fetch_all(&self.pool).await?
            }
            false => Vec::new(),
        };
        Ok(MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)).count())
    }

    /// Whether the database answers, whatever its schema.
    pub async fn ping(&self) -> Result<()> {
        let mut lent = self.pool.lend_anyway().await?;
        self.pool.awaited(sqlx::query("select 1").execute(&mut *lent)).await?;
        lent.answered();
        Ok(())
    }

    /// News of changed predictions, in this process and from others.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Closes the pool; statements under way finish first.
    pub async fn close(&self) {
        self.pool.pool().close().await;
    }
}
