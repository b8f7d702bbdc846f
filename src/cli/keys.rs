//! `fourstep keys`: make, list, rotate, limit and revoke API keys.

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use fourstep::{
    domain::{ApiKey, Budget, NanoUsd, NewKey, Period, Scopes},
    store::Store,
};

use super::{database::with_store, options::Place, terminal};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it, this once
    Create(CreateArgs),
    /// List every key, without its secret
    List(ListArgs),
    /// Give a key a new secret and print it, this once; the one before still opens for a while
    Rotate(RotateArgs),
    /// Set what a key may spend in a day or a month, or take the limit away
    Budget(BudgetArgs),
    /// End a key; within seconds it opens nothing any more
    Revoke(RevokeArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    place: Place,
    /// What the key is for, to recognize it in lists
    #[arg(long, value_name = "TEXT")]
    name: String,
    /// Account whose predictions it makes and sees; made if it is new
    #[arg(long, value_name = "NAME", default_value = "default")]
    account: String,
    /// What it may do, with commas between: predictions:write, predictions:read, usage:read, admin, safety:disable; or
    /// all
    #[arg(long, value_name = "LIST", default_value_t = Scopes::USUAL)]
    scopes: Scopes,
    /// What it may spend in a month (or --per day), US dollars as 5 or 0.25 [default: all its account has]
    #[arg(long, value_name = "USD")]
    budget: Option<NanoUsd>,
    /// How long the budget has to last: day or month, in UTC
    #[arg(long, value_name = "PERIOD", default_value = "month", requires = "budget")]
    per: Period,
    /// When it ends by itself, as 2026-12-31T23:59:59Z
    #[arg(long, value_name = "TIME")]
    expires: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    place: Place,
    /// The key as `keys list` shows it, or the whole key
    key: String,
    /// How many hours the secret before still opens
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(..=2160))]
    overlap: u32,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false, args = ["amount", "none"])]
pub(crate) struct BudgetArgs {
    #[command(flatten)]
    place: Place,
    /// The key as `keys list` shows it, or the whole key
    key: String,
    /// US dollars, as 5 or 0.25
    amount: Option<NanoUsd>,
    /// No limit of its own
    #[arg(long)]
    none: bool,
    /// How long the budget has to last: day or month, in UTC
    #[arg(long, value_name = "PERIOD", default_value = "month")]
    per: Period,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    place: Place,
    /// The key as `keys list` shows it, or the whole key
    key: String,
}

pub(crate) fn run(command: KeysCommand) -> Result<()> {
    let place = match &command {
        KeysCommand::Create(args) => &args.place,
        KeysCommand::List(args) => &args.place,
        KeysCommand::Rotate(args) => &args.place,
        KeysCommand::Budget(args) => &args.place,
        KeysCommand::Revoke(args) => &args.place,
    };
    with_store(place, async |store| match &command {
        KeysCommand::Create(args) => create(store, args).await,
        KeysCommand::List(_) => list(store).await,
        KeysCommand::Rotate(args) => rotate(store, args).await,
        KeysCommand::Budget(args) => budget(store, args).await,
        KeysCommand::Revoke(args) => revoke(store, &args.key).await,
    })
}

async fn create(store: &Store, args: &CreateArgs) -> Result<()> {
    if args.name.trim().is_empty() || args.account.trim().is_empty() {
        bail!("a key needs a name and an account: --name TEXT --account NAME");
    }
    let key = ApiKey::generate()?;
    let new = NewKey {
        account: args.account.trim().to_owned(),
        name: args.name.trim().to_owned(),
        scopes: args.scopes,
        budget: args.budget.map(|amount| Budget { amount, period: args.per }),
        expires_at: args.expires,
    };
    store.issue_key(&new, &key).await?;
    // Alone on its line, for `KEY=$(fourstep keys create …)`.
    terminal::print(&format!("{}\n", key.expose()))
}

async fn list(store: &Store) -> Result<()> {
    let mut rows = vec![["KEY", "ACCOUNT", "NAME", "SCOPES", "BUDGET", "CREATED", "STATE"].map(str::to_owned)];
    for key in store.list_keys().await? {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(at), _) => format!("revoked {}", at.format("%Y-%m-%d")),
            (None, Some(at)) => format!("expires {}", at.format("%Y-%m-%d")),
            (None, None) => "valid".to_owned(),
        };
        let created = key.created_at.format("%Y-%m-%d").to_string();
        let scopes = if key.scopes == Scopes::ALL { "all".to_owned() } else { key.scopes.to_string() };
        let budget = |Budget { amount, period }| format!("${} of ${amount} a {period}", key.spent);
        let budget = key.budget.map_or("-".to_owned(), budget);
        rows.push([format!("fs_{}", key.lookup), key.account, key.name, scopes, budget, created, state]);
    }
    terminal::print(&terminal::table(&rows))
}

async fn rotate(store: &Store, args: &RotateArgs) -> Result<()> {
    let key = ApiKey::generate()?;
    let overlap = std::time::Duration::from_secs(u64::from(args.overlap) * 3600);
    if !store.rotate_key(&lookup(&args.key), &key, overlap).await? {
        bail!("there is no such key to rotate; `fourstep keys list` shows them");
    }
    terminal::print(&format!("{}\n", key.expose()))
}

async fn budget(store: &Store, args: &BudgetArgs) -> Result<()> {
    let (lookup, budget) = (lookup(&args.key), args.amount.map(|amount| Budget { amount, period: args.per }));
    if !store.set_budget(&lookup, budget).await? {
        bail!("there is no such key to limit; `fourstep keys list` shows them");
    }
    terminal::print(&match budget {
        Some(Budget { amount, period }) => format!("fs_{lookup} may spend ${amount} a {period}.\n"),
        None => format!("fs_{lookup} may spend all its account has.\n"),
    })
}

/// The public part of a key, of which it may be all that was given.
fn lookup(key: &str) -> String {
    match ApiKey::parse(key) {
        Ok(key) => key.lookup().to_owned(),
        Err(_) => key.strip_prefix("fs_").unwrap_or(key).to_owned(),
    }
}

async fn revoke(store: &Store, key: &str) -> Result<()> {
    let lookup = lookup(key);
    if !store.revoke_key(&lookup).await? {
        // Not echoed: it may be a mistyped secret.
        bail!("there is no such key to revoke; `fourstep keys list` shows them");
    }
    terminal::print(&format!("Revoked fs_{lookup}.\n"))
}
