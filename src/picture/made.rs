//! How a picture was made, in words that people's tools and programs read.

use serde::Serialize;

use super::Provenance;
use crate::version::version;

/// What a picture depends on. The names are those of the request that would make it again.
#[derive(Clone, Debug, Serialize)]
pub struct Made<'a> {
    /// The model's name.
    pub model: &'a str,
    /// What was to be drawn.
    pub prompt: &'a str,
    /// What was to be avoided. Told only where there was guidance: without it, it did not make the picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<&'a str>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The hosted model's name for it.
    pub scheduler: &'a str,
    /// Denoising steps.
    pub num_inference_steps: u32,
    /// Classifier-free guidance.
    pub guidance_scale: f64,
    /// The seed that alone draws this picture.
    pub seed: u64,
    /// How much of an image it started from was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_strength: Option<f64>,
}

/// The same and what made it.
#[derive(Serialize)]
struct Signed<'a> {
    /// Program and version.
    generator: &'a str,
    #[serde(flatten)]
    made: &'a Made<'a>,
}

impl Made<'_> {
    /// Both texts of a file, which name this program and its version as well.
    pub fn provenance(self) -> Provenance {
        let made = Made { negative_prompt: self.negative_prompt.filter(|_| self.guidance_scale > 1.0), ..self };
        let generator = format!("fourstep {}", version());
        let json = serde_json::to_string(&Signed { generator: &generator, made: &made });
        Provenance { parameters: made.parameters(&generator), json: json.unwrap_or_default() }
    }

    /// The text that AUTOMATIC1111's web UI introduced and other tools read: the prompt, the negative prompt, and a
    /// line of names and values.
    fn parameters(&self, generator: &str) -> String {
        let (sampler, schedule) = sampler(self.scheduler);
        let negative = self.negative_prompt.map(|text| format!("\nNegative prompt: {text}")).unwrap_or_default();
        let denoising = self.prompt_strength.map(|strength| format!(", Denoising strength: {strength}"));
        format!(
            "{}{negative}\nSteps: {}, Sampler: {sampler}, Schedule type: {schedule}, CFG scale: {}, Seed: {}, Size: {}x{}, \
             Model: {}{}, Version: {generator}",
            self.prompt,
            self.num_inference_steps,
            self.guidance_scale,
            self.seed,
            self.width,
            self.height,
            self.model,
            denoising.unwrap_or_default(),
        )
    }
}

/// A scheduler by that web UI's names, and its name for how the steps are spaced.
fn sampler(scheduler: &str) -> (&str, &'static str) {
    let sampler = match scheduler {
        "DPMSolverMultistep" | "KarrasDPM" => "DPM++ 2M",
        "HeunDiscrete" => "Heun",
        "K_EULER_ANCESTRAL" => "Euler a",
        "K_EULER" => "Euler",
        "PNDM" => "PLMS",
        "DPM++2MSDE" => "DPM2 a",
        same => same,
    };
    // Trailing spacing by the name of the trainer that brought it there.
    (sampler, if scheduler == "KarrasDPM" { "Karras" } else { "SGM Uniform" })
}
