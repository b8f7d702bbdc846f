//! The modules of fourstep that are fuzzed, and nothing of the server around them.

// So that `targets.rs` names them as the tests do.
extern crate self as fourstep;

#[path = "../../src/picture/mod.rs"]
pub mod picture;
#[path = "../../src/pipeline/mod.rs"]
pub mod pipeline;
pub mod targets;
