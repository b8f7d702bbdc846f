//! Crashes: of the server, of Postgres, and what they leave behind.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use fourstep::postgres::{Error, PrivateCluster};
use nix::sys::signal::{self, Signal};

use crate::support::{OtherServer, TestFolder, connect, exists, is_running, postmaster_pid, text};

#[tokio::test]
async fn after_kill_9_of_the_server_every_acknowledged_row_is_there() {
    let folder = TestFolder::new();
    let server = OtherServer::start(&folder.data_dir());
    let mut connection = connect(&server.url).await;
    sqlx::raw_sql("create table row (number integer)").execute(&mut connection).await.unwrap();
    let left_behind = postmaster_pid(&folder.data_dir().join("postgres/cluster")).unwrap();

    // Writes one row after the other until Postgres is stopped, and says how many were acknowledged.
    let load = tokio::spawn(async move {
        let mut acknowledged = 0;
        while sqlx::query("insert into row values ($1)").bind(acknowledged).execute(&mut connection).await.is_ok() {
            acknowledged += 1;
        }
        acknowledged
    });
    let mut observer = connect(&server.url).await;
    while text(&mut observer, "select count(*)::text from row").await.parse::<i32>().unwrap() < 20 {}
    server.kill();
    assert!(is_running(left_behind), "Postgres outlives its server");

    let cluster = folder.start().await;
    assert!(!is_running(left_behind));
    let kept: i32 = text(&mut connect(cluster.url()).await, "select count(*)::text from row").await.parse().unwrap();
    let acknowledged = load.await.unwrap();
    assert!(acknowledged >= 20);
    // One more may have been committed whose acknowledgment was cut off.
    assert!(kept == acknowledged || kept == acknowledged + 1, "{kept} of {acknowledged}");
    cluster.stop().await;
}

#[tokio::test]
async fn the_death_of_postgres_is_noticed_and_the_next_start_recovers() {
    let folder = TestFolder::new();
    let cluster = folder.start().await;
    let mut connection = connect(cluster.url()).await;
    sqlx::raw_sql("create table note as select 'kept' as words").execute(&mut connection).await.unwrap();
    let pid = postmaster_pid(&cluster.cluster_folder()).unwrap();

    signal::kill(pid, Signal::SIGKILL).unwrap();
    let error = cluster.exited().await;
    assert!(error.to_string().contains("signal: 9"), "{error}");
    assert!(!exists(pid), "no zombie is left");
    cluster.stop().await;

    let cluster = folder.start().await;
    assert_eq!(text(&mut connect(cluster.url()).await, "select words from note").await, "kept");
    cluster.stop().await;
}

#[tokio::test]
async fn a_dropped_cluster_is_told_to_stop_and_can_be_started_again() {
    let folder = TestFolder::new();
    let cluster = folder.start().await;
    let pid = postmaster_pid(&cluster.cluster_folder()).unwrap();
    drop(cluster);

    let cluster = folder.start().await;
    assert_ne!(postmaster_pid(&cluster.cluster_folder()).unwrap(), pid);
    assert!(!exists(pid));
    cluster.stop().await;
}

/// Starts a process of the account that Postgres runs under, because Postgres itself ignores those of others, and
/// makes what the stopped cluster could have left behind name it: `postmaster.pid` and the lock of the socket.
async fn name_a_stranger(folder: &TestFolder) -> Child {
    let cluster = folder.start().await;
    let pid_file = cluster.cluster_folder().join("postmaster.pid");
    let socket_lock = cluster.cluster_folder().with_file_name("socket").join(".s.PGSQL.5432.lock");
    let own_text = fs::read_to_string(&pid_file).unwrap();
    let owner = fs::metadata(&pid_file).unwrap();
    assert!(socket_lock.exists());
    cluster.stop().await;

    let stranger = Command::new("sleep").arg("600").uid(owner.uid()).spawn().unwrap();
    let (_, rest) = own_text.split_once('\n').unwrap();
    for file in [pid_file, socket_lock] {
        fs::write(&file, format!("{}\n{rest}", stranger.id())).unwrap();
        std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    stranger
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_stranger_harms_neither() {
    let folder = TestFolder::new();
    let mut stranger = name_a_stranger(&folder).await;
    folder.start().await.stop().await;
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger still runs");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[tokio::test]
async fn a_postmaster_that_nobody_has_buried_does_not_count_as_running() {
    let folder = TestFolder::new();
    let mut zombie = name_a_stranger(&folder).await;
    zombie.kill().unwrap();
    folder.start().await.stop().await;
    zombie.wait().unwrap();
}

#[tokio::test]
async fn an_interrupted_first_start_begins_anew() {
    let folder = TestFolder::new();
    let unfinished = folder.data_dir().join("postgres/cluster.unfinished");
    fs::create_dir_all(&unfinished).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();

    folder.start().await.stop().await;
    assert!(!unfinished.exists());
}

#[tokio::test]
async fn a_start_that_fails_shows_what_postgres_said() {
    let folder = TestFolder::new();
    let cluster = folder.start().await;
    let damaged = cluster.cluster_folder().join("global/pg_control");
    cluster.stop().await;
    File::options().write(true).open(damaged).unwrap().write_all(&[0; 64]).unwrap();

    let error = PrivateCluster::start(&folder.data_dir(), folder.options()).await.unwrap_err();
    assert!(matches!(error, Error::Exited { .. }), "{error:?}");
    assert!(error.to_string().contains("FATAL"), "{error}");
}

#[tokio::test]
async fn a_log_that_has_grown_is_put_aside_at_the_next_start() {
    let folder = TestFolder::new();
    folder.start().await.stop().await;
    let log = folder.data_dir().join("postgres.log");
    File::options().append(true).open(&log).unwrap().write_all(&vec![b'x'; 2 << 20]).unwrap();

    folder.start().await.stop().await;
    assert!(fs::metadata(&log).unwrap().len() < 64 << 10);
    assert!(fs::metadata(folder.data_dir().join("postgres.log.1")).unwrap().len() > 2 << 20);
}
