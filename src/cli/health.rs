//! `fourstep health`: asks the server of this configuration whether it is ready, for supervisors that can only run a
//! program.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{
    block_on, logging,
    options::{Place, flag},
    terminal,
};

/// Less than what a container's health check is given.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    place: Place,
    /// Address and port the server listens on
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Ask only whether the process answers, not whether a prediction made now would be run
    #[arg(long)]
    live: bool,
}

pub(crate) fn run(args: HealthArgs) -> Result<ExitCode> {
    let config = args.place.load(flag("server.listen", "--listen", &args.listen).into_iter().collect())?;
    logging::start()?;
    let address = reachable(config.server.listen);
    ensure!(address.port() != 0, "server.listen has port 0: the server took a free one, name it with --listen");
    let probe = if args.live { "livez" } else { "readyz" };
    let (is_well, answer) = block_on(ask(format!("http://{address}/{probe}")))?;
    terminal::print(&format!("{answer}\n"))?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whoever listens on every address is reached on this machine's own.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(if listen.is_ipv4() { [127, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() });
    }
    listen
}

/// Whether the answer is a good one, and its body.
async fn ask(url: String) -> Result<(bool, String)> {
    // A proxy would ask another machine.
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
    let answer = client.get(&url).send().await.with_context(|| format!("no server answers at {url}"))?;
    Ok((answer.status().is_success(), answer.text().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_every_address_is_asked_on_this_machines_own() {
        let asked = |listen: &str| reachable(listen.parse().expect("an address")).to_string();
        assert_eq!(asked("0.0.0.0:8000"), "127.0.0.1:8000");
        assert_eq!(asked("[::]:8000"), "[::1]:8000");
        assert_eq!(asked("10.0.0.7:8000"), "10.0.0.7:8000");
    }
}
