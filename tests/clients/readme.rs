//! What the README tells those who move here, run as it stands there.

use std::{fs, path::Path, process::Command};

use sqlx::PgPool;

use crate::{
    Server,
    installed::{javascript, python},
    process::TestFolder,
};

const README: &str = include_str!("../../README.md");
const SECTION: &str = "## Moving from Replicate / Eachlabs\n";
/// Where `make run` serves.
pub(crate) const SERVED: &str = "http://127.0.0.1:8000";

/// The blocks of code in a section, with their languages.
pub(crate) fn snippets(section: &str) -> Vec<(&'static str, &'static str)> {
    let (_, section) = README.split_once(section).unwrap();
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let blocks = section.split("\n```").collect::<Vec<_>>();
    // Text and code take turns; a block of code begins with its language.
    blocks.chunks_exact(2).map(|pair| pair[1].split_once('\n').unwrap()).collect()
}

#[sqlx::test]
async fn the_readmes_snippets_do_what_they_say(pool: PgPool) {
    let server = Server::start(&pool, 1);
    let snippets = snippets(SECTION);
    let languages: Vec<_> = snippets.iter().map(|(language, _)| *language).collect();
    assert_eq!(languages, ["sh", "python", "js", "python"]);
    let exports = snippets[0].1;
    for (language, snippet) in &snippets[1..] {
        let folder = TestFolder::new();
        fs::create_dir(folder.0.join("data")).unwrap();
        fs::write(folder.0.join("data/key"), server.key()).unwrap();
        let file = folder.0.join(if *language == "js" { "snippet.js" } else { "snippet.py" });
        fs::write(&file, snippet.replace(SERVED, &server.program.url)).unwrap();
        let client = if *language == "js" { javascript(&file) } else { python(&file) };
        // In a shell that has done what the first block says.
        let mut shell = Command::new("sh");
        shell
            .current_dir(&folder.0)
            .arg("-ec")
            .arg(format!("{}\nexec \"$@\"", exports.replace(SERVED, &server.program.url)));
        shell.arg("sh").arg(client.get_program()).args(client.get_args());
        server.satisfies(shell);
        assert_picture(&folder.0.join("picture.png"), snippet);
    }
}

#[sqlx::test]
async fn openais_snippet_does_what_it_says(pool: PgPool) {
    let server = Server::start(&pool, 1);
    let (_, section) = README.split_once("## OpenAI's clients\n").unwrap();
    let snippet = section.split("\n```").nth(1).unwrap().strip_prefix("python\n").unwrap();
    let folder = TestFolder::new();
    fs::create_dir(folder.0.join("data")).unwrap();
    fs::write(folder.0.join("data/key"), server.key()).unwrap();
    let file = folder.0.join("snippet.py");
    fs::write(&file, snippet.replace(SERVED, &server.program.url)).unwrap();
    let mut client = python(&file);
    client.current_dir(&folder.0);
    server.satisfies(client);
    assert_picture(&folder.0.join("picture.png"), snippet);
}

fn assert_picture(file: &Path, snippet: &str) {
    let picture = fs::read(file).unwrap_or_else(|error| panic!("{error}: {snippet}"));
    assert!(picture.starts_with(b"\x89PNG\r\n"), "{snippet}");
}
