//! What is asked for: the body of a generation or an edit, into an input in the model's own words.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use crate::domain::{InputLimits, InvalidField, InvalidInput, size_from_image};

/// Taken and of no meaning here: the model has one quality and one style, and nobody is told who its user is.
const WITHOUT_MEANING: [&str; 8] =
    ["background", "complexity", "input_fidelity", "moderation", "quality", "safety_identifier", "style", "user"];
/// The model's own fields, which the vendor's clients send along as `extra_body`.
const MODELS_OWN: [&str; 9] = [
    "negative_prompt",
    "seed",
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "disable_safety_checker",
    "prompt_strength",
    "strength",
    "embed_metadata",
];
/// Most partial images of a stream.
const MOST_PARTIAL: u64 = 3;

/// How the pictures are to be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// In the answer itself.
    Inline,
    /// By where they can be read.
    Urls,
    /// As events, with so many partial images before the end.
    Stream {
        /// At most.
        partial_images: u32,
    },
}

/// A generation or an edit.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateImages {
    /// The model, by any of its names; the default one if there is none.
    pub model: Option<String>,
    /// The input in the model's words.
    pub input: Value,
    /// How the result is wanted.
    pub answer: Answer,
}

/// One part of an edit's form.
#[derive(Clone, Debug)]
pub enum FormValue {
    /// A field.
    Text(String),
    /// A file: its media type and its bytes.
    File(String, Vec<u8>),
}

impl CreateImages {
    /// Reads the body of a generation.
    pub fn parse(body: Value, limits: &InputLimits) -> Result<Self, InvalidInput> {
        match body {
            Value::Object(fields) => Reader::default().read(fields, limits),
            _ => Err(InvalidInput::one("body", "must be a JSON object")),
        }
    }

    /// Reads the form of an edit, whose fields are all texts. The one picture becomes the one to start from.
    pub fn parse_form(form: Vec<(String, FormValue)>, limits: &InputLimits) -> Result<Self, InvalidInput> {
        let mut reader = Reader::default();
        let (mut fields, mut images) = (Map::new(), Vec::new());
        for (name, value) in form {
            match (name.as_str(), value) {
                ("image" | "image[]", FormValue::File(_, bytes)) => images.push(bytes),
                ("image" | "image[]", FormValue::Text(_)) => reader.refuse("image", "must be a file"),
                // Refused by its name further on.
                ("mask", _) => drop(fields.insert(name, Value::Bool(true))),
                (_, FormValue::File(..)) => reader.refuse(&name, "must be a text and not a file"),
                (_, FormValue::Text(text)) => {
                    if fields.insert(name.clone(), text.into()).is_some() {
                        reader.refuse(&name, "must be given only once");
                    }
                }
            }
        }
        match images.as_slice() {
            [image] => reader.put("image", format!("data:;base64,{}", BASE64_STANDARD.encode(image))),
            [] => reader.refuse("image", "is required"),
            _ => reader.refuse("image", "must be one picture: several cannot be edited into one"),
        }
        reader.read(fields, limits)
    }
}

#[derive(Default)]
struct Reader {
    input: Map<String, Value>,
    invalid: Vec<InvalidField>,
}

impl Reader {
    fn refuse(&mut self, field: &str, reason: impl Into<String>) {
        self.invalid.push(InvalidField { field: field.to_owned(), reason: reason.into() });
    }

    fn put(&mut self, field: &str, value: impl Into<Value>) {
        self.input.insert(field.to_owned(), value.into());
    }

    fn read(mut self, mut fields: Map<String, Value>, limits: &InputLimits) -> Result<CreateImages, InvalidInput> {
        fields.retain(|_, value| !value.is_null());
        let model = match fields.remove("model") {
            None => None,
            Some(Value::String(model)) => Some(model),
            Some(_) => {
                self.refuse("model", "must be a string");
                None
            }
        };
        match fields.remove("prompt") {
            Some(prompt @ Value::String(_)) => self.put("prompt", prompt),
            Some(_) => self.refuse("prompt", "must be a string"),
            None => self.refuse("prompt", "is required"),
        }
        if let Some(count) = fields.remove("n") {
            self.put("num_outputs", count);
        }
        if let Some(size) = fields.remove("size") {
            self.size(&size, limits);
        }
        self.format(&mut fields);
        let answer = self.answer(&mut fields);
        if fields.get("background").is_some_and(|background| background == "transparent") {
            self.refuse("background", "must not be transparent: the model draws all of a picture");
        }
        for (name, value) in fields {
            match name.as_str() {
                name if MODELS_OWN.contains(&name) => self.put(name, value),
                name if WITHOUT_MEANING.contains(&name) => {}
                "mask" => self.refuse("mask", "is not supported: a picture is redrawn as a whole"),
                _ => self.refuse(&name, "is not a parameter of this URL"),
            }
        }
        match self.invalid.is_empty() {
            true => Ok(CreateImages { model, input: self.input.into(), answer }),
            false => Err(InvalidInput { fields: self.invalid }),
        }
    }

    /// `auto` is the model's own size, or that of the picture to start from.
    fn size(&mut self, size: &Value, limits: &InputLimits) {
        let sides = size.as_str().and_then(|text| text.split_once('x'));
        let side = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
        match sides.and_then(|(width, height)| Some((side(width)?, side(height)?))) {
            Some(size) => {
                let is_too_large = size.0.max(size.1) > limits.max_size;
                let (width, height) = match is_too_large && is_of_vendor(size) {
                    true => size_from_image(size, (None, None), (limits.min_size, limits.max_size)),
                    // The input's own check refuses what cannot be drawn.
                    false => size,
                };
                self.put("width", width);
                self.put("height", height);
            }
            None if size == "auto" => {}
            None => self.refuse("size", "must be auto, or a width and a height in pixels like 1024x1024"),
        }
    }

    fn format(&mut self, fields: &mut Map<String, Value>) {
        match fields.remove("output_format").as_ref().map(Value::as_str) {
            None => {}
            Some(Some(format @ ("png" | "webp"))) => self.put("output_format", format),
            Some(Some("jpeg")) => self.put("output_format", "jpg"),
            Some(_) => self.refuse("output_format", "must be one of png, webp, jpeg"),
        }
        if let Some(compression) = fields.remove("output_compression") {
            self.put("output_quality", compression);
        }
    }

    fn answer(&mut self, fields: &mut Map<String, Value>) -> Answer {
        let by_url = match fields.remove("response_format").as_ref().map(Value::as_str) {
            None | Some(Some("b64_json")) => false,
            Some(Some("url")) => true,
            Some(_) => {
                self.refuse("response_format", "must be b64_json or url");
                false
            }
        };
        let stream = match fields.remove("stream") {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(Value::String(text)) if ["true", "false"].contains(&text.as_str()) => text == "true",
            Some(_) => {
                self.refuse("stream", "must be true or false");
                false
            }
        };
        let partial_images = match fields.remove("partial_images") {
            None => Some(0),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        let partial_images = match partial_images.filter(|count| *count <= MOST_PARTIAL) {
            Some(count) => count as u32,
            None => {
                self.refuse("partial_images", format!("must be an integer between 0 and {MOST_PARTIAL}"));
                0
            }
        };
        match (stream, by_url) {
            (true, true) => {
                self.refuse("response_format", "must be b64_json for a stream");
                Answer::Inline
            }
            (true, false) => Answer::Stream { partial_images },
            (false, true) => Answer::Urls,
            (false, false) => Answer::Inline,
        }
    }
}

/// Whether the vendor's models draw pictures of this width and height in pixels, by the documentation of its clients
/// (openai-python 3.57). Those that the model here cannot draw are drawn as large as it can, in their proportions.
fn is_of_vendor((width, height): (u32, u32)) -> bool {
    let (shorter, longer) = (width.min(height), width.max(height));
    let has_sides = width.is_multiple_of(16) && height.is_multiple_of(16) && longer <= 3840;
    has_sides && longer <= 3 * shorter && u64::from(width) * u64::from(height) <= 3840 * 2160
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(body: Value) -> Result<CreateImages, Vec<String>> {
        CreateImages::parse(body, &InputLimits::HOSTED)
            .map_err(|error| error.fields.into_iter().map(|field| field.field).collect())
    }

    #[test]
    fn a_generation_becomes_an_input_in_the_models_words() {
        let body = json!({
            "model": "m", "prompt": "a cat", "n": 2, "size": "512x768", "output_format": "jpeg", "output_compression": 70,
            "quality": "hd", "style": null, "user": "u-1", "complexity": "high", "seed": 7,
        });
        let CreateImages { model, input, answer } = parse(body).expect("valid");
        assert_eq!((model.as_deref(), answer), (Some("m"), Answer::Inline));
        let expected = json!({
            "prompt": "a cat", "num_outputs": 2, "width": 512, "height": 768, "output_format": "jpg",
            "output_quality": 70, "seed": 7,
        });
        assert_eq!(input, expected);
    }

    #[test]
    fn the_vendors_larger_sizes_are_drawn_in_their_proportions_and_others_as_they_are_written() {
        for (size, (width, height)) in [
            ("1536x1024", (1280, 848)),
            ("1024x1792", (728, 1280)),
            ("1536x864", (1280, 720)),
            ("2048x2048", (1280, 1280)),
            ("2880x2880", (1280, 1280)),
            ("3840x2160", (1280, 720)),
            ("1280x3840", (424, 1280)),
            ("1024x1024", (1024, 1024)),
            ("512x1280", (512, 1280)),
            // The input's own check refuses these: no sizes of the vendor's, and not too large.
            ("3856x1600", (3856, 1600)),
            ("3840x2176", (3840, 2176)),
            ("3840x1264", (3840, 1264)),
            ("1537x1024", (1537, 1024)),
            ("4000x4000", (4000, 4000)),
            ("4294967280x4294967280", (4_294_967_280_u32, 4_294_967_280_u32)),
            ("128x128", (128, 128)),
        ] {
            let expected: Value = json!({"prompt": "", "width": width, "height": height});
            assert_eq!(parse(json!({"prompt": "", "size": size})).expect(size).input, expected);
        }
        assert_eq!(parse(json!({"prompt": "", "size": "auto"})).expect("valid").input, json!({"prompt": ""}));
        for size in [json!("512"), json!("x"), json!("512x"), json!("+512x512"), json!("512 x 512"), json!(512)] {
            assert_eq!(parse(json!({"prompt": "", "size": size})), Err(vec!["size".to_owned()]), "{size}");
        }
    }

    #[test]
    fn what_would_draw_another_picture_is_refused_by_its_name() {
        for (field, value) in [
            ("background", json!("transparent")),
            ("mask", json!("data:")),
            ("response_format", json!("binary")),
            ("output_format", json!("jpg")),
            ("partial_images", json!(4)),
            ("stream", json!("yes")),
            ("model", json!(5)),
            ("width", json!(512)),
            ("image", json!("data:")),
        ] {
            assert_eq!(parse(json!({"prompt": "", field: value})), Err(vec![field.to_owned()]));
        }
        assert_eq!(parse(json!({})), Err(vec!["prompt".to_owned()]));
        assert_eq!(parse(json!({"prompt": "", "stream": true, "response_format": "url"})).map(|_| ()), {
            Err(vec!["response_format".to_owned()])
        });
    }

    #[test]
    fn an_edit_is_a_form_with_one_picture() {
        let text = |name: &str, text: &str| (name.to_owned(), FormValue::Text(text.to_owned()));
        let file = |name: &str| (name.to_owned(), FormValue::File("image/png".to_owned(), b"hi".to_vec()));
        let parse = |form| {
            CreateImages::parse_form(form, &InputLimits::HOSTED)
                .map_err(|error| error.fields.into_iter().map(|field| field.field).collect::<Vec<_>>())
        };
        for name in ["image", "image[]"] {
            let form = vec![file(name), text("prompt", "a cat"), text("n", "2"), text("stream", "true")];
            let edit = parse(form).expect("valid");
            assert_eq!(edit.input, json!({"prompt": "a cat", "num_outputs": "2", "image": "data:;base64,aGk="}));
            assert_eq!(edit.answer, Answer::Stream { partial_images: 0 });
        }
        let prompt = || text("prompt", "a cat");
        for (form, field) in [
            (vec![prompt()], "image"),
            (vec![prompt(), file("image[]"), file("image[]")], "image"),
            (vec![prompt(), file("image"), file("mask")], "mask"),
            (vec![prompt(), file("image"), file("size")], "size"),
            (vec![prompt(), file("image"), prompt()], "prompt"),
        ] {
            assert_eq!(parse(form), Err(vec![field.to_owned()]));
        }
    }
}
