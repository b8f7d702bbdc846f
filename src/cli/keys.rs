//! `fourstep keys`: make, list and revoke API keys.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use fourstep::{config::Config, domain::ApiKey, store::Store};

use super::{
    block_on,
    database::Database,
    logging::{self, Audience},
    options::Place,
    terminal,
};

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it, this once
    Create(CreateArgs),
    /// List every key, without its secret
    List(ListArgs),
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
        KeysCommand::Revoke(args) => &args.place,
    };
    let config = place.load(Vec::new())?;
    logging::start(Audience::Caller)?;
    block_on(with_database(&config, command))
}

async fn with_database(config: &Config, command: KeysCommand) -> Result<()> {
    let database = Database::open_migrated(config).await?;
    let result = match command {
        KeysCommand::Create(args) => create(database.store(), &args).await,
        KeysCommand::List(_) => list(database.store()).await,
        KeysCommand::Revoke(args) => revoke(database.store(), &args.key).await,
    };
    database.close().await;
    result
}

async fn create(store: &Store, args: &CreateArgs) -> Result<()> {
    if args.name.trim().is_empty() || args.account.trim().is_empty() {
        bail!("a key needs a name and an account: --name TEXT --account NAME");
    }
    let key = ApiKey::generate()?;
    store.create_key(args.account.trim(), args.name.trim(), &key).await?;
    // Alone on its line, for `KEY=$(fourstep keys create …)`.
    terminal::print(&format!("{}\n", key.expose()))
}

async fn list(store: &Store) -> Result<()> {
    let mut rows = vec![["KEY", "ACCOUNT", "NAME", "CREATED", "STATE"].map(str::to_owned)];
    for key in store.list_keys().await? {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(at), _) => format!("revoked {}", at.format("%Y-%m-%d")),
            (None, Some(at)) => format!("expires {}", at.format("%Y-%m-%d")),
            (None, None) => "valid".to_owned(),
        };
        let created = key.created_at.format("%Y-%m-%d").to_string();
        rows.push([format!("fs_{}", key.lookup), key.account, key.name, created, state]);
    }
    terminal::print(&terminal::table(&rows))
}

async fn revoke(store: &Store, key: &str) -> Result<()> {
    let whole = ApiKey::parse(key);
    let lookup = match &whole {
        Ok(key) => key.lookup(),
        Err(_) => key.strip_prefix("fs_").unwrap_or(key),
    };
    if !store.revoke_key(lookup).await? {
        // Not echoed: it may be a mistyped secret.
        bail!("there is no such key to revoke; `fourstep keys list` shows them");
    }
    terminal::print(&format!("Revoked fs_{lookup}.\n"))
}
