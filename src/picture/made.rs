//! How a picture was made, in words that people's tools and programs read.

use serde::Serialize;

use super::Provenance;

/// What a picture depends on. The names are those of the request that would make it again.
#[derive(Clone, Debug, Serialize)]
pub struct Made<'a> {
    /// Program and version.
    pub generator: &'static str,
    /// The model's name.
    pub model: &'a str,
    /// What was to be drawn.
    pub prompt: &'a str,
    /// What was to be avoided, where that counted.
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

impl Made<'_> {
    /// Both texts of a file.
    pub fn provenance(&self) -> Provenance {
        Provenance { parameters: self.parameters(), json: serde_json::to_string(self).unwrap_or_default() }
    }

    /// The text that AUTOMATIC1111's web UI introduced and other tools read: the prompt, the negative prompt, and a line
    /// of names and values.
    fn parameters(&self) -> String {
        let (sampler, schedule) = sampler(self.scheduler);
        let negative = self.negative_prompt.map(|text| format!("\nNegative prompt: {text}")).unwrap_or_default();
        let denoising = self.prompt_strength.map(|strength| format!(", Denoising strength: {strength}"));
        format!(
            "{}{negative}\nSteps: {}, Sampler: {sampler}, Schedule type: {schedule}, CFG scale: {}, Seed: {}, Size: {}x{}, \
             Model: {}{}, Version: {}",
            self.prompt,
            self.num_inference_steps,
            self.guidance_scale,
            self.seed,
            self.width,
            self.height,
            self.model,
            denoising.unwrap_or_default(),
            self.generator,
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
