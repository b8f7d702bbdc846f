#![no_main]

use fourstep_fuzz::targets;

libfuzzer_sys::fuzz_target!(
    init: targets::write_seeds(&targets::image_seeds()),
    |bytes: &[u8]| targets::image(bytes)
);
