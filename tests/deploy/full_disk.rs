//! A disk of outputs that is full: predictions fail and say so in the log, none succeeds without its picture, and none
//! is charged.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use sqlx::PgPool;

use crate::{
    process::{Client, Program, TestFolder, url_of},
    watching::{metric, scrape},
};

/// The outputs' disk, which the program has for itself in namespaces of its own.
const DISK: &str = "size=256k";

/// A program that mounts the small disk and becomes `fourstep`.
fn with_small_disk(folder: &Path, database_url: &str, log: &Path) -> Program {
    let outputs = folder.join("outputs");
    fs::create_dir_all(&outputs).unwrap();
    let script = format!(
        "mount -t tmpfs -o {DISK} tmpfs '{}' && exec '{}' \"$@\"",
        outputs.display(),
        env!("CARGO_BIN_EXE_fourstep")
    );
    let mut command = Command::new("unshare");
    if !nix::unistd::Uid::effective().is_root() {
        // Root in a namespace of users may mount as well; the real one needs none, and sees the socket of the database
        // there.
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    command.args(["serve", "--listen", "127.0.0.1:0", "--predictor", "mock", "--data-dir"]).arg(folder);
    command.env("FOURSTEP_ARTIFACTS__FOLDER", &outputs).env("DATABASE_URL", database_url).env("RUST_LOG", "info");
    command.stdout(Stdio::piped()).stderr(fs::File::create(log).unwrap());
    Program::server(command)
}

#[sqlx::test]
async fn nothing_succeeds_without_its_picture_when_the_disk_of_outputs_is_full(pool: PgPool) {
    let folder = TestFolder::new();
    let log = folder.0.join("log");
    let server = with_small_disk(&folder.0, &url_of(&pool), &log);
    let client = Client::of(&server, &folder.0);
    let (mut succeeded, mut failed, mut largest) = (0, 0, 0);
    while failed < 3 {
        let id = client.create().await.unwrap();
        let prediction = client.terminal(&id).await;
        match prediction["status"].as_str().unwrap() {
            "succeeded" => {
                let picture = reqwest::get(prediction["output"][0].as_str().unwrap()).await.unwrap();
                let bytes = picture.error_for_status().unwrap().bytes().await.unwrap();
                assert!(image::load_from_memory(&bytes).is_ok(), "{prediction}");
                largest = largest.max(bytes.len() as u64);
                succeeded += 1;
                assert!(succeeded < 1000, "the disk does not fill");
            }
            "failed" => {
                assert!(!prediction["error"].as_str().unwrap().is_empty(), "{prediction}");
                failed += 1;
            }
            other => panic!("{other}: {prediction}"),
        }
    }
    assert!(succeeded > 0, "the disk was full from the beginning");
    let metrics = scrape(&server, &client.key).await;
    assert_eq!(metric(&metrics, "fourstep_disk_size_bytes{disk=\"outputs\"}"), 256 * 1024);
    // A page for the folders of each.
    let free = metric(&metrics, "fourstep_disk_free_bytes{disk=\"outputs\"}");
    assert!(free < largest + 3 * 4096, "{free} bytes are free, and a picture has {largest}");
    let charged: i64 = sqlx::query_scalar("select count(*) from ledger").fetch_one(&pool).await.unwrap();
    assert_eq!(charged, succeeded, "what failed is free");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("No space left on device"), "{log}");
}
