//! `fourstep worker`: workers alone, on a machine with a device, for the database of a server elsewhere.

use anyhow::Result;
use clap::Args;
use fourstep::app;

use super::{
    block_on,
    logging::Log,
    options::{self, Device, LogFlags, Place},
    reload, terminal, welcome,
};

#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    log: LogFlags,
}

pub(crate) fn run(args: WorkerArgs) -> Result<()> {
    let mut flags = args.device.overrides();
    flags.extend(args.log.overrides());
    let config = args.place.load(flags.clone())?;
    let log = Log::start(&config.log)?;
    terminal::raise_open_file_limit();
    block_on(async {
        reload::at_hangups(log, config.clone(), move || args.place.load(flags.clone()))?;
        app::work(&config, &options::hub()?, |ready| welcome::say(&config, ready)).await
    })
}
