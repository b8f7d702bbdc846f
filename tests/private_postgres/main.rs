//! The private cluster against the real Postgres of this machine, as root and as anybody else.
//!
//! Every test has a data directory of its own. A server that dies by `kill -9` is this very program, run again with
//! only [`support::hold_a_cluster`] to do.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod access;
mod placement;
mod recovery;
mod refusals;
mod support;
