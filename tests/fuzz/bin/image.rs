#![no_main]

use fourstep_fuzz::{targets, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds(&targets::image_seeds()),
    |bytes: &[u8]| targets::image(bytes)
);
