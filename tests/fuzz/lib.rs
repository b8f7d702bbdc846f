//! The modules of fourstep that are fuzzed, and nothing of the server around them.

// So that `targets.rs` names them as the tests do.
extern crate self as fourstep;

#[path = "../../src/picture/mod.rs"]
pub mod picture;
#[path = "../../src/pipeline/mod.rs"]
pub mod pipeline;
pub mod targets;
#[path = "../../src/version.rs"]
mod version;

use std::{fs, path::Path};

/// Writes seeds to the folder that the environment names, for the fuzzer to begin with.
pub fn write_seeds(seeds: &[Vec<u8>]) {
    if let Some(folder) = std::env::var_os("FOURSTEP_FUZZ_SEEDS") {
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("seed-{number}")), seed).expect("the folder can be written to");
        }
    }
}
