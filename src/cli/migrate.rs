//! `fourstep migrate`: brings the schema up to date, for those who do it apart from starting the server.

use anyhow::Result;
use clap::Args;

use super::{block_on, database::Database, logging, options::Place, terminal};

#[derive(Clone, Debug, Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: MigrateArgs) -> Result<()> {
    let config = args.place.load(Vec::new())?;
    logging::start()?;
    block_on(async {
        let database = Database::open(&config).await?;
        let result = migrate(&database).await;
        database.close().await;
        result
    })
}

async fn migrate(database: &Database) -> Result<()> {
    let pending = database.store().pending_migrations().await?;
    database.store().migrate().await?;
    terminal::print(&match pending {
        0 => "The database is up to date.\n".to_owned(),
        1 => "Applied 1 migration.\n".to_owned(),
        several => format!("Applied {several} migrations.\n"),
    })
}
