//! The Dockerfile, as far as it can be looked at without building it.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{process::TestFolder, repository, text};

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
    assert_eq!(layers.len(), 2, "for the CPU and for CUDA: {layers:?}");
    for (kind, folder) in [("bench", "benches"), ("bin", "src/bin"), ("example", "examples"), ("test", "tests")] {
        for target in manifest.get(kind).map_or(&Vec::new(), |targets| targets.as_array().unwrap()) {
            let usual = format!("{folder}/{}.rs", target["name"].as_str().unwrap());
            let file = target.get("path").map_or(usual.as_str(), |path| path.as_str().unwrap());
            assert!(layers.iter().all(|layer| layer.contains(file)), "{file}");
        }
    }
    assert!(!repository("build.rs").exists() && manifest["package"].get("build").is_none(), "it would be a file more");
}

/// What is built into the program from outside its file, as paths of the repository.
fn embedded(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            embedded(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            // A file is named from where it is read, a folder from the top.
            for (begin, from) in [
                ("include_str!(\"", path.parent().unwrap()),
                ("include_bytes!(\"", path.parent().unwrap()),
                ("#[folder = \"", &repository("")),
            ] {
                for rest in source.split(begin).skip(1) {
                    let name = rest.split('"').next().unwrap();
                    let real = from.join(name).canonicalize().unwrap_or_else(|error| panic!("{name}: {error}"));
                    found.insert(real.strip_prefix(repository("").canonicalize().unwrap()).unwrap().to_owned());
                }
            }
        }
    }
}

#[test]
fn the_images_build_is_given_everything_that_it_reads() {
    let (ignore, dockerfile) = (text(".dockerignore"), text("Dockerfile"));
    let given: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in &given {
        assert!(repository(path).exists(), "{path}");
    }
    let mut read = BTreeSet::from(["src", "migrations"].map(PathBuf::from));
    embedded(&repository("src"), &mut read);
    assert!(read.contains(Path::new("config/default.toml")) && read.contains(Path::new("assets/demo")), "{read:?}");
    for line in dockerfile.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["COPY", sources @ .., _to] = &words[..] {
            let copied = !sources[0].starts_with("--from=");
            read.extend(sources.iter().filter(|source| copied && **source != ".").map(PathBuf::from));
        }
    }
    for path in read {
        assert!(given.iter().any(|given| path.starts_with(given)), "{}", path.display());
    }
}

/// Runs the container's first program on that folder as if by root, with programs in the place of those that only root
/// may run. Says whether it went well, what those were given, and what it wrote as an error.
fn start(data: &Path, folder: &Path) -> (bool, String, String) {
    let (programs, asked) = (folder.join("programs"), folder.join("asked"));
    fs::create_dir_all(&programs).unwrap();
    let _ = fs::remove_file(&asked);
    for (name, does) in [("id", "echo 0"), ("chown", "echo \"chown $*\" >>$ASKED"), ("setpriv", "echo \"$*\" >>$ASKED")]
    {
        let program = programs.join(name);
        fs::write(&program, format!("#!/bin/sh\n{does}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut start = Command::new("sh");
    start.arg(repository("deploy/container/start")).arg("serve").env("FOURSTEP_DATA__DIR", data).env("ASKED", &asked);
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = start.env("PATH", path).output().unwrap();
    let asked = fs::read_to_string(asked).unwrap_or_default();
    (output.status.success(), asked, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_container_takes_over_an_empty_folder_and_leaves_somebodys_alone() {
    let folder = TestFolder::new();
    let data = folder.0.join("data");
    fs::create_dir(&data).unwrap();
    let (went_well, asked, error) = start(&data, &folder.0);
    assert!(went_well && asked.starts_with(&format!("chown 10001:10001 {}\n", data.display())), "{asked}{error}");
    assert!(asked.contains("--reuid=10001") && asked.trim_end().ends_with("fourstep serve"), "{asked}");

    fs::write(data.join("lock"), "").unwrap();
    let (went_well, asked, error) = start(&data, &folder.0);
    assert!(!went_well && asked.is_empty(), "{asked}");
    assert!(error.contains("is not empty and belongs to user") && error.contains("Mount a volume"), "{error}");
}
