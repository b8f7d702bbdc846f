//! The files of the page as they are sent: with their types, compressed where that makes them smaller, and known by one
//! digest together.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::LazyLock,
};

use axum::body::Bytes;
use flate2::{Compression, write::GzEncoder};
use rust_embed::Embed;
use sha2::{Digest, Sha256};

/// In place of the folder that the page's files are below.
const FOLDER: &str = "{folder}";

/// `page/`, built into the program.
#[derive(Embed)]
#[folder = "src/http/playground/page"]
struct Page;

/// The card of the model that is part of the program; those of others are in `page/cards`.
const DEMO_CARD: (&str, &str) = ("cards/demo-4step.md", include_str!("../../../assets/demo/README.md"));

/// Everything there is, made ready once.
pub(super) static SITE: LazyLock<Site> = LazyLock::new(|| Site::load::<Page>("playground", &[DEMO_CARD]));

/// A page and its files.
pub(in crate::http) struct Site {
    digest: String,
    files: BTreeMap<String, File>,
}

/// One file of it.
#[derive(Debug)]
pub(in crate::http) struct File {
    pub(super) content_type: String,
    /// Whether a browser may show it as a page of its own.
    pub(super) is_document: bool,
    pub(in crate::http) bytes: Bytes,
    /// The same, compressed; `None` where that is no gain.
    pub(super) gzip: Option<Bytes>,
}

impl Site {
    /// Makes the files of a folder ready, and some more, which are served below `mount`.
    pub(in crate::http) fn load<P: Embed>(mount: &str, more: &[(&str, &'static str)]) -> Self {
        let mut embedded: Vec<_> = P::iter().filter_map(|path| Some((P::get(&path)?, path))).collect();
        embedded.sort_by(|(_, one), (_, other)| one.cmp(other));
        let mut all = Sha256::new();
        for (file, path) in &embedded {
            all.update(path.as_bytes());
            all.update(file.metadata.sha256_hash());
        }
        more.iter().for_each(|(_, text)| all.update(text));
        let digest = hex::encode(&all.finalize()[..8]);
        let files = embedded.into_iter().map(|(file, path)| {
            let bytes = match path.as_ref() {
                "index.html" => {
                    let html = String::from_utf8_lossy(&file.data);
                    Bytes::from(html.replace(FOLDER, &format!("{mount}/{digest}")))
                }
                _ => Bytes::from(file.data.into_owned()),
            };
            (path.into_owned(), File::new(file.metadata.mimetype(), bytes))
        });
        let more = more
            .iter()
            .map(|(path, text)| ((*path).to_owned(), File::new("text/markdown", Bytes::from_static(text.as_bytes()))));
        Self { files: files.chain(more).collect(), digest }
    }

    /// A file by its path in `page/`.
    pub(in crate::http) fn file(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    /// Of all files together, for their URLs.
    pub(in crate::http) fn digest(&self) -> &str {
        &self.digest
    }
}

impl File {
    /// Of these bytes.
    pub(in crate::http) fn new(mime_type: &str, bytes: Bytes) -> Self {
        let charset = if mime_type.starts_with("text/") { "; charset=utf-8" } else { "" };
        // Writing to memory cannot fail; if it did, the file would be sent as it is.
        let gzip = gzip(&bytes).ok().filter(|gzip| gzip.len() < bytes.len()).map(Bytes::from);
        let is_document = !["text/javascript", "text/css", "application/json"].contains(&mime_type);
        Self { content_type: format!("{mime_type}{charset}"), is_document, bytes, gzip }
    }
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(&SITE.file(path).expect(path).bytes).expect("UTF-8")
    }

    #[test]
    fn the_page_is_small() {
        let (mut plain, mut sent) = (0, 0);
        for file in SITE.files.values() {
            plain += file.bytes.len();
            sent += file.gzip.as_ref().unwrap_or(&file.bytes).len();
        }
        assert!(plain < 150_000 && sent < 60_000, "{plain} bytes, {sent} compressed");
    }

    #[test]
    fn the_page_fetches_what_it_begins_with_at_once() {
        // Else the browser hears of a file only when another one that imports it has arrived.
        let mut wanted = vec!["style.css".to_owned(), "icon.svg".to_owned()];
        let mut found = vec!["main.js".to_owned()];
        while let Some(path) = found.pop() {
            // Not what is imported later: that is a call, and has no `from`.
            let imports = text(&path).split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(imports.map(str::to_owned).filter(|import| !wanted.contains(import)));
            wanted.push(path);
        }
        wanted.sort_unstable();
        wanted.dedup();
        let folder = format!("playground/{}/", SITE.digest());
        let mut named: Vec<_> = text("index.html").split('"').filter_map(|word| word.strip_prefix(&folder)).collect();
        named.sort_unstable();
        assert_eq!(named, wanted);
    }

    #[test]
    fn nothing_in_the_page_is_inline_or_from_elsewhere() {
        let index = text("index.html");
        assert!(!index.contains(FOLDER));
        for forbidden in ["<style", " style=", "javascript:", " onclick", "http:", "https:"] {
            assert!(!index.contains(forbidden), "{forbidden}");
        }
        assert_eq!(index.matches("<script").count(), index.matches("<script type=\"module\" src=").count());
    }
}
