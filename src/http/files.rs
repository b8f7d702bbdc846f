//! Output files. Their keys cannot be guessed, so whoever knows one may read it, from any web page as well.
//!
//! A key's bytes never change; caches may keep them for as long as the file itself is kept.

use std::ops::Range;

use axum::{
    body::Body,
    extract::State,
    http::{
        HeaderMap, Method, StatusCode,
        header::{
            ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
            ETAG,
        },
    },
    response::{IntoResponse, Response},
};

use futures_util::TryStreamExt;

use super::{
    Api, Error,
    conditional::{self, Wanted},
    extract::Rest,
};
use crate::{domain::Artifact, service};

/// An output's bytes, whole.
pub(super) async fn read(api: &Api, file: &Artifact) -> Result<Vec<u8>, service::Error> {
    let found = api.service.find_output(&file.key).await?;
    Ok(api.service.read_output(&found, 0..found.size).await?.try_concat().await?)
}

/// `GET /files/{key}`, and `HEAD`.
#[utoipa::path(
    get,
    path = "/files/{key}",
    summary = "Read an output or an upload",
    tag = "Server",
    params(
        ("key" = String, Path, description = "From the URL of an output."),
        ("Range" = Option<String>, Header, description = "`bytes=0-99`."),
        ("If-None-Match" = Option<String>, Header, description = "The ETag of an earlier answer."),
    ),
    responses(
        (status = 200, description = "The file.", content((Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
        (status = 206, description = "A part of it.", content((Vec<u8> = "image/png"), (Vec<u8> = "image/jpeg"), (Vec<u8> = "image/webp"))),
        (status = 304, description = "Not modified."),
        (status = 416, description = "It has no such part."),
    ),
)]
pub(super) async fn get(
    State(api): State<Api>,
    Rest(key): Rest,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Error> {
    send(&api, &key, &method, &headers, "private, max-age=86400, immutable").await
}

/// A file, or what of it is asked for.
pub(super) async fn send(
    api: &Api,
    key: &str,
    method: &Method,
    headers: &HeaderMap,
    caching: &str,
) -> Result<Response, Error> {
    let file = api.service.find_output(key).await?;
    let etag = quoted(file.etag.as_deref().unwrap_or(key));
    let cached = [(ETAG, etag.clone()), (CACHE_CONTROL, caching.to_owned())];
    let any_origin = [(ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    if conditional::is_known(headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, cached, any_origin).into_response());
    }
    let (status, range) = match conditional::wanted(headers, file.size, &etag) {
        Wanted::Whole => (StatusCode::OK, 0..file.size),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => return Err(Error::RangeNotSatisfiable { size: file.size }),
    };
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(api.service.read_output(&file, range.clone()).await?),
    };
    let content = [
        (CONTENT_TYPE, file.content_type.to_owned()),
        (CONTENT_LENGTH, (range.end - range.start).to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let mut response = (status, cached, any_origin, content, body).into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        response.headers_mut().extend(content_range(&range, file.size));
    }
    Ok(response)
}

fn content_range(range: &Range<u64>, size: u64) -> Option<(axum::http::HeaderName, axum::http::HeaderValue)> {
    let value = format!("bytes {}-{}/{size}", range.start, range.end - 1).try_into().ok()?;
    Some((CONTENT_RANGE, value))
}

/// Stores differ in whether their tags come in quotes.
fn quoted(etag: &str) -> String {
    if etag.ends_with('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}
