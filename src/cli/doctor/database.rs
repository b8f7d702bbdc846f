//! Postgres: its programs where a private database needs them, and the database itself where it runs.

use fourstep::{
    config::Config,
    postgres::{self, binaries},
    store::Store,
};

use super::{
    super::{database::connect, failure},
    Finding,
};

pub(super) fn programs(config: &Config) -> Finding {
    let subject = "postgres";
    if config.database.url.is_some() {
        return Finding::good(subject, "not needed here: the database is elsewhere");
    }
    match binaries::find() {
        Ok(found) => Finding::good(subject, format!("{} in {}", found.version(), found.directory().display())),
        // Its text says how to install it.
        Err(error) => Finding::bad(subject, error.to_string(), ""),
    }
}

pub(super) async fn state(config: &Config) -> Vec<Finding> {
    let subject = "database";
    let (url, fix) = match &config.database.url {
        Some(url) => (
            url.expose().to_owned(),
            "Start it, or correct DATABASE_URL; without DATABASE_URL the server runs a database of its own.",
        ),
        None => match postgres::running_url(&config.data.dir) {
            Ok(url) => (url, "The server's log says more; so does postgres.log in the data folder."),
            Err(postgres::Error::NotRunning { .. }) => {
                return vec![Finding::good(
                    subject,
                    "the server's own, which is not running; `fourstep serve` starts it",
                )];
            }
            Err(error) => return vec![Finding::bad(subject, error.to_string(), "")],
        },
    };
    match connect(config, &url).await {
        Ok(store) => {
            let findings = vec![Finding::good(subject, "answers"), schema(&store).await];
            store.close().await;
            findings
        }
        Err(error) => vec![Finding::bad(subject, failure::causes(&error).join(": "), fix)],
    }
}

async fn schema(store: &Store) -> Finding {
    let subject = "schema";
    match store.pending_migrations().await {
        Ok(0) => Finding::good(subject, "up to date"),
        Ok(pending) => Finding::poor(
            subject,
            format!("{pending} migrations behind this program"),
            "`fourstep serve` applies them when it starts, `fourstep migrate` now.",
        ),
        Err(error) => Finding::bad(subject, error.to_string(), "Check the rights of the database's user."),
    }
}
