//! Every option that a deployment sets is one that there is.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{repository, text};

/// The variables of all options, as `FOURSTEP_SERVER__LISTEN`.
fn known() -> BTreeSet<String> {
    let defaults: toml::Table = text("config/default.toml").parse().unwrap();
    let sections = defaults.iter().map(|(section, options)| (section, options.as_table().unwrap()));
    sections
        .flat_map(|(section, options)| {
            options.keys().map(move |key| format!("FOURSTEP_{section}__{key}").to_uppercase())
        })
        .collect()
}

/// Words of a text that are variables of options.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_uppercase() || "_".contains(character)));
    let words = words.filter(|word| word.starts_with("FOURSTEP_") && word.trim_end_matches('_').contains("__"));
    // A secret's file, and not the option `file` of a section.
    let option = |word: &str| word.strip_suffix("_FILE").filter(|rest| !rest.ends_with('_')).unwrap_or(word).to_owned();
    words.map(option).collect()
}

fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(fs::read_to_string(&path).unwrap()),
        }
    }
}

#[test]
fn every_option_that_a_deployment_sets_is_one_that_there_is() {
    let mut texts = vec![text("Dockerfile"), text("docs/operations.md")];
    files(&repository("deploy"), &mut texts);
    let named: BTreeSet<String> = texts.iter().flat_map(|text| named(text)).collect();
    assert!(named.contains("FOURSTEP_DATA__DIR") && named.contains("FOURSTEP_METRICS__LISTEN"), "{named:?}");
    let unknown: Vec<_> = named.difference(&known()).cloned().collect();
    // In the chart's and the systemd unit's comments they are named by their pattern.
    assert_eq!(unknown, Vec::<String>::new());
}
