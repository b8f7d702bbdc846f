//! What handlers take from a request, checked: ids, the server's own URL, and a JSON body.

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{
        HeaderMap, HeaderName,
        header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST},
        request::Parts,
    },
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Api, Error};
use crate::{
    domain::{InvalidInput, PredictionId},
    service,
    wire::{self, BaseUrl, FaceUrl, json::Unreadable},
};

/// The id in the URL of a prediction. What is no id is no prediction's.
pub(super) struct KnownId(pub(super) PredictionId);

impl FromRequestParts<Api> for KnownId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let id = path(parts, api).await.and_then(|id| id.parse().ok());
        id.map(Self).ok_or(Error::Service(service::Error::NotFound))
    }
}

/// The id a client has chosen for a new prediction.
pub(super) struct ChosenId(pub(super) PredictionId);

impl FromRequestParts<Api> for ChosenId {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let id = path(parts, api).await.and_then(|id| id.parse().ok());
        let malformed = || InvalidInput::one("id", "must be a UUID like 0197f3a0-5bd3-7cc2-8e5c-3b1a2f4d5e6f");
        Ok(Self(id.ok_or_else(malformed)?))
    }
}

/// The rest of the URL's path: a model's name, a file's key. Empty if it is not even UTF-8.
pub(super) struct Rest(pub(super) String);

impl FromRequestParts<Api> for Rest {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        Ok(Self(path(parts, api).await.unwrap_or_default()))
    }
}

/// The parameters in a route's path, where there are several. What is not even UTF-8 leads nowhere.
pub(super) struct Several<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Several<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(parameters)| Self(parameters)).map_err(|_| Error::NoRoute)
    }
}

/// The one parameter in a route's path.
async fn path(parts: &mut Parts, api: &Api) -> Option<String> {
    Path::from_request_parts(parts, api).await.ok().map(|Path(parameter)| parameter)
}

/// As the operator says, else as the client addressed us.
impl FromRequestParts<Api> for BaseUrl {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        if let Some(public_url) = &api.settings.public_url {
            return Ok(public_url.clone());
        }
        let host = match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => text(&parts.headers, &HOST).unwrap_or_default(),
        };
        Ok(Self::from_host(host).map_err(|_| InvalidInput::one("Host", "must be a host name and perhaps a port"))?)
    }
}

/// The path a vendor's face is mounted under, which its routes carry as an extension.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mount(pub(super) &'static str);

impl FromRequestParts<Api> for FaceUrl {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Error> {
        let server = BaseUrl::from_request_parts(parts, api).await?;
        Ok(Self { server, mount: parts.extensions.get().map_or("", |Mount(path)| path) })
    }
}

/// A JSON body. Comes last among a handler's arguments, so that nothing is read for a caller without a key.
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<Api> for JsonBody {
    type Rejection = Error;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Error> {
        check_headers(request.headers(), api.settings.body_limit)?;
        let bytes = api.bodies.read(request.into_body(), api.settings.body_limit).await?;
        wire::json::parse(&bytes).map(Self).map_err(|unreadable| match unreadable {
            Unreadable::NotJson(reason) => Error::MalformedBody(reason),
            Unreadable::TooManyValues => Error::CrowdedBody,
        })
    }
}

/// Refuses what need not be read to be refused.
fn check_headers(headers: &HeaderMap, limit: usize) -> Result<(), Error> {
    let media_type = text(headers, &CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or_default().trim());
    // Some clients name no type; what parses is then JSON enough.
    let is_json = |media_type: &str| {
        let media_type = media_type.to_ascii_lowercase();
        media_type == "application/json" || (media_type.starts_with("application/") && media_type.ends_with("+json"))
    };
    if headers.contains_key(CONTENT_TYPE) && !media_type.is_some_and(is_json) {
        let reason = format!("must be application/json, not {}", media_type.unwrap_or("what it is"));
        return Err(Error::UnsupportedBody { header: "Content-Type", reason });
    }
    check_length(headers, limit)
}

/// Refuses a body of any type for its length, or for how it is packed.
pub(super) fn check_length(headers: &HeaderMap, limit: usize) -> Result<(), Error> {
    if headers.contains_key(CONTENT_ENCODING) && text(headers, &CONTENT_ENCODING) != Some("identity") {
        let reason = "must not be there: bodies are taken uncompressed".to_owned();
        return Err(Error::UnsupportedBody { header: "Content-Encoding", reason });
    }
    let length = text(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit) { Err(Error::BodyTooLarge { limit }) } else { Ok(()) }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
