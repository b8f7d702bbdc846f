//! The page a person sees first, served from the binary: the playground.
//!
//! Plain files (`page/`), no build step. The page names its files below a digest of all of them, so that browsers keep
//! them for ever and still never mix two versions. Nothing of it needs a key: the page asks its reader for one. It may
//! load and reach nothing but this server, which its Content-Security-Policy makes sure of.

pub(super) mod site;

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{
            ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
            REFERRER_POLICY, VARY,
        },
    },
    response::{IntoResponse, Response},
};

use super::{Error, conditional, extract::Several, probes};
use crate::wire::BaseUrl;
use site::{File, SITE};

/// Pictures come from this server, as previews from events, and from the reader's own disk; everything else only from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
pub(super) const FOR_EVER: &str = "public, max-age=31536000, immutable";
pub(super) const ASK_AGAIN: &str = "no-cache";

/// `GET /`: the page for a browser, where everything is for a program.
pub(super) async fn root(headers: HeaderMap, base: BaseUrl) -> Result<Response, Error> {
    if !offers(&headers, &ACCEPT, "text/html") {
        let mut response = probes::discover(base).await?;
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        return Ok(response);
    }
    let index = SITE.file("index.html").ok_or(Error::NoRoute)?;
    Ok(send(index, &headers, ASK_AGAIN, "Accept, Accept-Encoding"))
}

/// `GET /playground/{digest}/{path}`: a file of the page. A digest of another version is a page that was loaded from, or
/// by, a server that is just being replaced: it gets what there is, and does not keep it.
pub(super) async fn asset(
    Several((digest, path)): Several<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let file = SITE.file(&path).ok_or(Error::NoRoute)?;
    let caching = if digest == SITE.digest() { FOR_EVER } else { ASK_AGAIN };
    Ok(send(file, &headers, caching, "Accept-Encoding"))
}

/// A file, as far as the browser does not have it.
pub(super) fn send(file: &File, headers: &HeaderMap, caching: &'static str, vary: &'static str) -> Response {
    let (body, encoding) = match &file.gzip {
        Some(gzip) if offers(headers, &ACCEPT_ENCODING, "gzip") => (gzip, Some([(CONTENT_ENCODING, "gzip")])),
        _ => (&file.bytes, None),
    };
    let etag = conditional::etag(body);
    let is_known = conditional::is_known(headers, &etag);
    // They bind documents. What a page loads obeys the page's own, and some twenty files would carry them for nothing.
    let policies = file.is_document.then_some([
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    ]);
    let policies = HeaderMap::from_iter(
        policies.into_iter().flatten().map(|(name, value)| (name, HeaderValue::from_static(value))),
    );
    let cached = [(ETAG, etag), (CACHE_CONTROL, caching.to_owned()), (VARY, vary.to_owned())];
    if is_known {
        return (StatusCode::NOT_MODIFIED, cached, policies).into_response();
    }
    let content = [(CONTENT_TYPE, file.content_type.clone())];
    match encoding {
        Some(encoding) => (cached, policies, encoding, content, body.clone()).into_response(),
        None => (cached, policies, content, body.clone()).into_response(),
    }
}

/// Whether a header of preferences names this choice and does not give it a weight of zero. A wildcard is no name: `*/*`
/// is what programs send.
fn offers(headers: &HeaderMap, name: &HeaderName, choice: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let named = parts.next().is_some_and(|named| named.eq_ignore_ascii_case(choice));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        named && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_told_from_a_program_by_what_it_takes() {
        let takes = |value: &'static str| {
            offers(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(value))]), &ACCEPT, "text/html")
        };
        for browser in ["text/html,application/xhtml+xml,*/*;q=0.8", "TEXT/HTML;q=0.9", "a/b, text/html ; level=1"] {
            assert!(takes(browser), "{browser}");
        }
        for program in ["*/*", "application/json", "text/html;q=0", "text/htmlx", ""] {
            assert!(!takes(program), "{program}");
        }
    }
}
