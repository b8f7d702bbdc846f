//! The vendors' real clients against a real server with the mock predictor: `tools/set-up --tests` installs Python and
//! Node.js, and these tests install the clients, in the versions that are pinned beside them, under `target`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fuzz;
mod installed;
#[path = "../it/process.rs"]
#[expect(dead_code, reason = "only the server is needed here")]
mod process;
mod readme;
mod s3;
mod webhooks;

use std::{fs, path::Path, process::Command};

use sqlx::PgPool;

use installed::{javascript, python, python_beta};
use process::{Program, TestFolder, url_of};

/// Slow enough that a wait of a second runs out, if thirty steps are asked for.
const STEP_MS: u32 = 100;

/// A server for one client.
struct Server {
    program: Program,
    folder: TestFolder,
}

impl Server {
    fn start(pool: &PgPool, step_ms: u32) -> Self {
        let configuration =
            format!("[worker]\nmock_step_ms = {step_ms}\n[fetch]\nallowed_networks = [\"127.0.0.1/32\"]\n");
        Self::start_with(pool, |_| configuration)
    }

    /// Starts a server with a configuration for its folder.
    fn start_with(pool: &PgPool, configuration: impl FnOnce(&Path) -> String) -> Self {
        let folder = TestFolder::new();
        let config = folder.0.join("config.toml");
        fs::write(&config, configuration(&folder.0)).unwrap();
        let program = Program::serve(&folder.0, Some(&url_of(pool)), &["--config", config.to_str().unwrap()]);
        Self { program, folder }
    }

    fn key(&self) -> String {
        fs::read_to_string(self.folder.0.join("key")).unwrap().trim().to_owned()
    }

    /// Runs a client to its end, which must be a good one.
    fn satisfies(&self, mut client: Command) {
        client.env("FOURSTEP_URL", &self.program.url).env("FOURSTEP_KEY", self.key()).env("NO_PROXY", "127.0.0.1");
        let output = client.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{client:?}: {}\n{out}\n{err}", output.status);
    }
}

/// The color around the middle of a picture and at a corner of it, red, green, blue.
fn middle_and_corner(file: &Path) -> [[i32; 3]; 2] {
    let picture = image::open(file).unwrap().into_rgb8();
    let (width, height) = picture.dimensions();
    [(width / 2, height / 2), (8, 8)].map(|(x, y)| picture.get_pixel(x, y).0.map(i32::from))
}

fn here(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(file)
}

#[sqlx::test]
async fn replicates_python_client_works_unchanged(pool: PgPool) {
    Server::start(&pool, STEP_MS).satisfies(python(&here("replicate_python.py")));
}

#[sqlx::test]
async fn replicates_next_python_client_works_unchanged(pool: PgPool) {
    Server::start(&pool, STEP_MS).satisfies(python_beta(&here("replicate_beta.py")));
}

#[sqlx::test]
async fn replicates_javascript_client_works_unchanged(pool: PgPool) {
    Server::start(&pool, STEP_MS).satisfies(javascript(&here("replicate_javascript.js")));
}

#[sqlx::test]
async fn replicates_javascript_client_at_a_limit_makes_nothing_twice(pool: PgPool) {
    // A minute's worth at once, and then one every two seconds.
    const LIMIT: &str = "30";
    let folder = TestFolder::new();
    let variables = [("FOURSTEP_ADMISSION__CREATES_PER_MINUTE", LIMIT)];
    let log = folder.0.join("log");
    let program = Program::serve_logging(&folder.0, &url_of(&pool), &variables, &log);
    let mut client = javascript(&here("limited.js"));
    client.env("CREATES_PER_MINUTE", LIMIT);
    Server { program, folder }.satisfies(client);
}

#[sqlx::test]
async fn eachlabs_javascript_client_works_unchanged(pool: PgPool) {
    Server::start(&pool, STEP_MS).satisfies(javascript(&here("eachlabs_javascript.js")));
}

#[sqlx::test]
async fn the_requests_of_eachlabs_page_work_with_their_numbers_as_texts(pool: PgPool) {
    Server::start(&pool, STEP_MS).satisfies(python(&here("eachlabs_python.py")));
}

#[sqlx::test]
async fn openais_python_client_works_unchanged(pool: PgPool) {
    Server::start(&pool, STEP_MS).satisfies(python(&here("openai_python.py")));
}

#[sqlx::test]
async fn the_clients_draw_with_the_demo_model(pool: PgPool) {
    let folder = TestFolder::new();
    let server = Server { program: Program::serve_demo(&folder.0, &url_of(&pool)), folder };
    let pictures = TestFolder::new();
    for mut client in [python(&here("demo.py")), javascript(&here("demo.js"))] {
        client.current_dir(&pictures.0);
        server.satisfies(client);
    }
    let kept = ["replicate-python", "openai-python", "eachlabs-python", "replicate-javascript", "eachlabs-javascript"];
    for name in kept {
        let [middle, corner] = middle_and_corner(&pictures.0.join(format!("{name}.png")));
        let [red, green, blue] = middle;
        assert!(red > green + 60 && red > blue + 60, "{name}: {middle:?} in the middle is not red");
        let [red, green, blue] = corner;
        assert!(blue > red + 60 && blue > green + 60, "{name}: {corner:?} in the corner is not blue");
    }
}
