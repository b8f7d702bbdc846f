//! The Dockerfile, as far as it can be looked at without building it.

use std::collections::BTreeSet;

use crate::text;

/// What a `FROM` or a `COPY --from=` may name besides a stage above it: a base that an argument gives.
const BASES: [&str; 4] = ["${RUST}", "${DEBIAN}", "${CUDA}", "${CUDA_RUNTIME}"];

#[test]
fn every_stage_is_made_of_bases_and_of_stages_above_it() {
    let dockerfile = text("Dockerfile");
    let (mut stages, mut last) = (BTreeSet::from(BASES.map(str::to_owned)), String::new());
    stages.insert("scratch".to_owned());
    for line in dockerfile.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["FROM", from, "AS", name] => {
                assert!(stages.contains(from), "{line}");
                assert!(stages.insert(name.to_owned()), "{line}: a stage of that name is above");
                name.clone_into(&mut last);
            }
            ["COPY", from, ..] if from.starts_with("--from=") => {
                assert!(stages.contains(from.trim_start_matches("--from=")), "{line}");
            }
            _ => {}
        }
    }
    for stage in ["build", "system", "symbols", "cuda"] {
        assert!(stages.contains(stage), "{stages:?}");
    }
    assert_eq!(last, "cpu", "which is built unless another one is named");
    for base in BASES {
        let argument = format!("ARG {}=", base.trim_matches(['$', '{', '}']));
        assert!(dockerfile.contains(&argument), "{argument}");
    }
}

/// The layer of dependencies is built from a skeleton, in which every target has to be a file.
#[test]
fn the_images_layer_of_dependencies_has_a_file_for_every_target() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let dockerfile = text("Dockerfile");
    let layers: Vec<_> = dockerfile.lines().filter(|line| line.contains("'fn main() {}' | tee")).collect();
    assert!(!layers.is_empty(), "{dockerfile}");
    for bench in manifest["bench"].as_array().unwrap() {
        let file = format!("benches/{}.rs", bench["name"].as_str().unwrap());
        assert!(layers.iter().all(|layer| layer.contains(&file)), "{file}");
    }
}
