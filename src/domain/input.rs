//! The input of a prediction: from whatever JSON a caller sent to values that can be run.
//!
//! Parsing reports every invalid field at once, each with its name and what would have been right. Numbers and
//! booleans may come as strings, because the hosted page's own samples send them so; `null` and, but for the
//! prompts, the empty string mean the default.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::InputLimits;

/// Everything a text-to-image run depends on besides the weights. Same input, same picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// What to draw.
    pub prompt: String,
    /// What to avoid; used only with guidance above 1.
    pub negative_prompt: Option<String>,
    /// Pixels, a multiple of 8.
    pub width: u32,
    /// Pixels, a multiple of 8.
    pub height: u32,
    /// Number of images; image `i` is what `seed + i` alone would draw.
    pub num_outputs: u32,
    /// The noise scheduler, by its hosted name.
    pub scheduler: Scheduler,
    /// Denoising steps.
    pub num_inference_steps: u32,
    /// Classifier-free guidance; at most 1 means none.
    pub guidance_scale: f64,
    /// The first image's seed: the caller's, or one drawn when the prediction was created.
    pub seed: u64,
    /// Whether the caller turned the safety checker off.
    pub disable_safety_checker: bool,
}

/// The noise schedulers of the hosted model, by their hosted names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are the documentation; the pipeline's files say what each does")]
pub enum Scheduler {
    #[serde(rename = "DDIM")]
    Ddim,
    #[serde(rename = "DPMSolverMultistep")]
    DpmSolverMultistep,
    #[serde(rename = "HeunDiscrete")]
    HeunDiscrete,
    #[serde(rename = "KarrasDPM")]
    KarrasDpm,
    #[serde(rename = "K_EULER_ANCESTRAL")]
    KEulerAncestral,
    #[serde(rename = "K_EULER")]
    KEuler,
    #[serde(rename = "PNDM")]
    Pndm,
    #[serde(rename = "DPM++2MSDE")]
    DpmPlusPlus2MSde,
}

impl Scheduler {
    /// Every scheduler, in the order the hosted page lists them.
    pub const ALL: [Self; 8] = [
        Self::Ddim,
        Self::DpmSolverMultistep,
        Self::HeunDiscrete,
        Self::KarrasDpm,
        Self::KEulerAncestral,
        Self::KEuler,
        Self::Pndm,
        Self::DpmPlusPlus2MSde,
    ];

    /// The hosted name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "DDIM",
            Self::DpmSolverMultistep => "DPMSolverMultistep",
            Self::HeunDiscrete => "HeunDiscrete",
            Self::KarrasDpm => "KarrasDPM",
            Self::KEulerAncestral => "K_EULER_ANCESTRAL",
            Self::KEuler => "K_EULER",
            Self::Pndm => "PNDM",
            Self::DpmPlusPlus2MSde => "DPM++2MSDE",
        }
    }
}

/// What a face fills in where the caller says nothing. The faces of the vendors differ in these.
#[derive(Clone, Copy, Debug)]
pub struct FaceDefaults {
    /// Used when there is no prompt at all.
    pub prompt: &'static str,
    /// Used when there is no negative prompt.
    pub negative_prompt: &'static str,
    /// Whether the safety checker is off unless asked for.
    pub disable_safety_checker: bool,
    /// What to do with fields nobody knows.
    pub unknown_fields: UnknownFields,
}

/// What to do with input fields nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    /// Refuse the request: a misspelled field is a mistake its author wants to hear of.
    Refuse,
    /// Drop them with a note in the logs, as the vendors do.
    Note,
}

/// The input cannot be run: every reason at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid input: {}", fields.iter().map(|field| format!("{}: {}", field.field, field.reason)).collect::<Vec<_>>().join("; "))]
pub struct InvalidInput {
    /// At least one.
    pub fields: Vec<InvalidField>,
}

/// One field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidField {
    /// Path from the top of the request body: `input.width`.
    pub field: String,
    /// A sentence fragment: `must be a multiple of 8`.
    pub reason: String,
}

impl InvalidInput {
    /// An error about a single field.
    pub fn one(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { fields: vec![InvalidField { field: field.into(), reason: reason.into() }] }
    }
}

impl Input {
    /// The names of all fields, in the order the hosted page shows them.
    pub const FIELDS: [&'static str; 10] = [
        "prompt",
        "negative_prompt",
        "width",
        "height",
        "num_outputs",
        "scheduler",
        "num_inference_steps",
        "guidance_scale",
        "seed",
        "disable_safety_checker",
    ];

    /// The greatest integer that every JSON reader reads exactly, JavaScript's among them: 2^53 - 1.
    pub const MAX_EXACT_INTEGER: u64 = (1 << 53) - 1;

    /// Reads a caller's `input` object against a model's limits. `random_seed` is used where the caller gave none,
    /// so that a retried prediction draws the same picture. Returns the input and notes for the prediction's logs.
    pub fn parse(
        raw: &Value,
        limits: &InputLimits,
        defaults: &FaceDefaults,
        random_seed: u32,
    ) -> Result<(Self, Vec<String>), InvalidInput> {
        let empty = Map::new();
        let object = match raw {
            Value::Object(object) => object,
            Value::Null => &empty,
            _ => return Err(InvalidInput::one("input", "must be an object")),
        };
        let mut fields = Fields { object, invalid: Vec::new() };

        // The database's JSON cannot hold NUL; nobody means to send it.
        for (name, _) in object.iter().filter(|(name, value)| name.contains('\0') || contains_nul(value)) {
            fields.refuse(&name.replace('\0', "\u{FFFD}"), "must not contain the NUL character");
        }
        let prompt = fields.text("prompt", limits.prompt_characters);
        let negative_prompt = fields.text("negative_prompt", limits.prompt_characters);
        let width = fields.integer("width", limits.min_size.into(), limits.max_size.into());
        let height = fields.integer("height", limits.min_size.into(), limits.max_size.into());
        for (name, size) in [("width", width), ("height", height)] {
            if size.is_some_and(|size| size % 8 != 0) {
                fields.refuse(name, "must be a multiple of 8");
            }
        }
        let num_outputs = fields.integer("num_outputs", 1, limits.max_outputs.into());
        let scheduler = fields.scheduler();
        let num_inference_steps = fields.integer("num_inference_steps", 1, limits.max_steps.into());
        let guidance_scale = fields.number("guidance_scale", 0.0, limits.max_guidance_scale);
        // The last image's seed is `seed + num_outputs - 1`; it must exist.
        let seed = fields.integer("seed", 0, u64::MAX - u64::from(limits.max_outputs));
        let disable_safety_checker = fields.boolean("disable_safety_checker");

        let unknown: Vec<&String> = object.keys().filter(|key| !Self::FIELDS.contains(&key.as_str())).collect();
        let mut notes = Vec::new();
        match defaults.unknown_fields {
            UnknownFields::Refuse => unknown.iter().for_each(|key| fields.refuse(key, "is not a field of this model")),
            UnknownFields::Note => notes.extend(unknown.iter().map(|key| format!("Ignored unknown field {key:?}"))),
        }
        if !fields.invalid.is_empty() {
            return Err(InvalidInput { fields: fields.invalid });
        }

        // A `u64` read within limits that are `u32` fits one.
        let small = |value: Option<u64>, default: u32| value.map_or(default, |value| value as u32);
        let input = Self {
            prompt: prompt.unwrap_or_else(|| defaults.prompt.to_owned()),
            negative_prompt: Some(negative_prompt.unwrap_or_else(|| defaults.negative_prompt.to_owned())),
            width: small(width, limits.default_size),
            height: small(height, limits.default_size),
            num_outputs: small(num_outputs, 1),
            scheduler: scheduler.unwrap_or(Scheduler::KEuler),
            num_inference_steps: small(num_inference_steps, limits.default_steps),
            guidance_scale: guidance_scale.unwrap_or(0.0),
            seed: seed.unwrap_or(random_seed.into()),
            disable_safety_checker: disable_safety_checker.unwrap_or(defaults.disable_safety_checker),
        };
        Ok((input, notes))
    }

    /// The seed of each image, in order.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        self.seed..self.seed + u64::from(self.num_outputs)
    }
}

/// Reads fields one by one and collects what is wrong with them. A reader returns `None` for the default.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    invalid: Vec<InvalidField>,
}

impl Fields<'_> {
    fn refuse(&mut self, name: &str, reason: impl Into<String>) {
        self.invalid.push(InvalidField { field: format!("input.{name}"), reason: reason.into() });
    }

    /// The field unless it is absent, `null` or `""`.
    fn given(&self, name: &str) -> Option<Value> {
        self.object.get(name).filter(|value| !value.is_null() && value.as_str() != Some("")).cloned()
    }

    /// A prompt. The empty string is a prompt.
    fn text(&mut self, name: &str, max_characters: usize) -> Option<String> {
        match self.object.get(name)? {
            Value::Null => None,
            Value::String(text) if text.chars().count() > max_characters => {
                self.refuse(name, format!("must be at most {max_characters} characters long"));
                None
            }
            Value::String(text) => Some(text.clone()),
            _ => {
                self.refuse(name, "must be a string");
                None
            }
        }
    }

    fn integer(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let value = self.given(name)?;
        let integer = as_integer(&value);
        if integer.is_none_or(|integer| integer < i128::from(min) || integer > i128::from(max)) {
            self.refuse(name, format!("must be an integer between {min} and {max}"));
            return None;
        }
        integer.and_then(|integer| u64::try_from(integer).ok())
    }

    fn number(&mut self, name: &str, min: f64, max: f64) -> Option<f64> {
        let value = self.given(name)?;
        let number = match &value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let within = number.filter(|number: &f64| (min..=max).contains(number));
        if within.is_none() {
            self.refuse(name, format!("must be a number between {min} and {max}"));
        }
        within
    }

    fn boolean(&mut self, name: &str) -> Option<bool> {
        let value = self.given(name)?;
        let boolean = match &value {
            Value::Bool(boolean) => Some(*boolean),
            Value::Number(number) => number.as_u64().filter(|bit| *bit <= 1).map(|bit| bit == 1),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if boolean.is_none() {
            self.refuse(name, "must be true or false");
        }
        boolean
    }

    fn scheduler(&mut self) -> Option<Scheduler> {
        let value = self.given("scheduler")?;
        let scheduler =
            value.as_str().and_then(|name| Scheduler::ALL.into_iter().find(|scheduler| scheduler.as_str() == name));
        if scheduler.is_none() {
            let names = Scheduler::ALL.map(Scheduler::as_str).join(", ");
            self.refuse("scheduler", format!("must be one of {names}"));
        }
        scheduler
    }
}

/// An integer written as one, as a float without a fraction, or as a string of either.
fn as_integer(value: &Value) -> Option<i128> {
    // Beyond 2^53 a float is no longer sure to be the integer that was meant.
    let from_float =
        |float: f64| (float.fract() == 0.0 && float.abs() <= Input::MAX_EXACT_INTEGER as f64).then_some(float as i128);
    match value {
        Value::Number(number) => number.as_i128().or_else(|| number.as_f64().and_then(from_float)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| text.parse().ok().and_then(from_float))
        }
        _ => None,
    }
}

fn contains_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(contains_nul),
        Value::Object(object) => object.iter().any(|(name, value)| name.contains('\0') || contains_nul(value)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DEFAULTS: FaceDefaults = FaceDefaults {
        prompt: "a lighthouse",
        negative_prompt: "worst quality, low quality",
        disable_safety_checker: false,
        unknown_fields: UnknownFields::Refuse,
    };

    fn parse(raw: Value) -> Result<Input, Vec<String>> {
        Input::parse(&raw, &InputLimits::HOSTED, &DEFAULTS, 42)
            .map(|(input, _)| input)
            .map_err(|invalid| invalid.fields.into_iter().map(|field| field.field).collect())
    }

    #[test]
    fn an_empty_input_is_the_hosted_models_defaults() {
        let expected = Input {
            prompt: "a lighthouse".into(),
            negative_prompt: Some("worst quality, low quality".into()),
            width: 1024,
            height: 1024,
            num_outputs: 1,
            scheduler: Scheduler::KEuler,
            num_inference_steps: 4,
            guidance_scale: 0.0,
            seed: 42,
            disable_safety_checker: false,
        };
        assert_eq!(parse(json!({})), Ok(expected.clone()));
        assert_eq!(parse(Value::Null), Ok(expected.clone()));
        assert_eq!(parse(json!({"prompt": null, "width": null, "seed": "", "scheduler": ""})), Ok(expected));
    }

    #[test]
    fn the_hosted_pages_sample_with_every_value_a_string_is_understood() {
        let input = parse(json!({
            "prompt": "a cat", "width": "512", "height": "768.0", "num_outputs": "2", "guidance_scale": "1.5",
            "num_inference_steps": "8", "disable_safety_checker": "true", "seed": "7", "scheduler": "DPM++2MSDE"
        }))
        .expect("valid");
        assert_eq!((input.width, input.height, input.num_outputs), (512, 768, 2));
        assert_eq!((input.num_inference_steps, input.guidance_scale, input.seed), (8, 1.5, 7));
        assert!(input.disable_safety_checker);
        assert_eq!(input.scheduler, Scheduler::DpmPlusPlus2MSde);
        assert_eq!(input.seeds().collect::<Vec<_>>(), [7, 8]);
    }

    #[test]
    fn every_invalid_field_is_named_at_once() {
        let invalid = parse(json!({
            "prompt": 5, "width": 1023, "height": 100_000, "num_outputs": 0, "num_inference_steps": 1.5,
            "guidance_scale": "much", "seed": -1, "disable_safety_checker": "perhaps", "scheduler": "euler", "promt": ""
        }));
        let mut names = invalid.expect_err("invalid");
        names.sort();
        let mut expected: Vec<String> = Input::FIELDS.iter().map(|name| format!("input.{name}")).collect();
        expected.retain(|name| name != "input.negative_prompt");
        expected.push("input.promt".into());
        expected.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn numbers_that_are_no_numbers_are_refused() {
        for guidance_scale in [json!("NaN"), json!("inf"), json!([]), json!({}), json!(-0.1), json!(50.1)] {
            assert_eq!(parse(json!({"guidance_scale": guidance_scale})), Err(vec!["input.guidance_scale".into()]));
        }
        for seed in [json!(1e300), json!("1e300"), json!("0x10"), json!(true), json!(u64::MAX)] {
            assert_eq!(parse(json!({"seed": seed})), Err(vec!["input.seed".into()]));
        }
    }

    #[test]
    fn nul_is_refused_wherever_it_hides() {
        let lenient = FaceDefaults { unknown_fields: UnknownFields::Note, ..DEFAULTS };
        for raw in
            [json!({"prompt": "a\0b"}), json!({"x": [{"y\0": 1}]}), json!({"x\0": 1}), json!({"x": {"y": ["\0"]}})]
        {
            assert!(Input::parse(&raw, &InputLimits::HOSTED, &lenient, 0).is_err(), "{raw} passed");
        }
    }

    #[test]
    fn vendors_faces_drop_unknown_fields_with_a_note() {
        let lenient = FaceDefaults { unknown_fields: UnknownFields::Note, ..DEFAULTS };
        let (_, notes) = Input::parse(&json!({"lora": "x"}), &InputLimits::HOSTED, &lenient, 0).expect("valid");
        assert_eq!(notes, ["Ignored unknown field \"lora\""]);
    }
}
