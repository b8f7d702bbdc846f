//! The units, looked at by systemd itself, and what systemd is told.

use std::{os::unix::net::UnixDatagram, process::Command, time::Duration};

use sqlx::PgPool;

use crate::{
    process::{Program, TestFolder, url_of},
    repository,
};

/// What `systemd-analyze security` may find at most, in tenths: "OK" ends at 5.
const EXPOSURE: &str = "15";

#[test]
#[expect(clippy::print_stdout, reason = "says what was not run")]
fn the_units_leave_their_services_few_rights() {
    for unit in ["fourstep.service", "fourstep-worker@.service"] {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=yes", "--no-pager", "--threshold", EXPOSURE]);
        match analyze.arg(repository(&format!("deploy/systemd/{unit}"))).output() {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(error) => println!("NOT RUN: there is no systemd-analyze here: {error}"),
        }
    }
}

#[sqlx::test]
async fn systemd_is_told_when_a_server_and_when_workers_are_ready(pool: PgPool) {
    let (folder, database) = (TestFolder::new(), url_of(&pool));
    let socket = folder.0.join("notify");
    let told = UnixDatagram::bind(&socket).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (variables, log) = ([("NOTIFY_SOCKET", socket.to_str().unwrap())], folder.0.join("log"));
    let message = || {
        let mut message = [0; 64];
        let length = told.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..length]).trim_end().to_owned()
    };
    let _server = Program::serve_logging(&folder.0, &database, &variables, &log);
    assert_eq!(message(), "READY=1");
    let _workers = Program::worker_logging(&folder.0, &database, &variables, &log);
    assert_eq!(message(), "READY=1");
}
