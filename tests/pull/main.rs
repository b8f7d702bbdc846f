//! Tests of `hub` against a hub on this machine that drops connections, serves errors and lies. No network, no
//! database.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cache;
mod command_line;
mod fake_hub;
mod faults;
mod resume;
mod setup;
