//! Many hosts, really: servers, workers, Postgres and a bucket on machines of their own, as far as a kernel can pretend
//! (`network`); two versions of the program at once; and both for long. The checker of `tests/it` has the last word.
//!
//! `make test` runs a short form. The long form is `FOURSTEP_FAULTS=long cargo test --test hosts -- --nocapture`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::print_stdout, reason = "the long forms are run for their figures")]

#[path = "../it/checker.rs"]
mod checker;
mod clients;
mod database;
mod faults;
#[path = "../clients/installed.rs"]
#[expect(dead_code, reason = "only the S3 server is needed here")]
mod installed;
mod load;
mod network;
#[path = "../it/process.rs"]
#[expect(dead_code, reason = "only servers and workers are needed here")]
mod process;
#[path = "../it/receiver.rs"]
#[expect(dead_code, reason = "a receiver that always answers is enough here")]
mod receiver;
mod s3;
mod site;
mod soak;
mod upgrade;

use std::path::{Path, PathBuf};

/// What the clients' tests have, the S3 server among them.
fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(file)
}
