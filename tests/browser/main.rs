//! The playground in a real browser: Debian's Chromium, driven by `playwright-core`, against the real program. What it
//! does there is in the `.mjs` files beside this one; here is only what starts them. The page's snippets are run as
//! well, with the vendors' clients in the versions that `tests/clients` pins.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../clients/installed.rs"]
#[expect(dead_code, reason = "JavaScript's clients are installed beside the browser's driver")]
mod installed;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use sqlx::{ConnectOptions, PgPool};

/// Where Chromium is, in the order of preference.
const CHROMIUM: [&str; 4] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/snap/bin/chromium"];

/// One browser at a time, and one installation.
static TURN: Mutex<()> = Mutex::new(());

#[sqlx::test]
async fn the_page_works_in_a_browser(pool: PgPool) {
    browse(&pool, "page.test.mjs", "mock");
}

#[sqlx::test]
async fn the_page_draws_with_the_demo_model(pool: PgPool) {
    browse(&pool, "demo.test.mjs", "sdxl");
}

/// Runs a file of tests against servers with that predictor.
fn browse(pool: &PgPool, tests: &str, predictor: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let chromium = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let chromium = chromium.or_else(|| CHROMIUM.iter().map(PathBuf::from).find(|path| path.exists()));
    let chromium = chromium.expect("no Chromium: run `tools/set-up --tests`, or name one in the variable CHROMIUM");
    let folder = install();
    let status = Command::new("node")
        .args(["--test", "--test-reporter=spec", tests])
        .current_dir(&folder)
        .env("CHROMIUM", chromium)
        .env("FOURSTEP", env!("CARGO_BIN_EXE_fourstep"))
        .env("PREDICTOR", predictor)
        .env("PYTHON", installed::python(Path::new("-")).get_program())
        .env("DATABASE_URL", pool.connect_options().to_url_lossy().as_str())
        .status()
        .expect("no Node.js: run `tools/set-up --tests`");
    assert!(status.success(), "the browser's tests failed; its screenshots are in {}", folder.display());
}

/// What `installed` installs: the vendors' clients.
fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(file)
}

/// Puts the tests, the page and what they need into a folder under `target/`: nothing is written into the source.
fn install() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::read(root.join("tests/browser/package-lock.json")).unwrap();
    let is_installed = fs::read(folder.join("installed-lock.json")).is_ok_and(|installed| installed == lock);
    copy(&root.join("tests/browser"), &folder);
    let page = folder.join("page");
    let _ = fs::remove_dir_all(&page);
    copy(&root.join("src/http/playground/page"), &page);
    if !is_installed {
        let installed = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .status()
            .expect("no npm: run `tools/set-up --tests`");
        assert!(installed.success(), "npm could not install tests/browser/package-lock.json");
        fs::write(folder.join("installed-lock.json"), lock).unwrap();
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
