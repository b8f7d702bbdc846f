//! The command line: one file for each command, and what they share.
//!
//! A command reads its flags into a `Config`, calls the library and prints what it learned: results on standard
//! output, everything else on standard error. Nothing here decides anything about predictions.

mod accounts;
mod audit;
mod config;
mod database;
mod db;
mod doctor;
mod failure;
mod generate;
mod health;
mod keys;
mod logging;
mod migrate;
mod openapi;
mod options;
mod pull;
mod reload;
mod serve;
mod terminal;
mod usage;
mod webhooks;
mod welcome;
mod worker;
mod workers;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use self::serve::ServeArgs;

#[derive(Debug, Parser)]
#[command(
    version = fourstep::version(),
    about,
    after_help = "`fourstep config show` lists every option; each is also an environment variable, FOURSTEP_<SECTION>__<KEY>.",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the API and, unless told otherwise, workers; the default
    Serve(ServeArgs),
    /// Run workers only, for the database of a server elsewhere
    Worker(worker::WorkerArgs),
    /// The workers there are, in all processes
    #[command(subcommand)]
    Workers(workers::WorkersCommand),
    /// Draw one picture into a file, without server and database
    Generate(generate::GenerateArgs),
    /// Fetch a model's weights, verified, into the cache that Python's tools use
    Pull(pull::PullArgs),
    /// Bring the database's schema up to date
    Migrate(migrate::MigrateArgs),
    /// Make, list, rotate, limit and revoke API keys
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Make, list and credit accounts
    #[command(subcommand)]
    Accounts(accounts::AccountsCommand),
    /// What was used and what it cost, by day, key or model
    Usage(usage::UsageArgs),
    /// What receivers of webhooks were not told, and telling them again
    #[command(subcommand)]
    Webhooks(webhooks::WebhooksCommand),
    /// Check that the books add up; fails when they do not
    Audit(audit::AuditArgs),
    /// Check this machine and configuration; every fault with its fix
    Doctor(doctor::DoctorArgs),
    /// Print the API as an OpenAPI document
    Openapi(openapi::OpenapiArgs),
    /// Ask the running server whether it is ready; for health checks
    Health(health::HealthArgs),
    /// The database in use
    #[command(subcommand)]
    Db(db::DbCommand),
    /// The configuration in use
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Runs the command that was typed.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::run(args),
        Command::Worker(args) => worker::run(args),
        Command::Workers(command) => workers::run(command),
        Command::Generate(args) => generate::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Keys(command) => keys::run(command),
        Command::Accounts(command) => accounts::run(command),
        Command::Usage(args) => usage::run(args),
        Command::Webhooks(command) => webhooks::run(command),
        Command::Audit(args) => return failure::exit_code(audit::run(args)),
        Command::Doctor(args) => return failure::exit_code(doctor::run(args)),
        Command::Openapi(args) => openapi::run(args),
        Command::Health(args) => return failure::exit_code(health::run(args)),
        Command::Db(command) => db::run(command),
        Command::Config(command) => config::run(command),
    };
    failure::exit_code(result.map(|()| ExitCode::SUCCESS))
}

/// How long a command that is done waits for what cannot be stopped: a picture that is decoded, a file on a disk that
/// is gone.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Runs a command's asynchronous part to its end.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WAIT);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve_with_its_flags() {
        let cli = Cli::parse_from(["fourstep", "--listen", "127.0.0.1:9000"]);
        assert!(cli.command.is_none());
        assert_eq!(cli.serve.listen.as_deref(), Some("127.0.0.1:9000"));
    }
}
