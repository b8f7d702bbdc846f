//! What may become a part of the program: the licenses and sources of `deny.toml`, which `cargo deny` holds as well
//! where it is installed, and beside them known faults.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::{repository, text};

/// Whether an expression of SPDX's is true when these licenses are: `MIT OR Apache-2.0`, `(A OR B) AND C`.
fn is_allowed(expression: &str, licenses: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "-WITH-");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut at = 0;
    let allowed = any(&words, &mut at, licenses);
    assert_eq!(at, words.len(), "{expression:?} is no expression");
    allowed
}

/// Alternatives. All are read, whatever the first says.
fn any(words: &[&str], at: &mut usize, licenses: &BTreeSet<String>) -> bool {
    let mut allowed = all(words, at, licenses);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= all(words, at, licenses);
    }
    allowed
}

fn all(words: &[&str], at: &mut usize, licenses: &BTreeSet<String>) -> bool {
    let mut allowed = one(words, at, licenses);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= one(words, at, licenses);
    }
    allowed
}

fn one(words: &[&str], at: &mut usize, licenses: &BTreeSet<String>) -> bool {
    let word = words[*at];
    *at += 1;
    if word != "(" {
        return licenses.contains(&word.replace("-WITH-", " WITH "));
    }
    let allowed = any(words, at, licenses);
    assert_eq!(words.get(*at), Some(&")"));
    *at += 1;
    allowed
}

#[test]
fn every_dependency_is_from_crates_io_under_a_license_that_is_allowed() {
    let deny: toml::Table = text("deny.toml").parse().unwrap();
    let strings = |value: &toml::Value| -> BTreeSet<String> {
        value.as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    let allowed = strings(&deny["licenses"]["allow"]);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--all-features", "--format-version", "1"]).current_dir(repository(""));
    for target in strings(&deny["graph"]["targets"]) {
        cargo.args(["--filter-platform", &target]);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "{}", packages.len());
    for package in packages {
        let (name, source) = (package["name"].as_str().unwrap(), package["source"].as_str());
        assert!(
            source.is_none_or(|source| source == "registry+https://github.com/rust-lang/crates.io-index"),
            "{name} is from {source:?}"
        );
        let license = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no license"));
        assert!(is_allowed(license, &allowed), "{name}: {license}");
        assert!(!["openssl", "openssl-sys", "native-tls"].contains(&name), "{name}: a second TLS");
    }
}
