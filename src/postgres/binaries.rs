//! Finding `postgres` and `initdb` on this machine, of the right version, or saying how to install them.
//!
//! Distributions keep several versions side by side and mostly out of `PATH`. A cluster can only be opened by the
//! major version that made it, so that one is preferred; a new cluster takes the first that is found: what the user has
//! put into `PATH`, then the newest of the usual places.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;

use super::Error;
use super::folder::Folder;

/// Older releases are not tried: their last one got its last fix before this program existed.
const MINIMUM_MAJOR: u32 = 13;

/// Folders with one folder of Postgres for each version: where they are, how the version's folder begins, and where
/// the programs are inside.
const VERSIONED: [(&str, &str, &str); 9] = [
    ("/usr/lib/postgresql", "", "bin"),                          // Debian, Ubuntu
    ("/usr", "pgsql-", "bin"),                                   // the project's own packages for Fedora and Red Hat
    ("/usr/lib", "postgresql", "bin"),                           // SUSE
    ("/usr/libexec", "postgresql", ""),                          // Alpine
    ("/opt/homebrew/opt", "postgresql", "bin"),                  // Homebrew on Apple silicon
    ("/usr/local/opt", "postgresql", "bin"),                     // Homebrew on Intel
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),     // Homebrew on Linux
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"), // Postgres.app
    ("/opt/local/lib", "postgresql", "bin"),                     // MacPorts
];

/// How Postgres is installed, by the package manager that is there.
const INSTALL: [(&str, &str); 6] = [
    ("apt-get", "apt-get install -y postgresql"),
    ("dnf", "dnf install -y postgresql-server"),
    ("brew", "brew install postgresql@17"),
    ("pacman", "pacman -S --noconfirm postgresql"),
    ("apk", "apk add postgresql"),
    ("zypper", "zypper install -y postgresql-server"),
];

/// A folder with `initdb` and `postgres`, and their version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// The folder the programs are in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The version as the program tells it, like `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The path of one of the programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn at(directory: &Path) -> Option<Self> {
        let postgres = directory.join("postgres").canonicalize().ok()?;
        // Links in PATH lead to the folder in which the programs find each other.
        let directory = postgres.parent().filter(|real| real.join("initdb").exists()).unwrap_or(directory);
        if !directory.join("initdb").exists() {
            return None;
        }
        let (version, major) = parse_version(&output_of(&postgres, "--version")?)?;
        Some(Self { directory: directory.to_owned(), version, major })
    }
}

/// The Postgres that a new private cluster would be made with.
pub fn find() -> Result<Binaries, Error> {
    installed(None).next().ok_or_else(|| not_installed(None))
}

/// The Postgres for a cluster: of the version that made it, or, for a new one, the first there is.
pub(super) fn find_for(folder: &Folder, directory: Option<&Path>) -> Result<Binaries, Error> {
    let Some(made_by) = folder.made_by()? else {
        return installed(directory).next().ok_or_else(|| not_installed(directory));
    };
    let mut others = Vec::new();
    for binaries in installed(directory) {
        if Some(binaries.major) == leading_number(&made_by) {
            return Ok(binaries);
        }
        others.push(binaries.version);
    }
    if others.is_empty() {
        return Err(not_installed(directory));
    }
    Err(Error::OtherVersion { data_dir: folder.data_dir().to_owned(), made_by, installed: others.join(" and ") })
}

/// Every usable Postgres, best first; each is looked at only when it is asked for, because looking runs a program.
fn installed(directory: Option<&Path>) -> impl Iterator<Item = Binaries> {
    let directories: Box<dyn Iterator<Item = PathBuf>> = match directory {
        Some(directory) => Box::new(std::iter::once(directory.to_owned())),
        None => Box::new(path().into_iter().chain(std::iter::once_with(pg_config).flatten()).chain(usual_places())),
    };
    let mut seen = BTreeSet::new();
    directories
        .filter_map(|directory| Binaries::at(&directory))
        .filter(|binaries| binaries.major >= MINIMUM_MAJOR)
        .filter(move |binaries| seen.insert(binaries.directory.clone()))
}

fn path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

fn pg_config() -> Option<PathBuf> {
    output_of(Path::new("pg_config"), "--bindir").map(|directory| PathBuf::from(directory.trim()))
}

/// The versioned folders of all systems, the newest of each place first.
fn usual_places() -> impl Iterator<Item = PathBuf> {
    VERSIONED.iter().flat_map(|&(place, prefix, programs)| {
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(place)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name();
                let version = name.to_str()?.strip_prefix(prefix)?.trim_start_matches(['@', '-']);
                Some((leading_number(version)?, entry.path().join(programs)))
            })
            .collect();
        versions.sort_by(|(left, _), (right, _)| right.cmp(left));
        versions.into_iter().map(|(_, directory)| directory)
    })
}

fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also where the number is `18devel`.
fn parse_version(output: &str) -> Option<(String, u32)> {
    let version = output.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    Some((version.to_owned(), leading_number(version)?))
}

fn leading_number(version: &str) -> Option<u32> {
    let end = version.find(|character: char| !character.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

fn not_installed(directory: Option<&Path>) -> Error {
    let searched = match directory {
        Some(directory) => format!("in {}", directory.display()),
        None => "in PATH, by pg_config and in the usual places".to_owned(),
    };
    let path = path();
    let is_there = |program: &str| path.iter().any(|directory| directory.join(program).exists());
    Error::NotInstalled {
        minimum: MINIMUM_MAJOR,
        searched,
        install: how_to_install(is_there, Uid::effective().is_root()),
    }
}

fn how_to_install(is_there: impl Fn(&str) -> bool, is_root: bool) -> String {
    match INSTALL.iter().find(|(manager, _)| is_there(manager)) {
        // Homebrew refuses root.
        Some((manager, line)) if is_root || *manager == "brew" => format!("Install it with: {line}"),
        Some((_, line)) => format!("Install it with: sudo {line}"),
        None => "Install PostgreSQL so that `postgres` and `initdb` are in PATH.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_kind_of_build() {
        let parsed = |output| parse_version(output).expect("it is a version");
        assert_eq!(parsed("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), ("15.18".to_owned(), 15));
        assert_eq!(parsed("postgres (PostgreSQL) 18devel\n"), ("18devel".to_owned(), 18));
        assert_eq!(parsed("postgres (PostgreSQL) 9.6.24\n"), ("9.6.24".to_owned(), 9));
        assert_eq!(parse_version("something else 15.18\n"), None);
    }

    #[test]
    fn the_install_line_is_for_the_package_manager_that_is_there() {
        let line = |manager: &'static str, is_root| how_to_install(|program| program == manager, is_root);
        assert_eq!(line("apt-get", true), "Install it with: apt-get install -y postgresql");
        assert_eq!(line("dnf", false), "Install it with: sudo dnf install -y postgresql-server");
        assert_eq!(line("brew", false), "Install it with: brew install postgresql@17");
        assert_eq!(line("pacman", false), "Install it with: sudo pacman -S --noconfirm postgresql");
        assert_eq!(line("none of them", true), "Install PostgreSQL so that `postgres` and `initdb` are in PATH.");
    }
}
