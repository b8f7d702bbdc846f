//! `fourstep webhooks`: what receivers were not told, and telling them again.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use fourstep::{domain::PredictionId, store::Store};

use super::{accounts::account_id, database::with_store, options::Place, terminal};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum WebhooksCommand {
    /// List what was given up because its receiver did not take it
    Failed(FailedArgs),
    /// Tell the end of a prediction again, or of all that were given up
    Redeliver(RedeliverArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FailedArgs {
    #[command(flatten)]
    place: Place,
    /// Of this account alone
    #[arg(long, value_name = "NAME")]
    account: Option<String>,
    /// At most so many, the latest first
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RedeliverArgs {
    #[command(flatten)]
    place: Place,
    /// The prediction
    #[arg(required_unless_present = "failed", conflicts_with = "failed")]
    id: Option<PredictionId>,
    /// Everything that was given up
    #[arg(long)]
    failed: bool,
    /// Of this account alone
    #[arg(long, value_name = "NAME", requires = "failed")]
    account: Option<String>,
}

pub(crate) fn run(command: WebhooksCommand) -> Result<()> {
    let place = match &command {
        WebhooksCommand::Failed(args) => &args.place,
        WebhooksCommand::Redeliver(args) => &args.place,
    };
    with_store(place, async |store| match &command {
        WebhooksCommand::Failed(args) => failed(store, args).await,
        WebhooksCommand::Redeliver(args) => redeliver(store, args).await,
    })
}

async fn failed(store: &Store, args: &FailedArgs) -> Result<()> {
    if let Some(name) = &args.account {
        account_id(store, name).await?;
    }
    let header = ["PREDICTION", "ACCOUNT", "RECEIVER", "EVENT", "ATTEMPTS", "LAST TRIED", "BECAUSE IT"];
    let mut rows = vec![header.map(str::to_owned)];
    for given_up in store.given_up_webhooks(args.account.as_deref(), args.limit).await? {
        rows.push([
            given_up.prediction_id.to_string(),
            given_up.account,
            given_up.receiver,
            given_up.event,
            given_up.attempts.to_string(),
            given_up.tried_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            given_up.error.unwrap_or_default(),
        ]);
    }
    terminal::print(&terminal::table(&rows))
}

async fn redeliver(store: &Store, args: &RedeliverArgs) -> Result<()> {
    let Some(id) = args.id else {
        if let Some(name) = &args.account {
            account_id(store, name).await?;
        }
        let count = store.redeliver_given_up_webhooks(args.account.as_deref()).await?;
        return terminal::print(&format!("Telling {count} again.\n"));
    };
    if !store.redeliver_any_webhook(id).await? {
        bail!(
            "there is nothing to tell of {id}: it has no webhook for its end, has not ended, or is being told right now"
        );
    }
    terminal::print(&format!("Telling the end of {id} again.\n"))
}
