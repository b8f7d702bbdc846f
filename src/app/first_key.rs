//! The first API key: made by a server whose database has none, and kept in a file that only its owner can read, so
//! that a newcomer has a key without asking for one.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{config::Config, domain::ApiKey, postgres, store::Store};

/// Account and name of the first key.
const ACCOUNT: &str = "default";
const NAME: &str = "first";

/// The file of the first key, if this data folder has one.
pub(super) fn file(config: &Config) -> Option<PathBuf> {
    let file = path(config);
    file.exists().then_some(file)
}

/// Makes the first key if the database has none at all. The file comes first: a key that is stored but nowhere written
/// down would be lost to everybody.
pub(super) async fn ensure(config: &Config, store: &Store) -> anyhow::Result<()> {
    let path = path(config);
    let key = || -> anyhow::Result<ApiKey> {
        match read(&path)? {
            Some(key) => Ok(key),
            None => write_new(&path).with_context(|| format!("could not write {}", path.display())),
        }
    };
    store.create_first_key(ACCOUNT, NAME, key).await
}

fn path(config: &Config) -> PathBuf {
    config.data.dir.join("key")
}

fn read(path: &Path) -> anyhow::Result<Option<ApiKey>> {
    match fs::read_to_string(path) {
        Ok(text) => ApiKey::parse(text.trim()).map(Some).with_context(|| {
            format!("{} holds something else; move it away and start again for a new key", path.display())
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

fn write_new(path: &Path) -> anyhow::Result<ApiKey> {
    let key = ApiKey::generate().context("no random bytes")?;
    if let Some(folder) = path.parent() {
        postgres::make_passable(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", key.expose())?;
    file.sync_all()?;
    Ok(key)
}
