//! `fourstep workers`: who takes predictions, on which machine, for which models.

use anyhow::Result;
use clap::{Args, Subcommand};
use fourstep::store::Store;

use super::{database::with_store, options::Place, terminal};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum WorkersCommand {
    /// List every worker of every process that shares the database
    List(ListArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(command: WorkersCommand) -> Result<()> {
    let WorkersCommand::List(args) = command;
    with_store(&args.place, list)
}

async fn list(store: &Store) -> Result<()> {
    let mut rows = vec![
        ["WORKER", "HOST", "DEVICE", "MODELS", "PHASE", "RUNNING", "A PICTURE", "SINCE", "HEARD"].map(str::to_owned),
    ];
    for worker in store.list_workers().await? {
        let phase = match worker.phase.as_str() {
            "loading" | "warming_up" => format!("{} {} %", worker.phase, worker.percent),
            phase => phase.to_owned(),
        };
        rows.push([
            worker.id.to_string(),
            worker.host,
            worker.device,
            worker.models.join(","),
            phase,
            worker.running.to_string(),
            worker.picture_us.map_or("-".to_owned(), |us| format!("{:.3} s", us as f64 / 1e6)),
            worker.started_at.format("%Y-%m-%d %H:%M").to_string(),
            format!("{} s ago", worker.silent_seconds),
        ]);
    }
    terminal::print(&terminal::table(&rows))
}
