//! The pipeline against diffusers, stage by stage, on a tiny random SDXL.
//!
//! The fixtures and the scripts that made them are described in `tools/golden/README.md`. No database is needed.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod demo;
mod generate;
mod images;
mod loras;
mod operations;
mod preparation;
mod schedulers;
mod stages;
mod support;
mod tokens;
mod weights;
