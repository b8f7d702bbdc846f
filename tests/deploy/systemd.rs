//! The unit, looked at by systemd itself.

use std::process::Command;

use crate::repository;

/// What `systemd-analyze security` may find at most, in tenths: "OK" ends at 5.
const EXPOSURE: &str = "15";

#[test]
#[expect(clippy::print_stdout, reason = "says what was not run")]
fn the_unit_leaves_the_service_few_rights() {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=yes", "--no-pager", "--threshold", EXPOSURE]);
    match analyze.arg(repository("deploy/systemd/fourstep.service")).output() {
        Ok(output) => assert!(output.status.success(), "{output:?}"),
        Err(error) => println!("NOT RUN: there is no systemd-analyze here: {error}"),
    }
}
