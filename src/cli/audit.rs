//! `fourstep audit`: whether the books add up.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::{database::with_store, options::Place, terminal};

#[derive(Clone, Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    place: Place,
}

/// Prints a line for each check, and fails if one of them does not hold.
pub(crate) fn run(args: AuditArgs) -> Result<ExitCode> {
    let audit = with_store(&args.place, async |store| Ok(store.audit().await?))?;
    let mut report = String::new();
    for finding in &audit.findings {
        let verdict = if finding.wrong == 0 { "ok " } else { "BAD" };
        report += &format!("{verdict}  {} ({} checked)\n", finding.law, finding.checked);
        for example in &finding.examples {
            report += &format!("       {example}\n");
        }
        let untold = finding.wrong.saturating_sub(finding.examples.len() as u64);
        if untold > 0 {
            report += &format!("       and {untold} more\n");
        }
    }
    report += if audit.is_clean() { "Everything adds up.\n" } else { "The books do not add up.\n" };
    terminal::print(&report)?;
    Ok(if audit.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
