//! From drawn pixels to the bytes of a file, off the device's thread, and how they were made in words that tools read.

use image::{ImageResult, RgbImage};

use crate::{
    domain::{Input, OutputFormat},
    picture::{self, Format, Made, Provenance},
};

/// The file of one image, in the format its caller asked for.
pub(super) fn encode(image: &RgbImage, model: &str, input: &Input, seed: u64) -> ImageResult<Vec<u8>> {
    let format = match input.output_format {
        OutputFormat::Png => Format::Png,
        OutputFormat::Jpg => Format::Jpeg(input.output_quality.clamp(1, 100) as u8),
        OutputFormat::Webp => Format::WebP,
    };
    let provenance = input.embed_metadata.then(|| provenance(model, input, seed));
    picture::write(image, format, provenance.as_ref())
}

fn provenance(model: &str, input: &Input, seed: u64) -> Provenance {
    let made = Made {
        model,
        prompt: &input.prompt,
        negative_prompt: input.negative_prompt.as_deref(),
        width: input.width,
        height: input.height,
        scheduler: input.scheduler.as_str(),
        num_inference_steps: input.num_inference_steps,
        guidance_scale: input.guidance_scale,
        seed,
        prompt_strength: input.image.as_ref().map(|_| input.prompt_strength),
    };
    made.provenance()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{FaceDefaults, InputLimits, UnknownFields};

    fn input(raw: Value) -> Input {
        let defaults = FaceDefaults {
            prompt: "",
            negative_prompt: "blurry",
            disable_safety_checker: false,
            has_seed_minus_one: false,
            unknown_fields: UnknownFields::Refuse,
        };
        Input::parse(&raw, &InputLimits::HOSTED, &defaults, 7).expect("valid").0
    }

    #[test]
    fn the_parameters_read_as_the_community_writes_them() {
        let version = env!("CARGO_PKG_VERSION");
        let Provenance { parameters, json } = provenance("tiny", &input(json!({"prompt": "a cat"})), 8);
        // And the commit, where the build was told.
        let expected = format!(
            "a cat\nSteps: 4, Sampler: Euler, Schedule type: SGM Uniform, CFG scale: 0, Seed: 8, Size: 1024x1024, \
             Model: tiny, Version: fourstep {version}"
        );
        assert!(parameters.starts_with(&expected), "{parameters}");
        let json: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(
            (&json["seed"], &json["scheduler"], &json["prompt"]),
            (&json!(8), &json!("K_EULER"), &json!("a cat"))
        );
        assert_eq!((json.get("negative_prompt"), json.get("prompt_strength")), (None, None));
    }

    #[test]
    fn guidance_and_an_image_add_what_they_used() {
        let raw = json!({"prompt": "a cat", "guidance_scale": 2.5, "scheduler": "KarrasDPM", "prompt_strength": 0.5});
        let input = Input { image: Some("inputs/x/y".to_owned()), ..input(raw) };
        let parameters = provenance("tiny", &input, 7).parameters;
        assert!(parameters.starts_with(
            "a cat\nNegative prompt: blurry\nSteps: 4, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 2.5,"
        ));
        assert!(parameters.contains(", Denoising strength: 0.5, Version"), "{parameters}");
        assert!(
            !provenance("tiny", &input, 7).json.contains("inputs/"),
            "where the image is kept is nobody's business"
        );
    }

    #[test]
    fn a_picture_says_nothing_about_itself_when_it_shall_not() {
        let image = RgbImage::new(8, 8);
        for format in OutputFormat::ALL {
            let asked = |embed: bool| {
                let raw = json!({"prompt": "secret", "output_format": format.as_str(), "embed_metadata": embed});
                encode(&image, "tiny", &input(raw), 7).expect("encoded")
            };
            let says = |bytes: &[u8]| bytes.windows(5).any(|window| window == b"Steps" || window == b"fours");
            assert!(says(&asked(true)) && !says(&asked(false)), "{}", format.as_str());
        }
    }
}
