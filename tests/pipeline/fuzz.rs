//! The fuzzer's targets on what it begins with and on what it has found. `tests/fuzz/run` looks for more.

use std::{fs, path::Path};

#[expect(unreachable_pub, reason = "the fuzzer's own package sees it from outside")]
#[path = "../fuzz/targets.rs"]
mod targets;

/// Changed copies of each seed.
const CHANGES: u64 = 12;

/// The seed, its beginnings, and copies with some bytes changed: always the same ones.
fn variations(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let cut = (0..8).map(|part| seed[..seed.len() * part / 8].to_vec());
    let mut state = seed.len() as u64;
    let mut random = move || {
        // Knuth's linear congruential generator; its upper half is good enough to pick bytes.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let changed = (0..CHANGES).map(move |_| {
        let mut bytes = seed.to_vec();
        for _ in 0..1 + random() % 4 {
            // The first byte of a model's file says which it is.
            let place = 1 + random() % (bytes.len() - 1);
            bytes[place] = [random() as u8, 0, 0xFF, b'9', bytes[place] ^ 1][random() % 5];
        }
        bytes
    });
    std::iter::once(seed.to_vec()).chain(cut).chain(changed)
}

fn found(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions").join(target);
    let files = fs::read_dir(folder).into_iter().flatten();
    files.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn pictures_that_are_cut_and_changed_are_read_or_refused() {
    let seeds = targets::image_seeds();
    assert_eq!(seeds.len(), 7);
    seeds.iter().flat_map(|seed| variations(seed)).chain(found("image")).for_each(|bytes| targets::image(&bytes));
}

#[test]
fn models_that_are_cut_and_changed_load_or_are_refused() {
    let seeds = targets::weights_seeds();
    assert_eq!(seeds.len(), targets::FILES.len());
    seeds.iter().flat_map(|seed| variations(seed)).chain(found("weights")).for_each(|bytes| targets::weights(&bytes));
}
