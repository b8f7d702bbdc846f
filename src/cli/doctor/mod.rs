//! `fourstep doctor`: looks at everything a server needs, and says of every fault how it is mended.
//!
//! Nothing is changed: a folder that is missing is not made, a database not started, a schema not migrated.

mod database;
mod files;
mod machine;
mod network;
mod weights;

use std::{io, process::ExitCode};

use anyhow::Result;
use clap::Args;
use fourstep::config::Config;

use super::{
    block_on, logging,
    options::{Device, Place, flag},
    terminal,
};

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    place: Place,
    /// Address and port the server would listen on
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    device: Device,
}

/// What one check found.
struct Finding {
    subject: &'static str,
    health: Health,
    detail: String,
}

/// How bad it is, with the fix where there is something to mend.
enum Health {
    Good,
    /// It works, but less well than it could.
    Poor(String),
    /// A server would not start, or could not run predictions.
    Bad(String),
}

impl Finding {
    fn good(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { subject, health: Health::Good, detail: detail.into() }
    }

    fn poor(subject: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject, health: Health::Poor(fix.into()), detail: detail.into() }
    }

    fn bad(subject: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject, health: Health::Bad(fix.into()), detail: detail.into() }
    }
}

pub(crate) fn run(args: DoctorArgs) -> Result<ExitCode> {
    let mut flags = args.device.overrides();
    flags.extend(flag("server.listen", "--listen", &args.listen));
    let config = args.place.load(flags)?;
    logging::start()?;
    let findings = block_on(async { Ok(examine(&config).await) })?;
    let colored = terminal::colors(&io::stdout());
    terminal::print(&findings.iter().map(|finding| line(finding, colored)).collect::<String>())?;
    let bad = findings.iter().any(|finding| matches!(finding.health, Health::Bad(_)));
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        machine::processor(),
        machine::open_files(config),
        machine::data_folder(config),
        machine::disk_space(config),
        database::programs(config),
    ];
    findings.extend(database::state(config).await);
    findings.push(files::store(config).await);
    findings.push(network::port(config).await);
    findings.push(weights::files(config));
    findings
}

fn line(finding: &Finding, colored: bool) -> String {
    let (mark, color, fix) = match &finding.health {
        Health::Good => ("ok  ", "32", None),
        Health::Poor(fix) => ("note", "33", Some(fix)),
        Health::Bad(fix) => ("BAD ", "31", Some(fix)),
    };
    let mark = if colored { format!("\x1b[{color}m{mark}\x1b[0m") } else { mark.to_owned() };
    let under_detail = format!("\n{:16}", "");
    let detail = finding.detail.trim_end().replace('\n', &under_detail);
    let fix = fix.filter(|fix| !fix.is_empty()).map(|fix| format!("{:16}{}\n", "", fix.replace('\n', &under_detail)));
    format!("{mark} {:<10} {detail}\n{}", finding.subject, fix.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_stands_above_its_fix() {
        let shown = line(&Finding::bad("port", "8000 is taken", "choose another"), false);
        assert_eq!(shown, "BAD  port       8000 is taken\n                choose another\n");
        assert!(line(&Finding::good("port", "free"), true).starts_with("\x1b[32mok"));
        assert!(!line(&Finding::poor("port", "slow", "fix"), false).contains('\x1b'));
    }
}
