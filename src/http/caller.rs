//! Who is asking: the API key of a request, in any of the three headers the vendors' clients send it in.
//!
//! A handler that names one of these callers among its arguments, before the body, cannot be reached without a valid key
//! that has the scope for it, nor more often than the key may. There is none without a scope: who writes a handler
//! decides what it takes.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header::AUTHORIZATION, request::Parts},
};

use super::{Api, Error};
use crate::{
    domain::{Caller, Scope},
    service::{self, admission::Kind},
};

/// Where Eachlabs' clients put the key.
pub(super) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Each with the scope its key has, and as what its request is counted.
macro_rules! callers {
    ($($(#[$about:meta])* $name:ident: $scope:ident, $kind:ident;)*) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name(pub(super) Caller);

        impl FromRequestParts<Api> for $name {
            type Rejection = Error;

            async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
                let key = key(&parts.headers).ok_or(service::Error::Unauthorized)?;
                let caller = api.service.authenticate(key).await?;
                api.service.admit(caller, Scope::$scope, Kind::$kind)?;
                Ok(Self(caller))
            }
        }
    )*};
}

callers! {
    /// Makes predictions.
    Creator: PredictionsWrite, Create;
    /// Changes what is there, or learns what signs, which is not for those who only read.
    Writer: PredictionsWrite, Other;
    /// Reads predictions and models.
    Reader: PredictionsRead, Other;
    /// Reads what was used and what it cost.
    Auditor: UsageRead, Other;
    /// Sees to keys and accounts.
    #[expect(dead_code, reason = "what it sees to is nobody's own")]
    Operator: Admin, Other;
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
}
