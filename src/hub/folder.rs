//! The folder of a whole model: the diffusers layout that `--weights` takes, made of links into the hub's cache.
//!
//! A catalog's model is files of several repositories, under names of its own choosing, so the cache holds it but in no
//! one folder. The folder is `<models>/<slug>/<version>`, with the first digits of our version id: programs with other
//! pins can use the same cache at the same time. Links are relative where they can be, so that both can be moved or
//! mounted elsewhere together.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use super::{
    Environment, Error,
    cache::{Cache, is_safe, replace_link},
};
use crate::domain::{Model, WeightFile};

const VERSION_DIGITS: usize = 12;

/// The folder of a model whose files are here, pulled by this program or by Python's. Asks nobody. Optional files are
/// in it where they are here.
///
/// Makes the folder's links where they are missing, which is why it can fail to find a model in a cache that can only
/// be read; the log then says so.
pub fn find_model(model: &Model, environment: &Environment) -> Option<PathBuf> {
    if model.files.is_empty() || !model.files.iter().all(is_safe) {
        return None;
    }
    let cache = Cache::new(environment.cache.clone());
    let mut found = Vec::new();
    for file in &model.files {
        match cache.find(file) {
            Some(pointer) => found.push((file, pointer)),
            None if file.optional => {}
            None => return None,
        }
    }
    match assemble(model, environment, found) {
        Ok(folder) => Some(folder),
        Err(error) => {
            tracing::warn!(%error, "The files of {} are here, but its folder could not be made", model.slug);
            None
        }
    }
}

/// Where a model's folder is, whether it has been made or not.
pub(super) fn location(model: &Model, environment: &Environment) -> PathBuf {
    environment.models.join(&model.slug).join(&model.version[..VERSION_DIGITS.min(model.version.len())])
}

/// Links files of the model, each with where it was found, to their places in the model's folder.
pub(super) fn assemble<'a>(
    model: &Model,
    environment: &Environment,
    found: impl IntoIterator<Item = (&'a WeightFile, PathBuf)>,
) -> Result<PathBuf, Error> {
    let folder = location(model, environment);
    for (file, pointer) in found {
        let link = folder.join(file.destination());
        let target = relative(&pointer, link.parent().unwrap_or(&folder));
        if fs::read_link(&link).ok().as_ref() != Some(&target) {
            replace_link(&target, &link)?;
        }
    }
    Ok(folder)
}

/// The way from a folder to a file, if they have more than the root in common.
fn relative(file: &Path, folder: &Path) -> PathBuf {
    let shared = file.components().zip(folder.components()).take_while(|(left, right)| left == right).count();
    let named = |component: &Component<'_>| matches!(component, Component::Normal(_));
    if !file.components().take(shared).any(|component| named(&component)) {
        return file.to_owned();
    }
    let up = folder.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(file.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_relative_within_a_tree_and_absolute_across_trees() {
        let cases = [
            ("/hf/hub/models--a--b/x", "/hf/fourstep/slug/unet", "../../../hub/models--a--b/x"),
            ("/cache/models--a--b/x", "/cache/fourstep/slug", "../../models--a--b/x"),
            ("/cache/x", "/models/slug", "/cache/x"),
        ];
        for (file, folder, expected) in cases {
            assert_eq!(relative(Path::new(file), Path::new(folder)), Path::new(expected));
        }
    }
}
