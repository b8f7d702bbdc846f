//! `/docs`: the document for people, who can try what they read. Served from the binary, under the same policy as the
//! playground: nothing is loaded from elsewhere, and no script stands in the page.

use std::sync::LazyLock;

use axum::{http::HeaderMap, response::Response};
use rust_embed::Embed;

use super::super::{
    Error,
    extract::Several,
    playground::{ASK_AGAIN, FOR_EVER, send, site::Site},
};

/// `page/`, built into the program.
#[derive(Embed)]
#[folder = "src/http/openapi/page"]
struct Page;

static SITE: LazyLock<Site> = LazyLock::new(|| Site::load::<Page>("docs", &[]));

/// `GET /docs`
#[utoipa::path(
    get,
    path = "/docs",
    summary = "Read this document in a browser",
    tag = "Server",
    responses(
        (status = 200, description = "This document, to read and to try.", body = String, content_type = "text/html"),
        (status = 304, description = "Not modified."),
    ),
)]
pub(in crate::http) async fn page(headers: HeaderMap) -> Result<Response, Error> {
    let index = SITE.file("index.html").ok_or(Error::NoRoute)?;
    Ok(send(index, &headers, ASK_AGAIN, "Accept-Encoding"))
}

/// `GET /docs/{digest}/{path}`: a file of the page.
pub(in crate::http) async fn asset(
    Several((digest, path)): Several<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let file = SITE.file(&path).ok_or(Error::NoRoute)?;
    let caching = if digest == SITE.digest() { FOR_EVER } else { ASK_AGAIN };
    Ok(send(file, &headers, caching, "Accept-Encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_page_is_inline_or_from_elsewhere() {
        for path in ["index.html", "docs.js", "docs.css"] {
            let file = &SITE.file(path).expect(path).bytes;
            let text = std::str::from_utf8(file).expect("UTF-8");
            for forbidden in ["<style", " style=", "javascript:", " onclick", "innerHTML", "eval(", "//cdn", "@import"]
            {
                assert!(!text.contains(forbidden), "{path}: {forbidden}");
            }
        }
        let index = std::str::from_utf8(&SITE.file("index.html").expect("a page").bytes).expect("UTF-8");
        assert_eq!(index.matches("<script").count(), index.matches("<script type=\"module\" src=").count());
        assert!(index.contains(&format!("docs/{}/docs.js", SITE.digest())));
    }
}
