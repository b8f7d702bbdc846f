//! What is in `deploy/`, against what it is for: the chart against the schemas of Kubernetes, dashboards and alerts
//! against `/metrics`, options against those there are. `tools/set-up --tests` installs Python; helm and the schemas
//! are installed under `target`, in the versions pinned in `requirements.txt`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod chart;
mod full_database;
mod full_disk;
mod image;
mod licenses;
mod operating;
mod options;
#[path = "../it/process.rs"]
#[expect(dead_code, reason = "only servers and workers are needed here")]
mod process;
mod readme;
mod reloading;
mod systemd;
mod watching;

use std::path::{Path, PathBuf};

/// A path of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the repository.
fn text(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}
