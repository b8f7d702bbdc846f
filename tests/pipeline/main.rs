//! The pipeline against diffusers, stage by stage, on a tiny random SDXL.
//!
//! The fixtures and the scripts that made them are described in `tools/golden/README.md`. No database is needed.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod checkpoints;
mod demo;
mod formats;
mod fuzz;
mod generate;
mod gpu_kernels;
mod images;
mod loras;
mod memory;
mod operations;
mod preparation;
mod safety;
mod schedulers;
mod stages;
mod support;
mod tokens;
mod weights;
