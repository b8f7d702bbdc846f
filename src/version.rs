//! Which build this is.

use std::sync::LazyLock;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let package = env!("CARGO_PKG_VERSION");
    // Set by whoever packages the program; not looked up here, so that a build needs no git and a commit no rebuild.
    match option_env!("FOURSTEP_COMMIT") {
        Some(commit) if !commit.is_empty() => format!("{package} ({commit})"),
        _ => package.to_owned(),
    }
});

/// The package's version and, where the build was told, the commit: `0.1.0 (1a2b3c4)`.
pub fn version() -> &'static str {
    &VERSION
}
