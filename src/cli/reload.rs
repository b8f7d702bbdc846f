//! SIGHUP: what can change while a program runs is read again. That is its log; all else is fixed at the start, since
//! what was promised to a caller must not depend on the moment, and processes can be replaced one by one.

use anyhow::Result;
use fourstep::config::Config;
use tokio::signal::unix::{SignalKind, signal};

use super::logging::Log;

/// Reads the configuration again at every SIGHUP, from now on. What cannot be read changes nothing. In a terminal it
/// says that this was closed, and ends the program as ever.
pub(crate) fn at_hangups(log: Log, running: Config, read: impl Fn() -> Result<Config> + Send + 'static) -> Result<()> {
    if std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Ok(());
    }
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            match read().and_then(|config| log.renew(&config.log).map(|()| config)) {
                Ok(config) => {
                    tracing::info!("Received SIGHUP; the log is renewed");
                    if needs_restart(&running, config) {
                        tracing::warn!(
                            "Besides log.level the configuration has changed, which counts from the next start on"
                        );
                    }
                }
                Err(error) => tracing::error!("Received SIGHUP, and nothing is changed: {error:#}"),
            }
        }
    });
    Ok(())
}

fn needs_restart(running: &Config, mut read: Config) -> bool {
    read.log.level.clone_from(&running.log.level);
    read != *running
}
