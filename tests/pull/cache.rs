//! The cache and the model's folder: laid out as Python's, found without the network, verified when pulled.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use axum::http::Method;
use fourstep::{
    domain::Model,
    hub::{Error, Event, find_model},
};

use crate::{
    fake_hub::{COMMIT, FakeHub, HubFile},
    setup::{Home, UNET, contents, hub, model, model_of, pull, pull_watched},
};

const CONFIG: &[u8] = br#"{"sample_size": 8}"#;

/// Files of two repositories; the second keeps its names.
fn two_repositories() -> Model {
    model_of(&[
        ("acme/weights", COMMIT, "weights.bin", UNET),
        ("acme/base", COMMIT, "unet/config.json", "unet/config.json"),
        ("acme/base", COMMIT, "empty.txt", "empty.txt"),
    ])
}

fn put_all(fake: &FakeHub) -> HubFile {
    let weights = HubFile::large(100_000);
    fake.put("acme/weights", "weights.bin", weights.clone());
    fake.put("acme/base", "unet/config.json", HubFile::small(CONFIG));
    fake.put("acme/base", "empty.txt", HubFile::small(b""));
    weights
}

#[tokio::test]
async fn a_pulled_model_is_one_folder_of_links_into_pythons_layout() {
    let (fake, home, model) = (FakeHub::start().await, Home::new(), two_repositories());
    let weights = put_all(&fake);
    let folder = pull(&hub(&home, &fake, &[]), &model).await.unwrap();

    assert_eq!(folder, home.path().join("fourstep/tiny").join(&model.version[..12]));
    let expected = [
        (UNET.to_owned(), weights.bytes.to_vec()),
        ("unet/config.json".to_owned(), CONFIG.to_vec()),
        ("empty.txt".to_owned(), Vec::new()),
    ];
    assert_eq!(contents(&folder), expected.into());

    let snapshot = home.repository("acme/base").join("snapshots").join(COMMIT);
    let blob = Path::new("../../../blobs").join(HubFile::small(CONFIG).etag);
    assert_eq!(fs::read_link(snapshot.join("unet/config.json")).unwrap(), blob);
    let link = fs::read_link(folder.join("unet/config.json")).unwrap();
    assert_eq!(link, Path::new("../../../../hub/models--acme--base/snapshots").join(COMMIT).join("unet/config.json"));
    assert!(home.path().join("hub/.locks/models--acme--weights").join(format!("{}.lock", weights.etag)).is_file());
    assert!(!home.repository("acme/base").join("refs").exists(), "a commit needs no reference");
}

#[tokio::test]
async fn a_complete_model_is_found_without_the_network_wherever_its_tree_is_moved() {
    let (fake, home, model) = (FakeHub::start().await, Home::new(), two_repositories());
    put_all(&fake);
    assert_eq!(find_model(&model, &home.environment(&[])), None);
    let folder = pull(&hub(&home, &fake, &[]), &model).await.unwrap();
    let asked = fake.seen().len();

    assert_eq!(find_model(&model, &home.environment(&[])), Some(folder.clone()));
    let offline = hub(&home, &fake, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(pull(&offline, &model).await.unwrap(), folder);
    assert_eq!(pull(&hub(&home, &fake, &[]), &model).await.unwrap(), folder);
    assert_eq!(fake.seen().len(), asked, "pinned files that are here need no request");

    let elsewhere = Home::new();
    fs::remove_dir(elsewhere.path()).unwrap();
    fs::rename(home.path(), elsewhere.path()).unwrap();
    let moved = elsewhere.path().join(folder.strip_prefix(home.path()).unwrap());
    assert_eq!(fs::read(moved.join("unet/config.json")).unwrap(), CONFIG);
}

/// As Python's library leaves a file in the cache.
fn download_with_python(home: &Home, repository: &str, path: &str, file: &HubFile) -> PathBuf {
    let blob = home.repository(repository).join("blobs").join(&file.etag);
    let pointer = home.repository(repository).join("snapshots").join(COMMIT).join(path);
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::create_dir_all(pointer.parent().unwrap()).unwrap();
    fs::write(&blob, &file.bytes).unwrap();
    let up = "../".repeat(path.split('/').count() + 1);
    symlink(format!("{up}blobs/{}", file.etag), &pointer).unwrap();
    pointer
}

#[tokio::test]
async fn what_python_downloaded_is_found_and_not_downloaded_again() {
    let (fake, home, file) = (FakeHub::start().await, Home::new(), HubFile::large(1000));
    download_with_python(&home, "acme/weights", "weights.bin", &file);
    let folder = find_model(&model(), &home.environment(&[])).unwrap();
    assert_eq!(fs::read(folder.join(UNET)).unwrap(), file.bytes);
    assert_eq!(pull(&hub(&home, &fake, &[]), &model()).await.unwrap(), folder);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_branch_is_looked_up_in_refs_when_offline_and_on_the_hub_otherwise() {
    let (fake, home, file) = (FakeHub::start().await, Home::new(), HubFile::large(1000));
    fake.put("acme/weights", "weights.bin", file);
    let model = model_of(&[("acme/weights", "main", "weights.bin", UNET)]);
    assert_eq!(find_model(&model, &home.environment(&[])), None);
    let folder = pull(&hub(&home, &fake, &[]), &model).await.unwrap();
    assert_eq!(fs::read_to_string(home.repository("acme/weights").join("refs/main")).unwrap(), COMMIT);
    assert_eq!(find_model(&model, &home.environment(&[])), Some(folder));
    pull(&hub(&home, &fake, &[]), &model).await.unwrap();
    assert_eq!((fake.count(&Method::HEAD), fake.count(&Method::GET)), (2, 1));
}

#[tokio::test]
async fn a_file_damaged_in_the_cache_is_noticed_and_fetched_again() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let file = HubFile::large(1000);
    fake.put("acme/weights", "weights.bin", file.clone());
    let folder = pull(&hub(&home, &fake, &[]), &model()).await.unwrap();
    let blob = home.repository("acme/weights").join("blobs").join(&file.etag);
    fs::write(&blob, vec![0; 1000]).unwrap();

    let offline = hub(&home, &fake, &[("HF_HUB_OFFLINE", "1")]);
    assert!(matches!(pull(&offline, &model()).await, Err(Error::Corrupt { .. })));
    let (result, events) = pull_watched(&hub(&home, &fake, &[]), &model()).await;
    assert_eq!(result.unwrap(), folder);
    assert!(events.contains(&Event::Damaged { file: 0 }), "{events:?}");
    assert_eq!(fs::read(folder.join(UNET)).unwrap(), file.bytes);
}

#[tokio::test]
async fn what_replaces_a_damaged_file_has_to_fit_on_the_disk() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let file = HubFile::large(1000);
    fake.put("acme/weights", "weights.bin", file.clone());
    pull(&hub(&home, &fake, &[]), &model()).await.unwrap();
    let blob = home.repository("acme/weights").join("blobs").join(&file.etag);
    fs::write(&blob, vec![0; 1000]).unwrap();
    let size = 1 << 42;
    fake.put("acme/weights", "weights.bin", HubFile { size, ..file });
    let error = pull(&hub(&home, &fake, &[]), &model()).await.unwrap_err();
    assert!(matches!(error, Error::DiskFull { needed, .. } if needed == size), "{error}");
}

#[tokio::test]
async fn a_plan_lists_sizes_and_what_is_here_and_changes_nothing() {
    let (fake, home, model) = (FakeHub::start().await, Home::new(), two_repositories());
    put_all(&fake);
    download_with_python(&home, "acme/base", "unet/config.json", &HubFile::small(CONFIG));
    let before = contents(home.path());
    let plan = hub(&home, &fake, &[]).plan(&model).await.unwrap();
    let sizes: Vec<_> = plan.files.iter().map(|file| (file.size.unwrap(), file.is_complete())).collect();
    assert_eq!(sizes, [(100_000, false), (CONFIG.len() as u64, true), (0, true)]);
    assert_eq!((plan.size(), plan.missing()), (100_000 + CONFIG.len() as u64, 100_000));
    assert_eq!((contents(home.path()), fake.count(&Method::GET)), (before, 0));

    let plan = hub(&home, &fake, &[("HF_HUB_OFFLINE", "1")]).plan(&model).await.unwrap();
    let sizes: Vec<_> = plan.files.iter().map(|file| file.size).collect();
    assert_eq!(sizes, [None, Some(CONFIG.len() as u64), None]);
}

#[tokio::test]
async fn a_file_named_twice_is_fetched_once() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    fake.put("acme/weights", "weights.bin", HubFile::large(1000));
    let model = model_of(&[
        ("acme/weights", COMMIT, "weights.bin", "text_encoder/model.safetensors"),
        ("acme/weights", COMMIT, "weights.bin", "text_encoder_2/model.safetensors"),
    ]);
    let folder = pull(&hub(&home, &fake, &[]), &model).await.unwrap();
    assert_eq!(contents(&folder).len(), 2);
    assert_eq!(fake.served(), (1000, 0));
}

/// With a file that every picture depends on, and one that none does, in a repository and at a revision of its own.
fn with_checker() -> Model {
    model_of(&[
        ("acme/weights", COMMIT, "weights.bin", UNET),
        ("acme/checker", CHECKER_COMMIT, "model.safetensors", CHECKER),
    ])
}

const CHECKER: &str = "safety_checker/model.safetensors";
const CHECKER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

fn put_with_checker(fake: &FakeHub) {
    fake.put("acme/weights", "weights.bin", HubFile::large(1000));
    fake.put("acme/checker", "model.safetensors", HubFile { commit: Some(CHECKER_COMMIT), ..HubFile::large(2000) });
}

#[tokio::test]
async fn a_pull_brings_the_safety_checker_too_at_its_own_revision() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    put_with_checker(&fake);
    let folder = pull(&hub(&home, &fake, &[]), &with_checker()).await.unwrap();
    let expected =
        [(UNET, 1000), (CHECKER, 2000)].map(|(name, size)| (name.to_owned(), HubFile::large(size).bytes.to_vec()));
    assert_eq!(contents(&folder), expected.into());
    let snapshot = home.repository("acme/checker").join("snapshots").join(CHECKER_COMMIT);
    assert!(snapshot.join("model.safetensors").is_file());
    assert_eq!(find_model(&with_checker(), &home.environment(&[])), Some(folder));
}

#[tokio::test]
async fn a_model_is_whole_without_its_safety_checker_and_takes_it_when_it_comes() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    put_with_checker(&fake);
    let required = with_checker().without_optional_files();
    assert_eq!(required.version, with_checker().version, "what draws the pictures is the same");
    let folder = pull(&hub(&home, &fake, &[]), &required).await.unwrap();
    assert!(
        fake.seen().iter().all(|request| !request.path.contains("checker")),
        "nothing is asked of what is left out"
    );
    assert_eq!(find_model(&with_checker(), &home.environment(&[])), Some(folder.clone()));
    assert!(!folder.join(CHECKER).exists());

    let checker = HubFile { commit: Some(CHECKER_COMMIT), ..HubFile::large(2000) };
    let blob = home.repository("acme/checker").join("blobs").join(&checker.etag);
    let pointer = home.repository("acme/checker").join("snapshots").join(CHECKER_COMMIT).join("model.safetensors");
    for path in [&blob, &pointer] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    fs::write(&blob, &checker.bytes).unwrap();
    symlink(&blob, &pointer).unwrap();
    assert_eq!(find_model(&with_checker(), &home.environment(&[])), Some(folder.clone()));
    assert_eq!(fs::read(folder.join(CHECKER)).unwrap(), checker.bytes);
}
