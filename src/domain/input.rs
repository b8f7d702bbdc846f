//! The input of a prediction: from whatever JSON a caller sent to values that can be run.
//!
//! Parsing reports every invalid field at once, each with its name and what would have been right. Numbers and
//! booleans may come as strings, because the hosted page's own samples send them so; `null` and, but for the
//! prompts, the empty string mean the default.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    InputLimits,
    fields::{Fields, contains_nul},
    raw_input::notes_on,
};

/// Everything a run depends on besides the weights. Same input, same picture.
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
    /// The stored image to start from instead of pure noise: its key among the artifacts.
    #[serde(default)]
    pub image: Option<String>,
    /// How much of the image is given up to noise, 0 to 1; so much of the steps is taken.
    #[serde(default = "default_prompt_strength")]
    pub prompt_strength: f64,
    /// What the images are written as.
    #[serde(default)]
    pub output_format: OutputFormat,
    /// How close to what was drawn a JPEG stays, up to 100; the other formats lose nothing.
    #[serde(default = "default_output_quality")]
    pub output_quality: u32,
    /// Whether the files say how they were made.
    #[serde(default = "default_embed_metadata")]
    pub embed_metadata: bool,
}

/// Rows of earlier versions lack these fields.
const fn default_prompt_strength() -> f64 {
    Input::DEFAULT_PROMPT_STRENGTH
}

const fn default_output_quality() -> u32 {
    Input::DEFAULT_OUTPUT_QUALITY
}

const fn default_embed_metadata() -> bool {
    true
}

/// The file formats of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputFormat {
    /// Loses nothing and opens everywhere.
    #[default]
    Png,
    /// Small.
    Jpg,
    /// Loses nothing and is smaller than PNG.
    Webp,
}

impl OutputFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpg, Self::Webp];

    /// The name callers use, which is also a file's ending.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpg => "jpg",
            Self::Webp => "webp",
        }
    }

    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }
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
    /// Whether a seed of -1 means a random one, as with many models, and is not refused.
    pub has_seed_minus_one: bool,
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
    /// Of fields that nobody knows, how many a refusal names: who sent more reads no more.
    pub const MOST_UNKNOWN: usize = 20;

    /// An error about a single field.
    pub fn one(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { fields: vec![InvalidField { field: field.into(), reason: reason.into() }] }
    }
}

impl Input {
    /// What it is drawn from, in one word for those who count.
    pub const fn mode(&self) -> &'static str {
        Self::mode_of(self.image.is_some())
    }

    /// The same for one of which no more is known than whether it has an image to start from.
    pub const fn mode_of(has_image: bool) -> &'static str {
        if has_image { "image_to_image" } else { "text_to_image" }
    }

    /// The names of all fields, in the order the hosted page shows them.
    pub const FIELDS: [&'static str; 15] = [
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
        "image",
        "prompt_strength",
        "output_format",
        "output_quality",
        "embed_metadata",
    ];

    /// Other names that callers know fields by.
    const ALIASES: [(&'static str, &'static str); 2] = [("image_url", "image"), ("strength", "prompt_strength")];

    /// Whether a caller's input says anything of a field, by its own name or another. What is absent, `null` or `""` does
    /// not: that is the default.
    pub fn is_given(raw: &Value, field: &'static str) -> bool {
        raw.as_object().is_some_and(|object| Self::given(object, field).next().is_some())
    }

    /// What an input says of a field, under each name by which it does: the field's own before the others.
    pub(super) fn given<'a>(
        object: &'a Map<String, Value>,
        field: &'static str,
    ) -> impl Iterator<Item = (&'static str, &'a Value)> {
        let others = Self::ALIASES.into_iter().filter(move |(_, meant)| *meant == field).map(|(other, _)| other);
        std::iter::once(field).chain(others).filter_map(|name| {
            let value = object.get(name)?;
            (!value.is_null() && value.as_str() != Some("")).then_some((name, value))
        })
    }

    /// What Replicate's models of this family have.
    pub const DEFAULT_PROMPT_STRENGTH: f64 = 0.8;

    /// What Replicate's models have.
    pub const DEFAULT_OUTPUT_QUALITY: u32 = 80;

    /// The greatest integer that every JSON reader reads exactly, JavaScript's among them: 2^53 - 1.
    pub const MAX_EXACT_INTEGER: u64 = (1 << 53) - 1;

    /// Reads a caller's `input` object against a model's limits. `random_seed` is used where the caller gave none,
    /// so that a retried prediction draws the same picture. Returns the input and notes for the prediction's logs. Of an
    /// image only the form is looked at: it is for who calls this to check, store and put into the input.
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
        let mut fields = Fields::of(object);

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
        let scheduler = fields.choice("scheduler", Scheduler::ALL, Scheduler::as_str);
        let num_inference_steps = fields.integer("num_inference_steps", 1, limits.max_steps.into());
        let guidance_scale = fields.number("guidance_scale", 0.0, limits.max_guidance_scale);
        // The last image's seed is `seed + num_outputs - 1`; it must exist.
        let seed = match defaults.has_seed_minus_one && fields.is_integer("seed", -1) {
            true => None,
            false => fields.integer("seed", 0, u64::MAX - u64::from(limits.max_outputs)),
        };
        let disable_safety_checker = fields.boolean("disable_safety_checker");
        let has_image = fields.image();
        let strength_name = fields.name_used("prompt_strength");
        let prompt_strength = fields.number(strength_name, 0.0, 1.0).unwrap_or(Self::DEFAULT_PROMPT_STRENGTH);
        let steps = num_inference_steps.map_or(limits.default_steps, |steps| steps as u32);
        if has_image && f64::from(steps) * prompt_strength < 1.0 {
            let reason = "times num_inference_steps must be at least 1 for an image, or no step is left to take";
            fields.refuse(strength_name, reason);
        }
        let output_format = fields.choice("output_format", OutputFormat::ALL, OutputFormat::as_str);
        let output_quality = fields.integer("output_quality", 0, 100);
        let embed_metadata = fields.boolean("embed_metadata");

        let is_known = |key: &str| Self::FIELDS.contains(&key) || Self::ALIASES.iter().any(|(alias, _)| *alias == key);
        // Dropping this one would draw something else than was asked for.
        if Self::is_given(raw, "mask") {
            fields.refuse("mask", "is not supported: a picture is redrawn as a whole");
        }
        let unknown: Vec<&String> = object.keys().filter(|key| !is_known(key) && *key != "mask").collect();
        let mut notes = Vec::new();
        match defaults.unknown_fields {
            UnknownFields::Refuse => {
                let named = unknown.iter().take(InvalidInput::MOST_UNKNOWN);
                named.for_each(|key| fields.refuse(key, "is not a field of this model"));
            }
            UnknownFields::Note => notes.extend(notes_on(&unknown)),
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
            image: None,
            prompt_strength,
            output_format: output_format.unwrap_or_default(),
            output_quality: small(output_quality, Self::DEFAULT_OUTPUT_QUALITY),
            embed_metadata: embed_metadata.unwrap_or(true),
        };
        Ok((input, notes))
    }

    /// The seed of each image, in order.
    pub fn seeds(&self) -> impl Iterator<Item = u64> + use<> {
        self.seed..self.seed + u64::from(self.num_outputs)
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
        has_seed_minus_one: false,
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
            image: None,
            prompt_strength: 0.8,
            output_format: OutputFormat::Png,
            output_quality: 80,
            embed_metadata: true,
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
            "guidance_scale": "much", "seed": -1, "disable_safety_checker": "perhaps", "scheduler": "euler", "promt": "",
            "image": "cat.png", "prompt_strength": 1.1, "output_format": "gif", "output_quality": 101, "embed_metadata": 2
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

    const IMAGE: &str = "data:image/png;base64,aGk=";

    #[test]
    fn an_image_and_its_strength_are_known_by_other_names_too() {
        for (image, strength) in [("image", "prompt_strength"), ("image_url", "strength")] {
            let input = parse(json!({image: IMAGE, strength: "0.5"})).expect("valid");
            assert_eq!((input.prompt_strength, input.image), (0.5, None), "{image}");
            assert_eq!(parse(json!({image: "a.png"})), Err(vec![format!("input.{image}")]));
            assert_eq!(parse(json!({strength: 2})), Err(vec![format!("input.{strength}")]));
        }
        assert_eq!(parse(json!({"image": IMAGE, "image_url": IMAGE})), Err(vec!["input.image_url".into()]));
        assert!(parse(json!({"image": IMAGE, "image_url": "", "strength": null})).is_ok());
        assert_eq!(parse(json!({"image": [IMAGE]})), Err(vec!["input.image".into()]));
    }

    #[test]
    fn what_is_absent_null_or_empty_is_not_given_under_any_name() {
        for (raw, is_given) in [
            (json!({"image": IMAGE}), true),
            (json!({"image": "", "image_url": IMAGE}), true),
            (json!({"image": 5}), true),
            (json!({"image": "", "image_url": null}), false),
            (json!({}), false),
            (json!(null), false),
        ] {
            assert_eq!(Input::is_given(&raw, "image"), is_given, "{raw}");
        }
    }

    #[test]
    fn an_image_that_leaves_no_step_to_take_is_refused() {
        for (input, field) in [
            (json!({"image": IMAGE, "prompt_strength": 0.24}), "input.prompt_strength"),
            (json!({"image": IMAGE, "num_inference_steps": 1}), "input.prompt_strength"),
            (json!({"image": IMAGE, "strength": 0}), "input.strength"),
        ] {
            assert_eq!(parse(input.clone()), Err(vec![field.into()]), "{input}");
        }
        // Forms send the strength whether there is an image or not.
        assert!(parse(json!({"prompt_strength": 0})).is_ok());
        assert!(parse(json!({"image": IMAGE, "prompt_strength": 0.25})).is_ok());
    }

    #[test]
    fn a_mask_is_never_ignored() {
        let lenient = FaceDefaults { unknown_fields: UnknownFields::Note, ..DEFAULTS };
        let masked = json!({"image": IMAGE, "mask": IMAGE});
        assert!(Input::parse(&masked, &InputLimits::HOSTED, &lenient, 0).is_err());
        assert!(Input::parse(&json!({"mask": ""}), &InputLimits::HOSTED, &DEFAULTS, 0).is_ok());
    }

    #[test]
    fn rows_of_earlier_versions_can_still_be_read() {
        let mut row = serde_json::to_value(parse(json!({})).expect("valid")).expect("serializable");
        let fields = row.as_object_mut().expect("an object");
        for newer in ["image", "prompt_strength", "output_format", "output_quality", "embed_metadata"] {
            fields.remove(newer);
        }
        assert_eq!(serde_json::from_value::<Input>(row).expect("readable"), parse(json!({})).expect("valid"));
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
    fn a_seed_of_minus_one_is_a_random_one_where_that_is_usual() {
        let usual = FaceDefaults { has_seed_minus_one: true, ..DEFAULTS };
        for (seed, expected) in [(json!(-1), Some(42)), (json!("-1"), Some(42)), (json!(-2), None), (json!(7), Some(7))]
        {
            let read = Input::parse(&json!({"seed": seed}), &InputLimits::HOSTED, &usual, 42);
            assert_eq!(read.ok().map(|(input, _)| input.seed), expected, "{seed}");
        }
        assert_eq!(parse(json!({"seed": -1})), Err(vec!["input.seed".into()]));
    }

    #[test]
    fn vendors_faces_drop_unknown_fields_with_a_note() {
        let lenient = FaceDefaults { unknown_fields: UnknownFields::Note, ..DEFAULTS };
        let (_, notes) = Input::parse(&json!({"lora": "x"}), &InputLimits::HOSTED, &lenient, 0).expect("valid");
        assert_eq!(notes, ["Ignored unknown field \"lora\""]);
    }
}
