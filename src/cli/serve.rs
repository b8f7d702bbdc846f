//! `fourstep serve`: the API, and workers in the same process.

use anyhow::Result;
use clap::Args;
use fourstep::{app, config::WorkerCount};

use super::{
    block_on,
    logging::Log,
    options::{self, Device, LogFlags, Place, flag},
    reload, terminal, welcome,
};
use crate::allocator::{keep_for_the_next_picture, keep_to_small_pages};

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    place: Place,
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    log: LogFlags,
}

pub(crate) fn run(args: ServeArgs) -> Result<()> {
    let mut flags = args.device.overrides();
    flags.extend(flag("server.listen", "--listen", &args.listen));
    flags.extend(args.log.overrides());
    let config = args.place.load(flags.clone())?;
    if config.worker.count == WorkerCount::Exactly(0) {
        keep_to_small_pages();
    } else if !config.worker.low_memory {
        keep_for_the_next_picture();
    }
    block_on(async {
        let (log, traces) = Log::start(&config.log, &config.traces)?;
        terminal::raise_open_file_limit();
        reload::at_hangups(log, config.clone(), move || args.place.load(flags.clone()))?;
        let ended = app::serve(&config, &options::hub()?, |ready| welcome::say(&config, ready)).await;
        if let Some(traces) = traces {
            traces.close().await;
        }
        ended
    })
}
