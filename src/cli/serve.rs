//! `fourstep serve`: the API, and workers in the same process.

use anyhow::Result;
use clap::Args;
use fourstep::app;

use super::{
    block_on,
    logging::{self, Audience},
    options::{self, Device, Place, flag},
    terminal, welcome,
};

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    place: Place,
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    #[command(flatten)]
    device: Device,
}

pub(crate) fn run(args: ServeArgs) -> Result<()> {
    let mut flags = args.device.overrides();
    flags.extend(flag("server.listen", "--listen", &args.listen));
    let config = args.place.load(flags)?;
    logging::start(Audience::Operator)?;
    terminal::raise_open_file_limit();
    block_on(app::serve(&config, &options::hub()?, |ready| welcome::say(&config, ready)))
}
