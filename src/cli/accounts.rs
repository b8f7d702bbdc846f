//! `fourstep accounts`: who owns keys and predictions, and what they may spend.

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use fourstep::{
    domain::{AccountMode, NanoUsd},
    store::{self, Store},
};

use super::{database::with_store, options::Place, terminal};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// Make an account
    Create(CreateArgs),
    /// List every account with its balance
    List(ListArgs),
    /// Add to the balance of an account
    Credit(CreditArgs),
    /// Change what an account may spend, or how much of it at once
    Set(SetArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    place: Place,
    /// What it is called
    name: String,
    /// unlimited: is charged and never refused; prepaid: spends what was credited
    #[arg(long, value_name = "MODE", default_value = "unlimited")]
    mode: AccountMode,
    /// How many predictions it may have queued and running
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_in_flight: Option<u32>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CreditArgs {
    #[command(flatten)]
    place: Place,
    /// The account
    name: String,
    /// US dollars, as 5 or 0.25
    amount: NanoUsd,
    /// What for; kept in the ledger
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Take the amount from the balance
    #[arg(long)]
    debit: bool,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true, args = ["mode", "max_in_flight"])]
pub(crate) struct SetArgs {
    #[command(flatten)]
    place: Place,
    /// The account
    name: String,
    /// unlimited: is charged and never refused; prepaid: spends what was credited
    #[arg(long, value_name = "MODE")]
    mode: Option<AccountMode>,
    /// How many predictions it may have queued and running; 0 for any number
    #[arg(long, value_name = "N")]
    max_in_flight: Option<u32>,
}

pub(crate) fn run(command: AccountsCommand) -> Result<()> {
    let place = match &command {
        AccountsCommand::Create(args) => &args.place,
        AccountsCommand::List(args) => &args.place,
        AccountsCommand::Credit(args) => &args.place,
        AccountsCommand::Set(args) => &args.place,
    };
    with_store(place, async |store| match &command {
        AccountsCommand::Create(args) => create(store, args).await,
        AccountsCommand::List(_) => list(store).await,
        AccountsCommand::Credit(args) => credit(store, args).await,
        AccountsCommand::Set(args) => set(store, args).await,
    })
}

async fn create(store: &Store, args: &CreateArgs) -> Result<()> {
    let name = args.name.trim();
    if name.is_empty() {
        bail!("an account needs a name");
    }
    if !store.create_account(name, args.mode, args.max_in_flight).await? {
        bail!("there is an account {name:?} already");
    }
    terminal::print(&format!("Made the account {name}, {}.\n", args.mode))
}

async fn list(store: &Store) -> Result<()> {
    let mut rows = vec![["ACCOUNT", "MODE", "BALANCE", "HELD", "IN FLIGHT", "CREATED"].map(str::to_owned)];
    for account in store.list_accounts().await? {
        let money = |amount: NanoUsd| match account.mode {
            AccountMode::Prepaid => format!("${amount}"),
            // What was held before it became unlimited is no matter any more, and what it has is not spent.
            AccountMode::Unlimited => "-".to_owned(),
        };
        rows.push([
            account.name.clone(),
            account.mode.to_string(),
            money(account.balance),
            money(account.held),
            account.max_in_flight.map_or("any".to_owned(), |most| format!("at most {most}")),
            account.created_at.format("%Y-%m-%d").to_string(),
        ]);
    }
    terminal::print(&terminal::table(&rows))
}

async fn credit(store: &Store, args: &CreditArgs) -> Result<()> {
    if args.amount == NanoUsd::ZERO {
        bail!("an amount of nothing changes nothing");
    }
    let amount = if args.debit { NanoUsd::new(-args.amount.get()) } else { args.amount };
    match store.credit(&args.name, amount, args.note.as_deref()).await {
        Ok(true) => {}
        Ok(false) => bail!(no_account(&args.name)),
        Err(store::Error::OverLimit) => bail!("{} does not have ${} that is not held", args.name, args.amount),
        Err(error) => return Err(error.into()),
    }
    let done = if args.debit { "Debited" } else { "Credited" };
    terminal::print(&format!("{done} {} with ${}.\n", args.name, args.amount))
}

async fn set(store: &Store, args: &SetArgs) -> Result<()> {
    let mut known = true;
    if let Some(mode) = args.mode {
        known &= store.set_account_mode(&args.name, mode).await?;
    }
    if let Some(most) = args.max_in_flight {
        known &= store.set_max_in_flight(&args.name, (most > 0).then_some(most)).await?;
    }
    if !known {
        bail!(no_account(&args.name));
    }
    terminal::print(&format!("Changed the account {}.\n", args.name))
}

/// The id of the account of this name. One that is mistyped must not look like one without anything.
pub(crate) async fn account_id(store: &Store, name: &str) -> Result<i64> {
    store.find_account(name).await?.ok_or_else(|| anyhow!(no_account(name)))
}

fn no_account(name: &str) -> String {
    format!("there is no account {name:?}; `fourstep accounts list` shows them")
}
