//! A model's input as a JSON Schema (2020-12): what documentation, forms and clients are generated from.
//!
//! It describes the plain way to write an input and no more: whatever the schema accepts, `Input::parse` accepts, but
//! not the other way round, for `parse` reads numbers in strings as well. A test holds the two together.

use serde::Serialize;
use serde_json::Value;

use super::native::DEFAULTS;
use crate::domain::{Input, InputLimits, OutputFormat, Scheduler};

/// The schema of a model's `input` object.
#[derive(Debug, Serialize)]
pub struct InputSchema {
    #[serde(rename = "$schema")]
    dialect: &'static str,
    title: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    properties: Properties,
    #[serde(rename = "additionalProperties")]
    additional_properties: bool,
}

/// In the order a form shows them.
#[derive(Debug, Serialize)]
struct Properties {
    prompt: Property,
    negative_prompt: Property,
    width: Property,
    height: Property,
    num_outputs: Property,
    scheduler: Property,
    num_inference_steps: Property,
    guidance_scale: Property,
    seed: Property,
    disable_safety_checker: Property,
    image: Property,
    prompt_strength: Property,
    output_format: Property,
    output_quality: Property,
    embed_metadata: Property,
}

/// One field, with the keywords its type calls for.
#[derive(Debug, Default, Serialize)]
struct Property {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimum: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum: Option<Value>,
    #[serde(rename = "multipleOf", skip_serializing_if = "Option::is_none")]
    multiple_of: Option<u32>,
    #[serde(rename = "maxLength", skip_serializing_if = "Option::is_none")]
    max_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'static str>,
    #[serde(rename = "enum", skip_serializing_if = "Option::is_none")]
    choices: Option<Vec<&'static str>>,
    /// Cog's extension: the place in a form.
    #[serde(rename = "x-order")]
    order: usize,
}

impl Property {
    fn text(title: &'static str, description: &'static str, default: &str, limits: &InputLimits) -> Self {
        Self {
            kind: "string",
            title,
            description,
            default: Some(default.into()),
            max_length: Some(limits.prompt_characters),
            // All but NUL.
            pattern: Some(r"^[^\u0000]*$"),
            ..Self::default()
        }
    }

    fn integer(title: &'static str, description: &'static str, range: (u32, u32), default: u32) -> Self {
        Self {
            kind: "integer",
            title,
            description,
            default: Some(default.into()),
            minimum: Some(range.0.into()),
            maximum: Some(range.1.into()),
            ..Self::default()
        }
    }

    fn size(title: &'static str, description: &'static str, limits: &InputLimits) -> Self {
        let range = (limits.min_size, limits.max_size);
        Self { multiple_of: Some(8), ..Self::integer(title, description, range, limits.default_size) }
    }

    fn number(title: &'static str, description: &'static str, max: f64, default: f64) -> Self {
        Self {
            kind: "number",
            title,
            description,
            default: Some(default.into()),
            minimum: Some(0.0.into()),
            maximum: Some(max.into()),
            ..Self::default()
        }
    }

    fn boolean(title: &'static str, description: &'static str, default: bool) -> Self {
        Self { kind: "boolean", title, description, default: Some(default.into()), ..Self::default() }
    }

    fn choice(title: &'static str, description: &'static str, choices: Vec<&'static str>, default: &str) -> Self {
        Self {
            kind: "string",
            title,
            description,
            default: Some(default.into()),
            choices: Some(choices),
            ..Self::default()
        }
    }

    fn at(self, order: usize) -> Self {
        Self { order, ..self }
    }
}

impl InputSchema {
    /// The schema for a model of these limits, with the native face's defaults.
    pub fn new(limits: &InputLimits) -> Self {
        let scheduler = Property::choice(
            "Scheduler",
            "The noise scheduler.",
            Scheduler::ALL.map(Scheduler::as_str).into(),
            Scheduler::KEuler.as_str(),
        );
        let guidance_scale = Property::number(
            "Guidance scale",
            "Classifier-free guidance. The model is distilled to do without: at most 1 means none.",
            limits.max_guidance_scale,
            0.0,
        );
        let seed = Property {
            kind: "integer",
            title: "Seed",
            description: "The first image's seed; the next has the next. A random one if left out. Larger ones than \
                          the maximum, up to 64 bits, are accepted as well, but not every JSON reader keeps them exact.",
            minimum: Some(0.into()),
            maximum: Some(Input::MAX_EXACT_INTEGER.into()),
            ..Property::default()
        };
        let disable_safety_checker = Property::boolean(
            "Disable safety checker",
            "Whether images are returned unchecked.",
            DEFAULTS.disable_safety_checker,
        );
        let image = Property {
            kind: "string",
            title: "Image",
            description: "A PNG, JPEG or WebP picture to start from: its URL, or a data: URI in base64. Width and height \
                          are its own, within the limits, unless they are given.",
            // All that `parse` looks at; what it decodes to is looked at afterwards.
            pattern: Some(r"^(?:https?://[^\u0000]*|data:[^,\u0000]*;base64,[^\u0000]*)$"),
            ..Property::default()
        };
        let prompt_strength = Property::number(
            "Prompt strength",
            "How much of the image is given up to noise; 1 means all of it. So much of the steps is taken, and there \
             must be one. Without an image it means nothing.",
            1.0,
            Input::DEFAULT_PROMPT_STRENGTH,
        );
        let output_format = Property::choice(
            "Output format",
            "What the images are written as; only jpg loses anything.",
            OutputFormat::ALL.map(OutputFormat::as_str).into(),
            OutputFormat::default().as_str(),
        );
        let output_quality = Property::integer(
            "Output quality",
            "How close to what was drawn a jpg stays.",
            (0, 100),
            Input::DEFAULT_OUTPUT_QUALITY,
        );
        let embed_metadata =
            Property::boolean("Embed metadata", "Whether the files say with what parameters they were made.", true);
        Self {
            dialect: "https://json-schema.org/draft/2020-12/schema",
            title: "Input",
            kind: "object",
            properties: Properties {
                prompt: Property::text("Prompt", "What to draw.", DEFAULTS.prompt, limits).at(0),
                negative_prompt: Property::text(
                    "Negative prompt",
                    "What to avoid; used only with guidance above 1.",
                    DEFAULTS.negative_prompt,
                    limits,
                )
                .at(1),
                width: Property::size("Width", "Pixels.", limits).at(2),
                height: Property::size("Height", "Pixels.", limits).at(3),
                num_outputs: Property::integer("Number of outputs", "Images to draw.", (1, limits.max_outputs), 1)
                    .at(4),
                scheduler: scheduler.at(5),
                num_inference_steps: Property::integer(
                    "Number of inference steps",
                    "Denoising steps. The model is trained for four.",
                    (1, limits.max_steps),
                    limits.default_steps,
                )
                .at(6),
                guidance_scale: guidance_scale.at(7),
                seed: seed.at(8),
                disable_safety_checker: disable_safety_checker.at(9),
                image: image.at(10),
                prompt_strength: prompt_strength.at(11),
                output_format: output_format.at(12),
                output_quality: output_quality.at(13),
                embed_metadata: embed_metadata.at(14),
            },
            additional_properties: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{option, prelude::*, sample::select};
    use serde_json::{Map, json};

    fn schema() -> Value {
        serde_json::to_value(InputSchema::new(&InputLimits::HOSTED)).expect("serializable")
    }

    fn validator() -> jsonschema::Validator {
        jsonschema::draft202012::new(&schema()).expect("a valid schema")
    }

    /// A field's value of the type it should have, often just on a limit or just past it.
    fn value(field: &'static str) -> BoxedStrategy<Value> {
        match field {
            "prompt" | "negative_prompt" => prop_oneof![
                any::<String>().prop_map(Value::from),
                select(vec!["", "\0", "a\0b", "\u{10FFFF}", "line\nline"]).prop_map(Value::from),
                (9_999usize..10_002).prop_map(|length| "é".repeat(length).into()),
            ]
            .boxed(),
            "width" | "height" => prop_oneof![
                (0u32..200).prop_map(|eighth| (eighth * 8).into()),
                (250u32..1290).prop_map(Value::from),
                (250u32..1290).prop_map(|pixels| Value::from(f64::from(pixels))),
            ]
            .boxed(),
            "num_outputs" | "num_inference_steps" => {
                prop_oneof![(-2i64..14).prop_map(Value::from), select(vec![json!(1.0), json!(1.5), json!(-1e300)])]
                    .boxed()
            }
            "scheduler" => prop_oneof![
                select(Scheduler::ALL.to_vec()).prop_map(|scheduler| scheduler.as_str().into()),
                select(vec![json!("k_euler"), json!("DDIM "), json!("?")]),
            ]
            .boxed(),
            "guidance_scale" => {
                prop_oneof![(-1.0..60.0).prop_map(Value::from), (-1i64..60).prop_map(Value::from)].boxed()
            }
            // What lies between the schema's maximum and `parse`'s own is tested by name below.
            "seed" => prop_oneof![
                (-5i64..9_007_199_254_740_992).prop_map(Value::from),
                select(vec![json!(1e15), json!(9e15), json!(9_007_199_254_740_991.0), json!(0.5), json!(1e300)]),
            ]
            .boxed(),
            "image" => select(vec![
                json!("data:image/png;base64,aGk="),
                json!("data:;base64,"),
                json!("data:image/png,aGk="),
                json!("data:image/png;base64,a\0b"),
                json!("https://example.com/a.png"),
                json!(5),
            ])
            .boxed(),
            "prompt_strength" => {
                prop_oneof![(-0.2..1.2).prop_map(Value::from), (-1i64..3).prop_map(Value::from)].boxed()
            }
            "output_format" => select(vec![json!("png"), json!("jpg"), json!("webp"), json!("jpeg"), json!(1)]).boxed(),
            "output_quality" => prop_oneof![(-1i64..103).prop_map(Value::from), Just(json!(80.5))].boxed(),
            "disable_safety_checker" | "embed_metadata" => any::<bool>().prop_map(Value::from).boxed(),
            _ => unreachable!("{field} has no strategy"),
        }
    }

    /// Whether an image leaves no step to take: what `parse` refuses and no schema can say.
    fn takes_no_step(input: &Value) -> bool {
        let number = |field: &str, default: f64| input.get(field).and_then(Value::as_f64).unwrap_or(default);
        let strength = number("prompt_strength", Input::DEFAULT_PROMPT_STRENGTH);
        input.get("image").is_some() && number("num_inference_steps", 4.0) * strength < 1.0
    }

    /// An object of some of the fields.
    fn input() -> impl Strategy<Value = Value> {
        let fields: Vec<_> = Input::FIELDS
            .into_iter()
            .map(|field| option::of(value(field)).prop_map(move |value| (field, value)))
            .collect();
        fields.prop_map(|fields| {
            let given = fields.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value?)));
            given.collect::<Map<_, _>>().into()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn an_input_of_plain_types_is_accepted_by_both_or_by_neither(input in input()) {
            prop_assume!(!takes_no_step(&input));
            let parsed = Input::parse(&input, &InputLimits::HOSTED, &DEFAULTS, 0);
            prop_assert_eq!(validator().is_valid(&input), parsed.is_ok(), "{:?} of {}", parsed, input);
        }

        #[test]
        fn one_field_at_a_time_as_well(field in select(Input::FIELDS.to_vec()).prop_flat_map(|field| (Just(field), value(field)))) {
            let input = json!({ field.0: field.1 });
            let parsed = Input::parse(&input, &InputLimits::HOSTED, &DEFAULTS, 0);
            prop_assert_eq!(validator().is_valid(&input), parsed.is_ok(), "{:?} of {}", parsed, input);
        }
    }

    #[test]
    fn what_parse_forgives_the_schema_does_not_advertise() {
        for forgiven in [json!({"width": "512"}), json!({"seed": null}), json!({"seed": u64::MAX - 4})] {
            assert!(Input::parse(&forgiven, &InputLimits::HOSTED, &DEFAULTS, 0).is_ok(), "{forgiven}");
            assert!(!validator().is_valid(&forgiven), "{forgiven}");
        }
        assert!(!validator().is_valid(&json!({"promt": "a cat"})));
    }

    #[test]
    fn every_field_is_described_in_order_and_its_default_is_what_parse_fills_in() {
        let schema = schema();
        let properties = schema["properties"].as_object().expect("an object");
        assert_eq!(properties.len(), Input::FIELDS.len());
        let (parsed, _) = Input::parse(&json!({}), &InputLimits::HOSTED, &DEFAULTS, 0).expect("valid");
        let parsed = serde_json::to_value(parsed).expect("serializable");
        for (order, field) in Input::FIELDS.iter().enumerate() {
            let property = &properties[*field];
            assert_eq!(property["x-order"], order, "{field}");
            if !["seed", "image"].contains(field) {
                assert_eq!(property["default"], parsed[field], "{field}");
            }
        }
    }
}
