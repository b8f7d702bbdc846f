//! Requests generated from the server's own description of itself, sent to it: nothing may fail, and nothing may be
//! answered in a way that is not described. `fuzz.py` says what is checked.

use std::fs;

use sqlx::PgPool;

use crate::{Server, here, installed::fuzzer};

/// Of each operation in each phase. Of ten thousand cases so many are far enough away whatever the stateful phase comes
/// upon.
const EXAMPLES: &str = "250";

/// Small pictures, so that the time goes into requests; and no rate, of which other tests are.
fn server(pool: &PgPool) -> Server {
    Server::start_with(pool, |folder| {
        let catalog = include_str!("../../config/models.toml");
        let small =
            catalog.replace("max_size = 1280", "max_size = 256").replace("default_size = 1024", "default_size = 256");
        let file = folder.join("models.toml");
        fs::write(&file, small).unwrap();
        format!(
            "[worker]\nmock_step_ms = 0\n[models]\ncatalog = {file:?}\n\
             [admission]\ncreates_per_minute = 1000000\nrequests_per_minute = 1000000\n"
        )
    })
}

#[sqlx::test]
async fn ten_thousand_generated_requests_find_nothing_that_is_not_described(pool: PgPool) {
    let mut command = fuzzer(&here("fuzz.py"));
    command.env("EXAMPLES", EXAMPLES).env("LEAST_CASES", "10000");
    server(&pool).satisfies(command);
}
