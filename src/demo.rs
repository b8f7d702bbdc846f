//! The demo model: a tiny SDXL that draws simple scenes, and a part of the program, so that whoever installs it has a
//! model in any folder. It is unpacked to disk because weights are mapped into memory from files.
//!
//! `assets/demo/README.md` says what it can draw; `tools/demo-model` is how it was made.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use rust_embed::Embed;
use sha2::{Digest, Sha256};

/// Its name in the catalog.
pub const SLUG: &str = "demo-4step";

/// So much of the digest names a release.
const REVISION_DIGITS: usize = 12;

/// The files of the model, without what is only for readers.
#[derive(Embed)]
#[folder = "assets/demo"]
#[exclude = "*.md"]
#[exclude = "*.png"]
struct Files;

/// The SHA-256 of all names and contents, as 64 hexadecimal digits.
pub fn digest() -> &'static str {
    static DIGEST: LazyLock<String> = LazyLock::new(|| {
        let mut names: Vec<_> = Files::iter().collect();
        names.sort_unstable();
        let mut all = Sha256::new();
        for name in names {
            all.update(format!("{name}\n"));
            all.update(Files::get(&name).map(|file| file.metadata.sha256_hash()).unwrap_or_default());
        }
        hex::encode(all.finalize())
    });
    &DIGEST
}

/// The model's folder under `parent`, whose name tells its contents: another release has another folder.
pub fn folder(parent: &Path) -> PathBuf {
    parent.join(format!("{SLUG}-{}", &digest()[..REVISION_DIGITS]))
}

/// Writes the model to its folder under `parent`, unless it is there, and returns the folder. It is written beside its
/// place and then moved, so that a half-written one is never loaded.
pub fn unpack(parent: &Path) -> io::Result<PathBuf> {
    let folder = folder(parent);
    if folder.exists() {
        return Ok(folder);
    }
    let unfinished = folder.with_extension(uuid::Uuid::new_v4().to_string());
    let written = write(&unfinished).and_then(|()| fs::rename(&unfinished, &folder));
    if written.is_err() {
        // The reason counts, not whether what is left of it can be removed.
        let _ = fs::remove_dir_all(&unfinished);
    }
    match written {
        // Another process was quicker; its model is the same.
        Err(_) if folder.exists() => Ok(folder),
        written => written.map(|()| folder),
    }
}

fn write(folder: &Path) -> io::Result<()> {
    for name in Files::iter() {
        let file = Files::get(&name).ok_or(io::ErrorKind::NotFound)?;
        let path = folder.join(&*name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, &file.data)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_knows_this_release() {
        let catalog = include_str!("../config/models.toml");
        assert!(catalog.contains(&format!("revision = \"{}\"", &digest()[..REVISION_DIGITS])), "it is {}", digest());
    }

    #[test]
    fn it_is_unpacked_once_and_whole() {
        let parent = std::env::temp_dir().join(format!("fourstep-demo-{}", uuid::Uuid::new_v4()));
        let folder = unpack(&parent).expect("unpacked");
        assert_eq!(folder, unpack(&parent).expect("still there"));
        for part in ["unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"] {
            assert!(folder.join(part).is_dir(), "{part}");
        }
        assert_eq!(fs::read_dir(&parent).expect("a folder").count(), 1, "nothing unfinished is left");
        fs::remove_dir_all(parent).expect("removed");
    }
}
