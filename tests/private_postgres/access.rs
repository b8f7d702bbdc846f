//! What a started cluster is like, and who may use it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use fourstep::postgres::{binaries, running_url};
use nix::unistd::{User, getpgid, getpgrp};

use crate::support::{TestFolder, connect, is_root, postmaster_pid, text};

#[tokio::test]
async fn a_new_cluster_is_durable_and_only_on_its_socket() {
    let folder = TestFolder::new();
    let cluster = folder.start().await;
    let mut connection = connect(cluster.url()).await;

    for (query, expected) in [
        ("show fsync", "on"),
        ("show synchronous_commit", "on"),
        ("show full_page_writes", "on"),
        ("show data_checksums", "on"),
        ("show listen_addresses", ""),
        ("show server_encoding", "UTF8"),
        ("show timezone", "UTC"),
        ("select datcollate from pg_database where datname = current_database()", "C"),
        ("select current_database()::text", "fourstep"),
        ("select rolsuper::text from pg_roles where rolname = current_user", "false"),
        ("select pg_get_userbyid(datdba)::text from pg_database where datname = current_database()", "fourstep"),
    ] {
        assert_eq!(text(&mut connection, query).await, expected, "{query}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_under_the_same_url() {
    let folder = TestFolder::new();
    let cluster = folder.start().await;
    let first_url = cluster.url().to_owned();
    let mut connection = connect(&first_url).await;
    sqlx::raw_sql("create table note as select 'kept' as words").execute(&mut connection).await.unwrap();
    // The connection stays open: a stop does not wait for clients.
    cluster.stop().await;

    let cluster = folder.start().await;
    assert_eq!(cluster.url(), first_url);
    assert_eq!(text(&mut connect(cluster.url()).await, "select words from note").await, "kept");
    cluster.stop().await;
}

#[tokio::test]
async fn the_url_also_works_for_psql_and_is_found_by_a_second_process() {
    let folder = TestFolder::new();
    let cluster = folder.start().await;
    let url = running_url(&folder.data_dir()).unwrap();
    assert_eq!(url, cluster.url());

    let psql = Command::new(binaries::find().unwrap().directory().join("psql"))
        .args([&url, "--no-psqlrc", "--tuples-only", "--no-align", "--command", "select current_user"])
        // Would send it elsewhere if the URL left anything open.
        .envs([("PGPORT", "1"), ("PGHOST", "/nowhere"), ("PGUSER", "nobody"), ("PGDATABASE", "nothing")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout).trim(), "fourstep", "{psql:?}");

    cluster.stop().await;
    let error = running_url(&folder.data_dir()).unwrap_err().to_string();
    assert!(error.contains("no server runs its own database"), "{error}");
}

#[tokio::test]
async fn the_processes_have_no_privileges_and_do_not_hear_ctrl_c() {
    let folder = TestFolder::new();
    let cluster = folder.start().await;
    let pid = postmaster_pid(&cluster.cluster_folder()).unwrap();

    assert_ne!(getpgid(Some(pid)).unwrap(), getpgrp(), "Ctrl-C goes to our process group");
    let owner = fs::metadata(cluster.cluster_folder()).unwrap().uid();
    assert_ne!(owner, 0);
    if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        assert!(field("Uid:").split_whitespace().all(|uid| uid == owner.to_string()), "{status}");
        if is_root() {
            assert_eq!(field("Groups:"), "", "root's groups are not passed on");
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn another_account_is_turned_away() {
    if !is_root() {
        // Only root can be somebody else for a moment.
        return;
    }
    let folder = TestFolder::new();
    let cluster = folder.start().await;
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let url = cluster.url().to_owned();

    let stranger = |role: &str| {
        let output = Command::new(binaries::find().unwrap().directory().join("psql"))
            .args([&url.replace("fourstep@", &format!("{role}@")), "--command", "select 1"])
            .uid(nobody.uid.as_raw())
            .gid(nobody.gid.as_raw())
            .current_dir("/")
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(stranger("fourstep").contains("Permission denied"), "the folder of the socket is closed");

    // Even through an open door nobody but the admitted accounts is let in.
    let home = cluster.cluster_folder().parent().unwrap().to_owned();
    for opened in [home.join("socket"), home.join("socket/.s.PGSQL.5432")] {
        fs::set_permissions(opened, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    assert!(stranger("fourstep").contains("Peer authentication failed"));
    assert!(stranger("postgres").contains("Peer authentication failed"));
    cluster.stop().await;
}
