//! What is refused, and whether the message says what to do.

use std::fs;

use fourstep::postgres::{Error, PrivateCluster};

use crate::support::{OtherServer, TestFolder, is_root};

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused_and_told_who_has_it() {
    let folder = TestFolder::new();
    let first = OtherServer::start(&folder.data_dir());

    let error = PrivateCluster::start(&folder.data_dir(), folder.options()).await.unwrap_err();
    assert!(matches!(error, Error::Locked { holder: Some(pid), .. } if pid == first.pid()), "{error}");
    assert!(error.to_string().contains(&format!("(process {})", first.pid())), "{error}");
    first.kill();
    folder.start().await.stop().await;
}

#[tokio::test]
async fn of_two_that_start_at_once_exactly_one_wins() {
    let folder = TestFolder::new();
    let start = async || PrivateCluster::start(&folder.data_dir(), folder.options()).await;
    let (left, right) = tokio::join!(start(), start());
    let (winner, refusal) = match (left, right) {
        (Ok(winner), Err(refusal)) | (Err(refusal), Ok(winner)) => (winner, refusal),
        other => panic!("one wins and one is refused: {other:?}"),
    };
    assert!(matches!(refusal, Error::Locked { .. }), "{refusal}");
    winner.stop().await;
}

#[tokio::test]
async fn a_cluster_of_another_major_version_is_refused_with_the_way_to_move_it() {
    let folder = TestFolder::new();
    let cluster = folder.data_dir().join("postgres/cluster");
    fs::create_dir_all(&cluster).unwrap();
    fs::write(cluster.join("PG_VERSION"), "9.6\n").unwrap();
    give_to_an_account(&cluster);

    let error = PrivateCluster::start(&folder.data_dir(), folder.options()).await.unwrap_err().to_string();
    let data_dir = folder.data_dir();
    for expected in [
        "was made by PostgreSQL 9.6".to_owned(),
        format!("--file=fourstep.dump \"$(fourstep db url --data-dir {})\"", data_dir.display()),
        format!("mv {0}/postgres {0}/postgres-9.6", data_dir.display()),
        "pg_restore --clean".to_owned(),
    ] {
        assert!(error.contains(&expected), "{expected}\nis not in\n{error}");
    }
}

#[tokio::test]
async fn a_cluster_that_belongs_to_root_is_refused_with_the_command_that_helps() {
    if !is_root() {
        // Nobody else can make such a folder.
        return;
    }
    let folder = TestFolder::new();
    fs::create_dir_all(folder.data_dir().join("postgres/cluster")).unwrap();
    let error = PrivateCluster::start(&folder.data_dir(), folder.options()).await.unwrap_err().to_string();
    assert!(error.contains("chown -R postgres"), "{error}");
}

#[tokio::test]
async fn where_no_postgres_is_installed_the_message_says_how_to_install_it() {
    let folder = TestFolder::new();
    let mut options = folder.options();
    options.binaries = Some(folder.join("empty"));
    let error = PrivateCluster::start(&folder.data_dir(), options).await.unwrap_err();
    assert!(matches!(error, Error::NotInstalled { .. }), "{error}");
    assert!(error.to_string().contains("Install"), "{error}");
    assert!(error.to_string().contains("DATABASE_URL"), "{error}");
}

#[tokio::test]
async fn an_account_that_does_not_exist_is_named() {
    if !is_root() {
        // Everybody else is their own account.
        return;
    }
    let folder = TestFolder::new();
    let mut options = folder.options();
    options.account = Some("no-such-account".to_owned());
    let error = PrivateCluster::start(&folder.data_dir(), options).await.unwrap_err();
    assert!(error.to_string().contains("no-such-account"), "{error}");
}

/// Root's own folders are refused for another reason.
fn give_to_an_account(folder: &std::path::Path) {
    if is_root() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        nix::unistd::chown(folder, Some(nobody.uid), Some(nobody.gid)).unwrap();
    }
}
