//! Which face a URL belongs to, and what a refusal looks like there.
//!
//! URLs that are nobody's and methods that no route takes are refused in the language of the face they would belong to:
//! a client understands only its own vendor's errors.

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::Response,
};
use serde::Serialize;

use crate::{
    domain::Dialect,
    wire::{Refusal, native, replicate},
};

/// The face a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Face(Dialect);

impl Face {
    /// By the request's URL alone, whether there is such a URL or not.
    pub(super) fn of(request: &Request) -> Self {
        let path = request.uri().path();
        let is_under =
            |mount| path.strip_prefix(mount).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'));
        Self(if is_under("/replicate") || is_under("/v1") { Dialect::Replicate } else { Dialect::Native })
    }

    /// Puts a refusal into its response.
    pub(super) fn write(self, refusal: Refusal, request_id: String, response: &mut Response) {
        match self.0 {
            Dialect::Replicate => fill(response, PROBLEM, &replicate::Problem::new(refusal)),
            _ => fill(response, PROBLEM, &native::Problem::new(refusal, request_id)),
        }
    }
}

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

fn fill(response: &mut Response, content_type: HeaderValue, body: &impl Serialize) {
    let headers = response.headers_mut();
    // Of the empty body that this replaces.
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, content_type);
    *response.body_mut() = Body::from(serde_json::to_vec(body).unwrap_or_default());
}
