//! The pipeline against diffusers, stage by stage, on a tiny random SDXL.
//!
//! The fixtures and the scripts that made them are described in `tools/golden/README.md`. No database is needed.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod generate;
mod loras;
mod operations;
mod random_model;
mod schedulers;
mod stages;
mod support;
mod tokens;
mod weights;
