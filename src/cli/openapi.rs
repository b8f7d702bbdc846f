//! `fourstep openapi`: the API's OpenAPI document, for generators of clients.

use anyhow::Result;
use clap::Args;
use fourstep::{app, http};

use super::{options::Place, terminal};

#[derive(Clone, Debug, Args)]
pub(crate) struct OpenapiArgs {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: OpenapiArgs) -> Result<()> {
    let catalog = app::catalog(&args.place.load(Vec::new())?)?;
    terminal::print(&format!("{:#}\n", http::openapi(&catalog)))
}
