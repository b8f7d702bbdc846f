#![no_main]

use fourstep_fuzz::{targets, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds(&targets::weights_seeds()),
    |bytes: &[u8]| targets::weights(bytes)
);
