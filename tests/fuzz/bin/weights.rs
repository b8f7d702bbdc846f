#![no_main]

use fourstep_fuzz::targets;

libfuzzer_sys::fuzz_target!(
    init: targets::write_seeds(&targets::weights_seeds()),
    |bytes: &[u8]| targets::weights(bytes)
);
