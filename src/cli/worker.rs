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
use crate::allocator::keep_for_the_next_picture;

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
    if !config.worker.low_memory {
        keep_for_the_next_picture();
    }
    block_on(async {
        let (log, traces) = Log::start(&config.log, &config.traces)?;
        terminal::raise_open_file_limit();
        reload::at_hangups(log, config.clone(), move || args.place.load(flags.clone()))?;
        let ended = app::work(&config, &options::hub()?, |ready| welcome::say(&config, ready)).await;
        if let Some(traces) = traces {
            traces.close().await;
        }
        ended
    })
}
