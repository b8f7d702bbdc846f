//! What the client of a create wants in the answer (`Accept`): the prediction's document, or the picture itself.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header::ACCEPT, request::Parts},
};
use serde_json::{Map, Value};
use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use super::{Api, Error, openapi::header};
use crate::domain::{Input, InvalidInput, OutputFormat};

/// A picture if that is the first thing the client names, and else the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Document,
    /// In this format; in any, if it does not say.
    Picture(Option<OutputFormat>),
}

impl IntoParams for Wanted {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let first = "`image/png`, `image/jpeg` or `image/webp` first: the picture itself is the answer.";
        vec![header("Accept", first)]
    }
}

impl FromRequestParts<Api> for Wanted {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Error> {
        Ok(Self::of(&parts.headers))
    }
}

impl Wanted {
    fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let first = accept.split([',', ';']).next().unwrap_or_default().trim().to_ascii_lowercase();
        match OutputFormat::ALL.into_iter().find(|format| format.content_type() == first) {
            Some(format) => Self::Picture(Some(format)),
            None if first == "image/*" => Self::Picture(None),
            None => Self::Document,
        }
    }

    /// Has the input say the same: one picture, in this format.
    pub(super) fn shape(self, input: &mut Value) -> Result<(), InvalidInput> {
        let Self::Picture(format) = self else { return Ok(()) };
        if input.is_null() {
            *input = Map::new().into();
        }
        let has_format = Input::is_given(input, "output_format");
        // Anything else is refused as an input.
        let Value::Object(fields) = input else { return Ok(()) };
        let outputs = fields.get("num_outputs").map(|count| count.to_string().trim_matches('"').to_owned());
        if outputs.is_some_and(|count| !["", "null", "1", "1.0"].contains(&count.as_str())) {
            return Err(InvalidInput::one("Accept", "asks for a picture, which input.num_outputs makes several of"));
        }
        let Some(format) = format else { return Ok(()) };
        match fields.get("output_format").filter(|_| has_format) {
            None => drop(fields.insert("output_format".to_owned(), format.as_str().into())),
            Some(given) if *given == format.as_str() => {}
            Some(_) => return Err(InvalidInput::one("Accept", "asks for another format than input.output_format")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(accept: &str) -> Wanted {
        Wanted::of(&HeaderMap::from_iter([(ACCEPT, accept.parse().expect("a value"))]))
    }

    #[test]
    fn a_picture_is_wanted_if_it_is_named_first() {
        assert_eq!(wanted("image/png"), Wanted::Picture(Some(OutputFormat::Png)));
        assert_eq!(wanted("IMAGE/JPEG;q=0.9, */*"), Wanted::Picture(Some(OutputFormat::Jpg)));
        assert_eq!(wanted("image/*"), Wanted::Picture(None));
        for accept in ["", "*/*", "application/json, image/png", "image/avif", "text/html"] {
            assert_eq!(wanted(accept), Wanted::Document, "{accept}");
        }
    }

    #[test]
    fn the_input_says_the_same_or_is_refused() {
        let shaped = |mut input: Value| Wanted::Picture(Some(OutputFormat::Webp)).shape(&mut input).map(|()| input);
        assert_eq!(shaped(Value::Null), Ok(json!({"output_format": "webp"})));
        let said = json!({"output_format": "webp", "num_outputs": "1"});
        assert_eq!(shaped(said.clone()), Ok(said));
        for input in [json!({"output_format": "png"}), json!({"num_outputs": 2}), json!({"num_outputs": "3"})] {
            assert!(shaped(input.clone()).is_err(), "{input}");
        }
    }
}
