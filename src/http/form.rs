//! Forms (`multipart/form-data`), read whole, and the bodies that may be one.

use std::convert::Infallible;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::header::CONTENT_TYPE,
};
use futures_util::stream;
use multer::Multipart;
use serde_json::Value;

use super::{
    Api, Error,
    extract::{self, JsonBody},
};
use crate::wire::{Part, native, openai::FormValue};

/// A form may have so many parts: each costs more than its bytes.
const MOST_PARTS: usize = 100;

/// The parts of a form, in order. Comes last among a handler's arguments, so that nothing is read for a caller without a key.
pub(super) struct Form(pub(super) Vec<Part>);

impl FromRequest<Api> for Form {
    type Rejection = Error;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Error> {
        let limit = api.settings.body_limit;
        extract::check_length(request.headers(), limit)?;
        let boundary = multer::parse_boundary(media_type(&request)).map_err(|_| {
            let reason = "must be multipart/form-data with a boundary".to_owned();
            Error::UnsupportedBody { header: "Content-Type", reason }
        })?;
        let bytes = api.bodies.read(request.into_body(), limit).await?;
        let mut form = Multipart::new(stream::iter([Ok::<Bytes, Infallible>(bytes.into())]), boundary);
        let mut parts = Vec::new();
        while let Some(field) = form.next_field().await.map_err(malformed)? {
            if parts.len() == MOST_PARTS {
                return Err(Error::MalformedForm(format!("it has more than {MOST_PARTS} parts")));
            }
            parts.push(Part {
                name: field.name().unwrap_or_default().to_owned(),
                file_name: field.file_name().map(str::to_owned),
                media_type: field.content_type().map(ToString::to_string),
                bytes: field.bytes().await.map_err(malformed)?.into(),
            });
        }
        Ok(Self(parts))
    }
}

/// The body of a create: JSON, or a form that brings the image along.
pub(super) struct CreateBody(pub(super) Value);

impl FromRequest<Api> for CreateBody {
    type Rejection = Error;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Error> {
        if is_form(&request) {
            let Form(parts) = Form::from_request(request, api).await?;
            return Ok(Self(native::create_from_form(parts)?));
        }
        let JsonBody(body) = JsonBody::from_request(request, api).await?;
        Ok(Self(body))
    }
}

/// The parts of a form as OpenAI's face reads them.
pub(super) struct FormBody(pub(super) Vec<(String, FormValue)>);

impl FromRequest<Api> for FormBody {
    type Rejection = Error;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Error> {
        let Form(parts) = Form::from_request(request, api).await?;
        let value = |part: Part| {
            let value = match part.file_name {
                Some(_) => FormValue::File(part.media_type.unwrap_or_default(), part.bytes),
                None => FormValue::Text(
                    String::from_utf8(part.bytes)
                        .map_err(|_| Error::MalformedForm(format!("the field {:?} is not UTF-8", part.name)))?,
                ),
            };
            Ok((part.name, value))
        };
        Ok(Self(parts.into_iter().map(value).collect::<Result<_, Error>>()?))
    }
}

/// Whether a request's body is a form.
pub(super) fn is_form(request: &Request) -> bool {
    media_type(request).to_ascii_lowercase().starts_with("multipart/form-data")
}

fn media_type(request: &Request) -> &str {
    request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn malformed(error: multer::Error) -> Error {
    Error::MalformedForm(error.to_string())
}
