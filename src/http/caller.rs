//! Who is asking: the API key of a request, in any of the three headers the vendors' clients send it in.
//!
//! A handler that names [`Caller`] among its arguments, before the body, cannot be reached without a valid key that has
//! the scope for it, nor more often than the key may. Which scope that is, and what counts as a create, the URL says.

use axum::{
    extract::{FromRequestParts, MatchedPath},
    http::{HeaderMap, HeaderName, Method, header::AUTHORIZATION, request::Parts},
};

use super::{Api, Error};
use crate::{
    domain::{Caller, Scope},
    service::{self, admission::Kind},
};

/// Where Eachlabs' clients put the key.
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

impl FromRequestParts<Api> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let key = key(&parts.headers).ok_or(service::Error::Unauthorized)?;
        let caller = api.service.authenticate(key).await?;
        let route = parts.extensions.get().map_or("", MatchedPath::as_str);
        let (scope, kind) = needed(&parts.method, route);
        api.service.admit(caller, scope, kind)?;
        Ok(caller)
    }
}

/// The scope a request needs, and as what it is counted.
fn needed(method: &Method, route: &str) -> (Scope, Kind) {
    let first = route.split('/').nth(1).unwrap_or_default();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let scope = match first {
        "admin" | "metrics" => Scope::Admin,
        "usage" => Scope::UsageRead,
        // What signs is not for those who only read.
        _ if route.contains("/webhooks/") && route.ends_with("/secret") => Scope::PredictionsWrite,
        _ if reads => Scope::PredictionsRead,
        _ => Scope::PredictionsWrite,
    };
    let makes = match *method {
        Method::POST => {
            ["/predictions", "/prediction", "/prediction/", "/prediction/run", "/images/generations", "/images/edits"]
                .iter()
                .any(|end| route.ends_with(end))
        }
        Method::PUT => route.ends_with("/predictions/{id}"),
        _ => false,
    };
    (scope, if makes { Kind::Create } else { Kind::Other })
}

/// `Authorization: Bearer …`, Replicate's older `Authorization: Token …`, or `X-API-Key: …`.
fn key(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credentials = authorization.and_then(|value| value.trim().split_once(' ')).and_then(|(scheme, credentials)| {
        let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
        known.then_some(credentials.trim())
    });
    credentials.or_else(|| headers.get(X_API_KEY)?.to_str().ok().map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_in(headers: &[(HeaderName, &str)]) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().expect("a header value")));
        key(&headers.collect()).map(str::to_owned)
    }

    #[test]
    fn a_key_is_found_in_every_header_it_is_sent_in() {
        for (name, value) in [
            (AUTHORIZATION, "Bearer fs_1"),
            (AUTHORIZATION, "bearer   fs_1 "),
            (AUTHORIZATION, "Token fs_1"),
            (X_API_KEY, "fs_1"),
        ] {
            assert_eq!(key_in(&[(name, value)]), Some("fs_1".into()), "{value}");
        }
        assert_eq!(key_in(&[(AUTHORIZATION, "Basic eA=="), (X_API_KEY, "fs_1")]), Some("fs_1".into()));
    }

    #[test]
    fn nothing_else_is_a_key() {
        for value in ["", "Bearer", "fs_1", "Basic fs_1"] {
            assert_eq!(key_in(&[(AUTHORIZATION, value)]), None, "{value}");
        }
    }

    #[test]
    fn the_url_says_what_is_needed() {
        for (method, route, scope, kind) in [
            (Method::GET, "/predictions/{id}", Scope::PredictionsRead, Kind::Other),
            (Method::POST, "/predictions", Scope::PredictionsWrite, Kind::Create),
            (Method::PUT, "/predictions/{id}", Scope::PredictionsWrite, Kind::Create),
            (Method::POST, "/predictions/{id}/cancel", Scope::PredictionsWrite, Kind::Other),
            (Method::DELETE, "/predictions/{id}", Scope::PredictionsWrite, Kind::Other),
            (Method::POST, "/replicate/v1/models/{owner}/{name}/predictions", Scope::PredictionsWrite, Kind::Create),
            (Method::POST, "/v1/prediction/run", Scope::PredictionsWrite, Kind::Create),
            (Method::GET, "/usage", Scope::UsageRead, Kind::Other),
            (Method::GET, "/admin/keys", Scope::Admin, Kind::Other),
            (Method::GET, "/metrics", Scope::Admin, Kind::Other),
            (Method::POST, "/admin/keys/{lookup}/rotate", Scope::Admin, Kind::Other),
        ] {
            assert_eq!(needed(&method, route), (scope, kind), "{method} {route}");
        }
    }
}
