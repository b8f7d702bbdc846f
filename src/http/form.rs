//! A form with files in it (`multipart/form-data`), read whole.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::header::CONTENT_TYPE,
};
use futures_util::stream;
use multer::Multipart;

use super::{Api, Error, extract};
use crate::wire::openai::FormValue;

/// Its parts, in order. Comes last among a handler's arguments, so that nothing is read for a caller without a key.
pub(super) struct FormBody(pub(super) Vec<(String, FormValue)>);

impl FromRequest<Api> for FormBody {
    type Rejection = Error;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Error> {
        let limit = api.settings.body_limit;
        extract::check_length(request.headers(), limit)?;
        let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = multer::parse_boundary(content_type.unwrap_or_default()).map_err(|_| {
            let reason = "must be multipart/form-data with a boundary".to_owned();
            Error::UnsupportedBody { header: "Content-Type", reason }
        })?;
        let bytes = extract::read(request.into_body(), limit).await?;
        let whole = stream::iter([Ok::<Bytes, std::convert::Infallible>(bytes)]);
        let mut form = Multipart::new(whole, boundary);
        let mut parts = Vec::new();
        while let Some(field) = form.next_field().await.map_err(malformed)? {
            let name = field.name().unwrap_or_default().to_owned();
            let file_type =
                field.file_name().map(|_| field.content_type().map(ToString::to_string).unwrap_or_default());
            let bytes = field.bytes().await.map_err(malformed)?;
            let value = match file_type {
                Some(media_type) => FormValue::File(media_type, bytes.into()),
                None => FormValue::Text(
                    String::from_utf8(bytes.into())
                        .map_err(|_| Error::MalformedForm(format!("the field {name:?} is not UTF-8")))?,
                ),
            };
            parts.push((name, value));
        }
        Ok(Self(parts))
    }
}

fn malformed(error: multer::Error) -> Error {
    Error::MalformedForm(error.to_string())
}
