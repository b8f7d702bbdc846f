//! Whatever stops a download, the next one goes on from there.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::http::Method;
use fourstep::hub::{Environment, Hub};

use crate::{
    fake_hub::{FakeHub, Fault, HubFile, sha256},
    setup::{CONNECTIONS, Home, RANGE, UNET, hub, model, pull, transfer},
};

const KILLS: u64 = 10;
const SIZE: u64 = 4 << 20;

/// Its bytes take long enough to be stopped in the middle.
fn slow() -> HubFile {
    HubFile { pace: Duration::from_millis(8), ..HubFile::large(SIZE as usize) }
}

/// Once more than this were given away, the next stop is due.
fn due(stop: u64) -> u64 {
    SIZE * (stop + 1) / (KILLS + 1)
}

fn assert_whole_and_hardly_repeated(home: &Home, fake: &FakeHub, file: &HubFile) {
    let blob = home.repository("acme/weights").join("blobs").join(&file.etag);
    assert_eq!(sha256(&fs::read(blob).unwrap()), file.etag);
    assert_eq!(home.blobs("acme/weights"), [file.etag.as_str()], "nothing unfinished is left");
    let (served, repeated) = fake.served();
    assert_eq!(served, SIZE + repeated);
    // What was on its way when it was stopped, on a slow disk as well: a range of each connection.
    assert!(repeated <= KILLS * CONNECTIONS as u64 * RANGE, "{repeated} bytes were served twice in {KILLS} stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_dropped_ten_times_repeats_at_most_the_ranges_under_way() {
    let (fake, home, file) = (FakeHub::start().await, Home::new(), slow());
    fake.put("acme/weights", "weights.bin", file.clone());
    for stop in 0..KILLS {
        let hub = hub(&home, &fake, &[]);
        let pulling = tokio::spawn(async move { pull(&hub, &model()).await });
        fake.has_served(due(stop)).await;
        assert!(!pulling.is_finished());
        pulling.abort();
        assert!(pulling.await.unwrap_err().is_cancelled());
    }
    pull(&hub(&home, &fake, &[]), &model()).await.unwrap();
    assert_whole_and_hardly_repeated(&home, &fake, &file);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_ten_times_repeats_at_most_the_ranges_under_way() {
    let (fake, home, file) = (FakeHub::start().await, Home::new(), slow());
    fake.put("acme/weights", "weights.bin", file.clone());
    for stop in 0..KILLS {
        let mut child = start_process(&home, &fake);
        fake.has_served(due(stop)).await;
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(start_process(&home, &fake).wait().unwrap().success());
    assert_whole_and_hardly_repeated(&home, &fake, &file);
}

/// This program again, running only the test below.
fn start_process(home: &Home, fake: &FakeHub) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "resume::pulls_in_a_process_of_its_own", "--ignored"])
        .env("HF_HOME", home.path())
        .env("HF_ENDPOINT", fake.endpoint())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "is started by a_process_killed_ten_times_repeats_at_most_the_ranges_under_way, with its environment"]
async fn pulls_in_a_process_of_its_own() {
    let hub = Hub::new(Environment::from_variables(std::env::vars()).unwrap(), transfer()).unwrap();
    pull(&hub, &model()).await.unwrap();
}

#[tokio::test]
async fn broken_connections_cost_no_byte() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let file = HubFile::large(300_000).with_faults([1, 100, 10_000, 40_000, 0, 60_000].map(Fault::Cut));
    fake.put("acme/weights", "weights.bin", file.clone());
    let folder = pull(&hub(&home, &fake, &[]), &model()).await.unwrap();
    assert_eq!(fs::read(folder.join(UNET)).unwrap(), file.bytes);
    assert_eq!(fake.served(), (300_000, 0));
}

#[tokio::test]
async fn a_connection_that_hangs_is_given_up_and_taken_up() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let file = HubFile::large(50_000).with_faults([Fault::Hang(20_000)]);
    fake.put("acme/weights", "weights.bin", file.clone());
    let folder = pull(&hub(&home, &fake, &[]), &model()).await.unwrap();
    assert_eq!(fs::read(folder.join(UNET)).unwrap(), file.bytes);
    assert_eq!(fake.served(), (50_000, 0));
}

#[tokio::test]
async fn a_server_without_ranges_gives_the_whole_file_again() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let file =
        HubFile { ranges: false, ..HubFile::large(300_000).with_faults([Fault::Cut(1000), Fault::Cut(250_000)]) };
    fake.put("acme/weights", "weights.bin", file.clone());
    let folder = pull(&hub(&home, &fake, &[]), &model()).await.unwrap();
    assert_eq!(fs::read(folder.join(UNET)).unwrap(), file.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_at_once_fetch_every_byte_once() {
    let (fake, home, file) = (FakeHub::start().await, Home::new(), slow());
    fake.put("acme/weights", "weights.bin", file.clone());
    let (first, second) = (hub(&home, &fake, &[]), hub(&home, &fake, &[]));
    let model = model();
    let (first, second) = tokio::join!(pull(&first, &model), pull(&second, &model));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(fake.served(), (SIZE, 0));
}

#[tokio::test]
async fn what_is_unfinished_is_not_mistaken_for_finished_by_other_programs() {
    let (fake, home) = (FakeHub::start().await, Home::new());
    let file =
        HubFile { always: Some(Fault::Cut(0)), ..HubFile::large(300_000).with_faults([Fault::Cut(RANGE as usize)]) };
    fake.put("acme/weights", "weights.bin", file.clone());
    pull(&hub(&home, &fake, &[]), &model()).await.unwrap_err();
    let names = home.blobs("acme/weights");
    assert!(names.iter().all(|name| name.ends_with(".incomplete")), "{names:?}");
    // What older versions of Python's library would resume by its length, which here is always that of the whole.
    assert!(!names.contains(&format!("{}.incomplete", file.etag)), "{names:?}");

    let plan = hub(&home, &fake, &[]).plan(&model()).await.unwrap();
    assert!(plan.files[0].present > 0, "a plan knows what an earlier pull left");
    assert_eq!(plan.missing(), 300_000 - plan.files[0].present);
    assert_eq!(fake.count(&Method::HEAD), 2);
}
