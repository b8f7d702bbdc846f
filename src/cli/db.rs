//! `fourstep db`: where the database is, for other programs.

use anyhow::Result;
use clap::{Args, Subcommand};
use fourstep::postgres;

use super::{options::Place, terminal};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Print the URL of the database, for a worker or psql: the configured one, or the running server's own
    Url(UrlArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UrlArgs {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(command: DbCommand) -> Result<()> {
    let DbCommand::Url(args) = command;
    let config = args.place.load(Vec::new())?;
    let url = match &config.database.url {
        Some(url) => url.expose().to_owned(),
        None => postgres::running_url(&config.data.dir)?,
    };
    terminal::print(&format!("{url}\n"))
}
