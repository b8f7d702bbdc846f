//! The log: on standard error, for people where people look, as JSON lines where programs do.

use std::io;

use anyhow::{Context, Result, anyhow};
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use super::terminal;

/// Who reads the log of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Audience {
    /// Somebody who runs a server and wants to know what it does.
    Operator,
    /// Somebody who typed a command and wants its result; only trouble is worth a line.
    Caller,
}

/// Starts logging. `RUST_LOG` decides what is written, else the audience.
pub(crate) fn start(audience: Audience) -> Result<()> {
    let usual = match audience {
        Audience::Operator => "warn,fourstep=info",
        Audience::Caller => "warn",
    };
    let wanted = std::env::var("RUST_LOG").ok().filter(|directives| !directives.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(usual)).context("RUST_LOG cannot be read")?;
    let log = tracing_subscriber::registry().with(filter);
    let people = io::IsTerminal::is_terminal(&io::stderr()) || matches!(audience, Audience::Caller);
    let started = if people {
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(terminal::colors(&io::stderr())).with_target(false);
        log.with(lines).try_init()
    } else {
        log.with(fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(io::stderr)).try_init()
    };
    started.map_err(|error| anyhow!("could not start logging: {error}"))
}
