//! `fourstep pull`, told by the program itself.

use std::{
    fs,
    process::{Command, Output},
};

use axum::http::Method;

use crate::{
    fake_hub::{COMMIT, FakeHub, HubFile},
    setup::{Home, UNET, catalog_of, contents},
};

/// Runs `fourstep pull MODEL` where the catalog has `tiny`, a large file and a small one.
async fn pull(fake: &FakeHub, home: &Home, model: &str, arguments: &[&str]) -> Output {
    let catalog = home.path().join("models.toml");
    let files =
        [("acme/weights", COMMIT, "weights.bin", UNET), ("acme/base", COMMIT, "unet/config.json", "unet/config.json")];
    fs::write(&catalog, catalog_of(&files)).unwrap();
    let config = home.path().join("fourstep.toml");
    fs::write(&config, format!("[models]\ncatalog = {:?}\n", catalog.to_str().unwrap())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fourstep"));
    command.args(["pull", model, "--config"]).arg(config).args(arguments).env_remove("RUST_LOG");
    command.env("HF_HOME", home.path()).env("HF_ENDPOINT", fake.endpoint());
    for variable in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"] {
        command.env_remove(variable);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

/// What is said of a file in a listing: everything behind its name.
fn listed<'a>(listing: &'a str, name: &str) -> &'a str {
    listing.lines().find_map(|line| line.trim_start().strip_prefix(name)).unwrap_or_else(|| panic!("{listing}")).trim()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_lists_before_it_fetches_and_tells_in_plain_lines_what_it_did() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let (weights, config) = (HubFile::large(300_000), HubFile::small(br#"{"sample_size": 8}"#));
    fake.put("acme/weights", "weights.bin", weights.clone());
    fake.put("acme/base", "unet/config.json", config.clone());

    let dry = pull(&fake, &home, "tiny", &["--dry-run"]).await;
    assert_eq!(listed(stdout(&dry), "acme/weights/weights.bin"), "300 kB  to download");
    assert_eq!(listed(stdout(&dry), "acme/base/unet/config.json"), "18 B  to download");
    assert!(stdout(&dry).contains("300 kB in all, 300 kB to download\n"), "{}", stdout(&dry));
    assert_eq!(fake.count(&Method::GET), 0, "nothing is downloaded");

    let pulled = pull(&fake, &home, "tiny", &[]).await;
    let folder = stdout(&pulled).trim_end();
    let expected = [(UNET, &weights), ("unet/config.json", &config)];
    let expected = expected.map(|(name, file)| (name.to_owned(), file.bytes.to_vec()));
    assert_eq!(contents(folder.as_ref()), expected.into(), "standard output is the model's folder");
    let told = String::from_utf8(pulled.stderr).unwrap();
    assert!(told.starts_with("2 files, 300 kB to download\n"), "{told}");
    assert!(told.contains(&format!("{UNET}: here, and verified\n")), "{told}");
    assert!(!told.contains(['\r', '\u{1b}']), "bars are for terminals: {told:?}");

    let again = pull(&fake, &home, "tiny", &["--dry-run"]).await;
    assert_eq!(listed(stdout(&again), "acme/weights/weights.bin"), "300 kB  here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_the_catalog_does_not_have_is_answered_with_those_it_has() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let output = pull(&fake, &home, "huge", &[]).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains(r#"no model "huge"; it has tiny"#), "{told}");
    assert!(fake.seen().is_empty());
}
