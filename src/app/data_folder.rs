//! The folder of everything that must survive, made so that no other account of the machine looks into it. One that is there
//! stays as it is.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt, path::Path};

use nix::unistd::Uid;

/// Its owner's alone.
const CLOSED: u32 = 0o700;
/// Others may pass through it, and not look around.
const PASSABLE: u32 = 0o711;

/// Makes the data folder if it is missing.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    // Root's private Postgres runs under another account, which has to get to its own folder in here.
    make_with(if Uid::effective().is_root() { PASSABLE } else { CLOSED }, folder)
}

/// Makes a folder within it.
pub(super) fn make_inside(folder: &Path) -> io::Result<()> {
    make_with(CLOSED, folder)
}

fn make_with(mode: u32, folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(folder)
}
