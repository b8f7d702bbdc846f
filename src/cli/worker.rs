//! `fourstep worker`: workers alone, on a machine with a device, for the database of a server elsewhere.

use anyhow::Result;
use clap::Args;
use fourstep::app;

use super::{
    block_on,
    logging::{self, Audience},
    options::{self, Device, Place},
    terminal, welcome,
};

#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    device: Device,
}

pub(crate) fn run(args: WorkerArgs) -> Result<()> {
    let config = args.place.load(args.device.overrides())?;
    logging::start(Audience::Operator)?;
    terminal::raise_open_file_limit();
    block_on(app::work(&config, &options::hub()?, |ready| welcome::say(&config, ready)))
}
