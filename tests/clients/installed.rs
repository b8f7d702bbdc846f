//! Python and Node.js with the vendors' clients, installed once under `target` and again when what is pinned changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use crate::here;

static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| python_with("python", "requirements.txt"));
static PYTHON_BETA: LazyLock<PathBuf> = LazyLock::new(|| python_with("python-beta", "requirements-beta.txt"));
static FUZZER: LazyLock<PathBuf> = LazyLock::new(|| python_with("schemathesis", "schemathesis.txt"));

static JAVASCRIPT: LazyLock<PathBuf> = LazyLock::new(|| {
    unless_installed("javascript", &here("package-lock.json"), |folder| {
        fs::create_dir_all(folder).unwrap();
        for file in ["package.json", "package-lock.json"] {
            fs::copy(here(file), folder.join(file)).unwrap();
        }
        run(Command::new("npm").args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(folder));
    })
});

/// A Python program, to be run with the clients at hand.
pub(crate) fn python(program: &Path) -> Command {
    run_by(&PYTHON, program)
}

/// A Python program, to be run with the client that Replicate is about to release.
pub(crate) fn python_beta(program: &Path) -> Command {
    run_by(&PYTHON_BETA, program)
}

/// A Python program, to be run with the generator of requests at hand.
pub(crate) fn fuzzer(program: &Path) -> Command {
    run_by(&FUZZER, program)
}

/// A JavaScript program, to be run with the clients at hand: Node.js looks for them where the program is.
pub(crate) fn javascript(program: &Path) -> Command {
    let copy = JAVASCRIPT.join(program.file_name().unwrap());
    fs::copy(program, &copy).unwrap();
    let mut command = Command::new("node");
    command.arg(copy);
    command
}

/// A program and who runs it. Nothing is written beside the sources.
fn run_by(python: &Path, program: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg("-B").arg(program);
    command
}

/// Python in an environment of that name with what the list pins.
fn python_with(name: &str, list: &str) -> PathBuf {
    let requirements = here(list);
    let folder = unless_installed(name, &requirements, |folder| {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder));
        // All there is to install is in the list.
        let mut pip = Command::new(folder.join("bin/python"));
        run(pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"]).arg(&requirements));
    });
    folder.join("bin/python")
}

/// The folder of what the list pins, installed there unless it is already.
fn unless_installed(name: &str, list: &Path, install: impl FnOnce(&Path)) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients").join(name);
    let (wanted, stamp) = (fs::read(list).unwrap(), folder.join("installed"));
    if fs::read(&stamp).ok().as_ref() != Some(&wanted) {
        install(&folder);
        // Last, so that what was broken off is begun again.
        fs::write(stamp, wanted).unwrap();
    }
    folder
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}; run tools/set-up --tests"));
    assert!(
        status.success(),
        "{command:?}: {status}; run tools/set-up --tests, and see whether its registry is reached"
    );
}
