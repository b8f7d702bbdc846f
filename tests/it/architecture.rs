//! The arrows between the rooms of the house: who may `use` whom. What the compiler would allow, this does not.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module and what it may use of ours. A longer path goes before a shorter one.
const MAY_USE: &[(&str, &[&str])] = &[
    (
        "app",
        &[
            "artifacts",
            "config",
            "demo",
            "domain",
            "fetch",
            "http",
            "hub",
            "metrics",
            "pipeline",
            "postgres",
            "service",
            "store",
            "webhook",
            "worker",
        ],
    ),
    ("artifacts", &["domain"]),
    ("config", &[]),
    ("demo", &[]),
    ("domain", &[]),
    ("http", &["domain", "metrics", "service", "spans", "version", "wire"]),
    ("fetch", &[]),
    ("hub", &["domain"]),
    ("metrics", &[]),
    ("picture", &["version"]),
    ("pipeline", &[]),
    ("postgres", &[]),
    ("service", &["artifacts", "domain", "fetch", "metrics", "picture", "spans", "store", "version"]),
    ("spans", &[]),
    ("store", &["domain", "metrics"]),
    ("version", &[]),
    ("webhook", &["domain", "fetch", "metrics", "spans", "store", "wire"]),
    ("wire", &["domain"]),
    ("worker/predictor", &["domain", "metrics", "picture", "pipeline"]),
    ("worker", &["artifacts", "domain", "metrics", "picture", "spans", "store"]),
];

#[test]
fn every_arrow_points_the_way_the_design_says() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = BTreeSet::new();
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        // The crate's root declares the modules; the program is outside the library.
        if ["allocator.rs", "lib.rs", "main.rs"].contains(&path.as_str()) || path.starts_with("cli/") {
            continue;
        }
        let module = path.trim_end_matches(".rs");
        let (room, may_use) = MAY_USE
            .iter()
            .find(|(room, _)| module == *room || module.starts_with(&format!("{room}/")))
            .unwrap_or_else(|| panic!("{path} is in no room: add its module to the table"));
        for used in used_modules(&fs::read_to_string(&file).unwrap()) {
            let own = room.split('/').next().unwrap();
            if used != own && !may_use.contains(&used.as_str()) {
                wrong.insert(format!("{room} may not use {used}: see {path}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Files outside of the store that may name the database's client.
const MAY_NAME_SQLX: &[&str] = &[
    // A test of how errors are told, which makes one.
    "cli/failure.rs",
];

#[test]
fn only_the_store_knows_the_databases_client() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&source) {
        let path = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let names_it = code(&fs::read_to_string(&file).unwrap()).contains("sqlx");
        let may = path.starts_with("store/") || MAY_NAME_SQLX.contains(&path);
        assert!(may || !names_it, "{path} names sqlx");
        assert!(names_it || !MAY_NAME_SQLX.contains(&path), "{path} is no exception any more");
    }
}

/// The first word after each `crate::`, also inside `use crate::{…}`.
fn used_modules(text: &str) -> BTreeSet<String> {
    let word =
        |text: &str| text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect::<String>();
    let code = code(text);
    let mut used = BTreeSet::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, found)| code.split_at(at + found.len())) {
        match rest.strip_prefix('{') {
            None => {
                used.insert(word(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut starts = true;
                for (at, letter) in group.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => starts = true,
                        letter if starts && depth == 0 && letter.is_alphabetic() => {
                            used.insert(word(&group[at..]));
                            starts = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used
}

/// The lines that are no comments.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| [line, "\n"]).collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn imports_are_read_in_every_form() {
    let text = "use crate::service;\nuse crate::{\n    domain::{Input, Model},\n    wire::native,\n};\nlet x = crate::store::Store;\n// crate::comment";
    let expected = ["domain", "service", "store", "wire"].map(String::from);
    assert_eq!(used_modules(text), expected.into());
}
