//! Webhooks, verified by what the README tells receivers to do, which is Standard Webhooks' libraries, and by
//! Replicate's clients.

use std::{fs, process::Command};

use sqlx::PgPool;

use crate::{
    Server, here,
    installed::{javascript, python},
    process::TestFolder,
    readme::{SERVED, snippets},
};

#[sqlx::test]
async fn webhooks_are_verified_as_the_readme_says_and_by_replicates_clients(pool: PgPool) {
    let server = Server::start(&pool, 10);
    let snippets = snippets("## Webhooks\n");
    let [("sh", create), ("sh", secret), ("python", in_python), ("js", in_javascript)] = snippets[..] else {
        panic!("other snippets than these: {snippets:?}")
    };
    let folder = TestFolder::new();
    for command in [create, secret] {
        // Nobody is there, which the create need not know.
        let command = command.replace(SERVED, &server.program.url).replace("https://example.com", "http://127.0.0.1:9");
        let mut shell = Command::new("sh");
        shell.current_dir(&folder.0).env("KEY", server.key()).args(["-ec", &command]);
        server.satisfies(shell);
    }
    let kept = fs::read_to_string(folder.0.join("webhook-secret")).unwrap();
    assert!(kept.starts_with("whsec_"), "{kept}");

    fs::write(folder.0.join("snippet.py"), in_python).unwrap();
    fs::copy(here("webhooks.py"), folder.0.join("webhooks.py")).unwrap();
    let mut client = python(&folder.0.join("webhooks.py"));
    client.current_dir(&folder.0);
    server.satisfies(client);

    fs::write(folder.0.join("snippet.js"), in_javascript).unwrap();
    // Only to have it where the libraries are.
    javascript(&folder.0.join("snippet.js"));
    let mut client = javascript(&here("webhooks.js"));
    client.current_dir(&folder.0);
    server.satisfies(client);
}
