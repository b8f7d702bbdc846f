//! Data directories where the cluster or its socket has to lie somewhere else.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fourstep::postgres::{Error, PrivateCluster, running_url};

use crate::support::{TestFolder, connect, is_root, text};

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_one_that_is_removed_again() {
    let folder = TestFolder::new();
    let short_folder = folder.join("s");
    fs::create_dir(&short_folder).unwrap();
    let mut data_dir = folder.data_dir();
    while data_dir.as_os_str().len() < 300 {
        data_dir.push("a folder, \"deep\" 100% + more");
    }
    let mut options = folder.options();
    options.short_folder = short_folder.clone();

    let cluster = PrivateCluster::start(&data_dir, options).await.unwrap();
    assert!(cluster.url().contains(short_folder.to_str().unwrap()), "{}", cluster.url());
    assert_eq!(running_url(&data_dir).unwrap(), cluster.url());
    assert_eq!(text(&mut connect(cluster.url()).await, "select 'here'").await, "here");

    cluster.stop().await;
    assert_eq!(fs::read_dir(&short_folder).unwrap().count(), 0, "the socket's folder is gone");
}

#[tokio::test]
async fn a_path_full_of_special_characters_works() {
    let folder = TestFolder::new();
    let data_dir = folder.join("a, \"b\" 100%+ä");
    let cluster = PrivateCluster::start(&data_dir, folder.options()).await.unwrap();
    assert_eq!(text(&mut connect(cluster.url()).await, "select 'here'").await, "here");
    assert_eq!(running_url(&data_dir).unwrap(), cluster.url());
    cluster.stop().await;
}

/// A data directory below a folder that, like `/root`, only root may enter.
fn closed_data_dir(folder: &TestFolder) -> std::path::PathBuf {
    let closed = folder.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    closed.join("fourstep/data")
}

#[tokio::test]
async fn below_a_closed_folder_roots_cluster_lies_outside_behind_a_link() {
    let folder = TestFolder::new();
    let data_dir = closed_data_dir(&folder);
    let start = async || PrivateCluster::start(&data_dir, folder.options()).await.unwrap();

    let cluster = start().await;
    assert_eq!(cluster.cluster_folder().starts_with(folder.join("outside")), is_root());
    assert_eq!(data_dir.join("postgres").is_symlink(), is_root());
    assert_eq!(running_url(&data_dir).unwrap(), cluster.url());
    let mut connection = connect(cluster.url()).await;
    sqlx::raw_sql("create table note as select 'kept' as words").execute(&mut connection).await.unwrap();
    cluster.stop().await;

    let cluster = start().await;
    assert_eq!(text(&mut connect(cluster.url()).await, "select words from note").await, "kept");
    cluster.stop().await;
}

#[tokio::test]
async fn a_removed_data_directory_does_not_find_its_old_database_again() {
    let folder = TestFolder::new();
    let data_dir = closed_data_dir(&folder);
    let start = async || PrivateCluster::start(&data_dir, folder.options()).await.unwrap();

    let cluster = start().await;
    let mut connection = connect(cluster.url()).await;
    sqlx::raw_sql("create table note as select 'old' as words").execute(&mut connection).await.unwrap();
    cluster.stop().await;
    fs::remove_dir_all(&data_dir).unwrap();

    let cluster = start().await;
    let mut connection = connect(cluster.url()).await;
    assert_eq!(text(&mut connection, "select count(*)::text from pg_tables where tablename = 'note'").await, "0");
    cluster.stop().await;
}

#[tokio::test]
async fn a_lost_cluster_outside_is_an_error_and_not_an_empty_database() {
    let folder = TestFolder::new();
    fs::create_dir(folder.data_dir()).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", folder.data_dir().join("postgres")).unwrap();
    let error = PrivateCluster::start(&folder.data_dir(), folder.options()).await.unwrap_err();
    assert!(matches!(&error, Error::LinkBroken { target, .. } if target == Path::new("/nowhere/at/all")), "{error}");
}

#[tokio::test]
async fn a_cluster_that_was_moved_below_a_closed_folder_names_the_folder() {
    if !is_root() {
        // Everybody else is their own account.
        return;
    }
    let folder = TestFolder::new();
    folder.start().await.stop().await;
    let data_dir = closed_data_dir(&folder);
    fs::create_dir(data_dir.parent().unwrap()).unwrap();
    fs::rename(folder.data_dir(), &data_dir).unwrap();

    let error = PrivateCluster::start(&data_dir, folder.options()).await.unwrap_err().to_string();
    let closed = folder.join("closed");
    assert!(error.contains(&format!("chmod o+x {}", closed.display())), "{error}");
}
