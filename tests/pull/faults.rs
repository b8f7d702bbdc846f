//! Servers that fail, lie or point elsewhere: nothing wrong ever counts, and every error says what to do.

use std::{
    fs,
    time::{Duration, Instant},
};

use axum::http::Method;
use fourstep::hub::{Error, Event};

use crate::{
    fake_hub::{COMMIT, FakeHub, Fault, HubFile},
    setup::{Home, RANGE, UNET, hub, model, model_of, pull, pull_watched},
};

/// Pulls a file that must not be accepted, and makes sure that nothing of it looks as if it were.
async fn refused(file: HubFile) -> Error {
    let (fake, home) = (FakeHub::start().await, Home::new());
    fake.put("acme/weights", "weights.bin", file);
    let error = pull(&hub(&home, &fake, &[]), &model()).await.unwrap_err();
    assert!(home.blobs("acme/weights").iter().all(|name| name.ends_with(".incomplete")), "{error}");
    assert!(!home.repository("acme/weights").join("snapshots").exists(), "{error}");
    assert!(!home.path().join("fourstep").exists(), "{error}");
    error
}

#[tokio::test]
async fn errors_of_the_server_are_outlasted() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let mut file = HubFile::large(100_000);
    file.head_faults = [(500, Vec::new()), (503, Vec::new()), (429, Vec::new())].into();
    let file = file.with_faults([500, 502, 504, 408].map(|status| Fault::Status(status, Vec::new())));
    fake.put("acme/weights", "weights.bin", file.clone());
    let folder = pull(&hub(&home, &fake, &[]), &model()).await.unwrap();
    assert_eq!(fs::read(folder.join(UNET)).unwrap(), file.bytes);
    assert_eq!(fake.served(), (100_000, 0));
}

#[tokio::test]
async fn errors_that_do_not_end_end_the_pull_and_their_bodies_are_no_file() {
    let error = refused(HubFile { always: Some(Fault::Status(500, Vec::new())), ..HubFile::small(b"no file") }).await;
    assert!(matches!(error, Error::Status { status: 500, .. }), "{error}");
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let busy = Fault::Status(429, vec![("retry-after", "1".to_owned())]);
    fake.put("acme/weights", "weights.bin", HubFile::large(1000).with_faults([busy]));
    let began = Instant::now();
    let (result, events) = pull_watched(&hub(&home, &fake, &[]), &model()).await;
    result.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    let told = |event: &Event| matches!(event, Event::Broken { reason, .. } if reason.contains("429"));
    assert!(events.iter().any(told), "{events:?}");
}

#[tokio::test]
async fn bytes_damaged_once_are_fetched_again() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let file = HubFile::large(300_000).with_faults([Fault::Damage]);
    fake.put("acme/weights", "weights.bin", file.clone());
    let (result, events) = pull_watched(&hub(&home, &fake, &[]), &model()).await;
    assert_eq!(fs::read(result.unwrap().join(UNET)).unwrap(), file.bytes);
    assert!(events.contains(&Event::Damaged { file: 0 }));
}

#[tokio::test]
async fn a_wrong_hash_never_counts() {
    for file in [HubFile::large(300_000), HubFile::small(b"{}")] {
        let error = refused(HubFile { always: Some(Fault::Damage), ..file }).await;
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_size_never_counts() {
    for size in [299_999, 300_001, 1] {
        let error = refused(HubFile { size, ..HubFile::large(300_000) }).await;
        assert!(matches!(error, Error::Answer { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_size_beyond_reason_is_refused() {
    for size in [(1 << 60) + 1, u64::MAX] {
        let error = refused(HubFile { size, ..HubFile::large(1000) }).await;
        assert!(matches!(error, Error::Answer { .. }), "{error}");
    }
}

#[tokio::test]
async fn bytes_from_elsewhere_in_the_file_are_not_taken() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let file = HubFile::large(300_000).with_faults([Fault::OtherRange, Fault::OtherRange]);
    fake.put("acme/weights", "weights.bin", file.clone());
    let (result, events) = pull_watched(&hub(&home, &fake, &[]), &model()).await;
    assert_eq!(fs::read(result.unwrap().join(UNET)).unwrap(), file.bytes);
    assert!(!events.contains(&Event::Damaged { file: 0 }), "noticed before the bytes were written");
}

#[tokio::test]
async fn an_etag_that_is_no_hash_is_refused() {
    for etag in ["", "5f3e-18a", "../../../../etc/passwd"] {
        let error = refused(HubFile { etag: etag.to_owned(), ..HubFile::small(b"{}") }).await;
        assert!(error.to_string().contains("no hash"), "{error}");
    }
}

#[tokio::test]
async fn another_commit_than_the_pinned_one_is_refused() {
    let other = "ffffffffffffffffffffffffffffffffffffffff";
    let error = refused(HubFile { commit: Some(other), ..HubFile::small(b"{}") }).await;
    assert!(error.to_string().contains(other), "{error}");
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_to_no_host_it_redirects_to() {
    let (fake, storage, home) = (FakeHub::start().await, FakeHub::start().await, Home::new());
    let file = HubFile::large(300_000);
    fake.put("acme/weights", "weights.bin", HubFile { storage: Some(storage.address), ..file.clone() });
    storage.put("acme/weights", "weights.bin", file.clone());
    let folder = pull(&hub(&home, &fake, &[("HF_TOKEN", "hf_secret")]), &model()).await.unwrap();
    assert_eq!(fs::read(folder.join(UNET)).unwrap(), file.bytes);
    assert!(fake.seen().iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_secret")));
    assert!(storage.seen().iter().all(|seen| seen.authorization.is_none()));
    assert_eq!(storage.count(&Method::GET), 300_000_usize.div_ceil(RANGE as usize));
    assert!(storage.seen().iter().all(|seen| seen.range.is_some() && seen.path.ends_with("weights.bin")));
}

#[tokio::test]
async fn the_token_comes_from_its_file_unless_that_is_forbidden() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    fs::write(home.path().join("token"), "hf_from_file\n").unwrap();
    fake.put("acme/weights", "weights.bin", HubFile::small(b"{}"));
    hub(&home, &fake, &[]).plan(&model()).await.unwrap();
    hub(&home, &fake, &[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).plan(&model()).await.unwrap();
    let tokens: Vec<_> = fake.seen().into_iter().map(|seen| seen.authorization).collect();
    assert_eq!(tokens, [Some("Bearer hf_from_file".to_owned()), None]);
}

#[tokio::test]
async fn what_would_not_fit_on_the_disk_is_refused_before_a_byte_is_fetched() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    fake.put("acme/weights", "weights.bin", HubFile { size: 1 << 60, ..HubFile::large(1000) });
    let error = pull(&hub(&home, &fake, &[]), &model()).await.unwrap_err();
    assert!(matches!(error, Error::DiskFull { needed, .. } if needed == 1 << 60), "{error}");
    assert!(error.to_string().contains("1.15 EB to download"), "{error}");
    assert_eq!(fake.count(&Method::GET), 0);
    assert!(!home.path().join("hub").exists());
}

#[tokio::test]
async fn offline_nobody_is_asked() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    fake.put("acme/weights", "weights.bin", HubFile::large(1000));
    let error = pull(&hub(&home, &fake, &[("HF_HUB_OFFLINE", "1")]), &model()).await.unwrap_err();
    assert!(matches!(&error, Error::Offline { missing: 1, first } if first == "acme/weights/weights.bin"), "{error}");
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_refusal_says_what_to_do_about_it_and_is_not_repeated() {
    let token = [("HF_TOKEN", "hf_secret")];
    type Case<'a> = (u16, &'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Case<'_>; 4] = [
        (401, &[], &["private or gated", "HF_TOKEN"]),
        (401, &token, &["refused the token"]),
        (403, &token, &["accept the license at http://", "/acme/weights"]),
        (404, &[], &["acme/weights/weights.bin", COMMIT]),
    ];
    for (status, variables, words) in cases {
        let (fake, home) = (FakeHub::start().await, Home::new());
        let mut file = HubFile::small(b"{}");
        file.head_faults = [(status, vec![("x-error-message", "Said by the hub".to_owned())])].into();
        fake.put("acme/weights", "weights.bin", file);
        let error = pull(&hub(&home, &fake, variables), &model()).await.unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains("hf_secret"), "{error}");
        assert_eq!(fake.seen().len(), 1, "{error}");
    }
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_named() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let gone = hub(&home, &fake, &[("HF_ENDPOINT", "http://127.0.0.1:9")]);
    let error = pull(&gone, &model()).await.unwrap_err();
    assert!(error.to_string().starts_with("http://127.0.0.1:9/acme/weights/resolve/"), "{error}");
}

#[tokio::test]
async fn names_that_lead_out_of_the_cache_are_refused() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let wrong = [
        ("acme/..", COMMIT, "weights.bin", UNET),
        ("../acme", COMMIT, "weights.bin", UNET),
        ("acme", COMMIT, "weights.bin", UNET),
        ("acme/weights", "../main", "weights.bin", UNET),
        ("acme/weights", COMMIT, "../weights.bin", UNET),
        ("acme/weights", COMMIT, "weights.bin", "/etc/passwd"),
        ("acme/weights", COMMIT, "weights.bin", "unet/../../x"),
    ];
    for file in wrong {
        let error = pull(&hub(&home, &fake, &[]), &model_of(&[file])).await.unwrap_err();
        assert!(matches!(error, Error::Catalog { .. }), "{error}");
    }
    assert!(matches!(pull(&hub(&home, &fake, &[]), &model_of(&[])).await, Err(Error::NothingToPull { .. })));
    assert!(fake.seen().is_empty());
}
