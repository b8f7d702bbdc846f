//! The image that image to image starts from: where the caller put it, and the size of what is drawn from it.

use base64::{Engine, alphabet, engine};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Input;

/// Padding is left out by some.
const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);
/// Characters of a data URI that are echoed.
const ECHOED: usize = 64;

/// An image as it stands in an input object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource<'a> {
    /// A `data:` URI.
    Inline {
        /// All of it.
        uri: &'a str,
        /// The bytes in base64.
        payload: &'a str,
    },
    /// Where it can be fetched: `https:` or `http:`.
    Remote(&'a str),
}

impl<'a> ImageSource<'a> {
    /// Reads the form of an `image` and leaves its content for later; the error says what it must be.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let starts_with =
            |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        if starts_with("http://") || starts_with("https://") {
            return Ok(Self::Remote(text));
        }
        if !starts_with("data:") {
            return Err(
                "must be an https: URL, a data: URI like data:image/png;base64,iVBORw0…, or the id of an upload"
                    .to_owned(),
            );
        }
        match text.split_once(',') {
            Some((head, payload)) if head.to_ascii_lowercase().ends_with(";base64") => {
                Ok(Self::Inline { uri: text, payload })
            }
            _ => Err("must be a data: URI in base64: data:image/png;base64,iVBORw0…".to_owned()),
        }
    }

    /// Takes the image out of an input that `Input::parse` accepted, with the name of its field, and leaves there what is
    /// echoed.
    pub fn take(raw: &mut Value) -> Option<(&'static str, String)> {
        let (field, _) = Input::given(raw.as_object()?, "image").next()?;
        let Value::String(text) = raw.get_mut(field)? else { return None };
        // What names a file of ours is short.
        let echo = ImageSource::parse(text).map_or_else(|_| text.clone(), |source| source.echo());
        Some((field, std::mem::replace(text, echo)))
    }

    /// The bytes of an inline file; the error says what is wrong with them.
    pub fn decode(payload: &str) -> Result<Vec<u8>, String> {
        BASE64.decode(payload).map_err(|error| format!("must be valid base64: {error}"))
    }

    /// What is echoed in its place: megabytes are not repeated in every answer, but two images never look the same.
    pub fn echo(&self) -> String {
        let uri = match self {
            Self::Inline { uri, .. } => uri,
            Self::Remote(url) => return (*url).to_owned(),
        };
        let start: String = uri.chars().take(ECHOED).collect();
        let digest = hex::encode(Sha256::digest(uri));
        format!("{start}… ({} characters, SHA-256 {digest})", uri.len())
    }
}

/// The size to draw at when starting from an image of this size: what is given stays, and what is not is the image's, in
/// its proportions, brought within the limits and rounded down to multiples of 8. Only an image far longer than wide loses
/// its proportions to the limits.
pub fn size_from_image(
    (image_width, image_height): (u32, u32),
    given: (Option<u32>, Option<u32>),
    (min, max): (u32, u32),
) -> (u32, u32) {
    let scaled = |side: u32, (numerator, denominator): (u32, u32)| {
        let side = u64::from(side) * u64::from(numerator) / u64::from(denominator.max(1));
        (side / 8 * 8).clamp(min.into(), max.into()) as u32
    };
    match given {
        (Some(width), Some(height)) => (width, height),
        (Some(width), None) => (width, scaled(image_height, (width, image_width))),
        (None, Some(height)) => (scaled(image_width, (height, image_height)), height),
        (None, None) => {
            let (shortest, longest) = (image_width.min(image_height), image_width.max(image_height));
            let scale = if longest > max {
                (max, longest)
            } else if shortest < min {
                (min, shortest)
            } else {
                (1, 1)
            };
            (scaled(image_width, scale), scaled(image_height, scale))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn data_uris_are_taken_and_everything_else_is_refused_in_words() {
        for uri in ["data:image/png;base64,aGk=", "data:application/octet-stream;base64,aGk", "DATA:;BASE64,aGk="] {
            let Ok(ImageSource::Inline { payload, .. }) = ImageSource::parse(uri) else { panic!("{uri}") };
            assert_eq!(ImageSource::decode(payload).expect(uri), b"hi");
        }
        for (text, word) in [
            ("a.png", "data:"),
            ("data:image/png,hi", "base64"),
            ("data:image/png;base64", "base64"),
            ("däta", "data:"),
        ] {
            let reason = ImageSource::parse(text).expect_err(text);
            assert!(reason.contains(word), "{reason}");
        }
        for payload in ["aGk=aGk=", "a", "aG k="] {
            assert!(ImageSource::decode(payload).is_err(), "{payload}");
        }
        for url in ["https://example.com/a.png", "HTTP://example.com/a.png"] {
            assert_eq!(ImageSource::parse(url), Ok(ImageSource::Remote(url)));
        }
    }

    #[test]
    fn an_echo_is_short_and_tells_images_apart() {
        let echo = |last: &str| {
            let uri = format!("data:image/png;base64,{}{last}", "A".repeat(1_000_000));
            ImageSource::parse(&uri).expect("well-formed").echo()
        };
        assert!(echo("A").starts_with("data:image/png;base64,AAAA") && echo("A").len() < 200, "{}", echo("A"));
        assert_ne!(echo("A"), echo("B"));
        // An echo is no image, so that sending it back is an error and not a different picture.
        let echo = echo("A");
        let Ok(ImageSource::Inline { payload, .. }) = ImageSource::parse(&echo) else { panic!("{echo}") };
        assert!(ImageSource::decode(payload).is_err());
        for (text, left) in
            [("data:;base64,aGk=", "data:;base64,aGk=… ("), ("https://a/b", "https://a/b"), ("an id", "an id")]
        {
            let mut raw = json!({"image": "", "image_url": text});
            assert_eq!(ImageSource::take(&mut raw), Some(("image_url", text.to_owned())));
            assert!(raw["image_url"].as_str().is_some_and(|echo| echo.starts_with(left)), "{raw}");
        }
    }

    #[test]
    fn the_size_follows_the_image_within_the_limits() {
        let hosted = (256, 1280);
        for (image, given, expected) in [
            ((1024, 768), (None, None), (1024, 768)),
            ((1021, 769), (None, None), (1016, 768)),
            ((4000, 3000), (None, None), (1280, 960)),
            ((3000, 4096), (None, None), (936, 1280)),
            ((100, 50), (None, None), (512, 256)),
            ((1, 1), (None, None), (256, 256)),
            ((4000, 10), (None, None), (1280, 256)),
            ((1000, 10), (None, None), (1280, 256)),
            ((1000, 500), (Some(512), None), (512, 256)),
            ((1000, 500), (None, Some(512)), (1024, 512)),
            ((500, 1000), (Some(1280), None), (1280, 1280)),
            ((1000, 500), (Some(256), Some(1280)), (256, 1280)),
        ] {
            assert_eq!(size_from_image(image, given, hosted), expected, "{image:?}, {given:?}");
        }
        assert_eq!(size_from_image((61, 83), (None, None), (8, 1280)), (56, 80));
    }
}
