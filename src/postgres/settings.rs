//! Every setting of the private cluster, with the reason it is not the default.
//!
//! They are given on the command line at each start, where they win over the files in the cluster: what runs is what
//! is written here. Whoever wants to tune Postgres runs their own and sets `DATABASE_URL`.

use std::ffi::OsString;

use super::access::{self, PORT, Socket};
use super::folder::Folder;

/// What `initdb` is told; these cannot be changed later.
pub(super) const INITDB: [&str; 7] = [
    "--username=postgres",
    "--encoding=UTF8",
    // Sorts by bytes: the same on every machine, and indexes survive a change of the system's libraries.
    "--locale=C",
    // A bad disk is an error, not a wrong answer.
    "--data-checksums",
    // For a Postgres started by hand; ours is given its own rules.
    "--auth-local=peer",
    "--auth-host=reject",
    // Everything is written to disk once, when the whole cluster is made.
    "--no-sync",
];

/// What Postgres is told when it runs without a server, to make the database.
pub(super) const SINGLE_USER: [&str; 4] = [
    // Otherwise it goes on after an error and ends as if nothing had happened.
    "-c",
    "exit_on_error=on",
    // As above.
    "-c",
    "fsync=off",
];

const FIXED: [(&str, &str); 18] = [
    // No network: the socket in the file system is the only way in.
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    // What was acknowledged survives a power cut. The defaults, said aloud because queue and ledger rest on them.
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    // Small and enough: queue and ledger fit, and the connections of a server (12) and of six workers (13 each).
    ("shared_buffers", "128MB"),
    ("max_connections", "100"),
    // The write-ahead log of a demonstration need not take a gigabyte of somebody's laptop.
    ("max_wal_size", "512MB"),
    // Statements are short. Compiling them or spreading them over processes costs more than it brings, and the
    // latter needs shared memory that containers are short of (/dev/shm is 64 MB there).
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    // Standard error is the log file; `log.rs` bounds it.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    // What happens to Postgres itself, not every statement that failed: the application reports those, and their
    // values (prompts) have no place in a log.
    ("log_min_messages", "log"),
    ("log_checkpoints", "off"),
    ("log_line_prefix", "%m [%p] "),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
    // Seen in the process list: `postgres: fourstep: checkpointer`.
    ("cluster_name", "fourstep"),
];

/// The command line of `postgres`.
pub(super) fn arguments(folder: &Folder, socket: &Socket) -> Vec<OsString> {
    let here = [
        ("port", OsString::from(PORT.to_string())),
        ("unix_socket_directories", socket.setting()),
        ("hba_file", access::rules_file(folder).into_os_string()),
        ("ident_file", access::accounts_file(folder).into_os_string()),
    ];
    let fixed = FIXED.iter().map(|&(name, value)| (name, OsString::from(value)));
    let mut arguments = vec![OsString::from("-D"), folder.cluster().into_os_string()];
    for (name, value) in fixed.chain(here) {
        let mut setting = OsString::from(format!("{name}="));
        setting.push(value);
        arguments.extend([OsString::from("-c"), setting]);
    }
    arguments
}
