//! How much there is to compute for an input, relative to other inputs of the same model.

use super::{Input, Scheduler};

impl Input {
    /// Calls of the UNet, and one more for what else is done once for each image, times pixels, times images. Almost all of
    /// a run's time goes there, and grows with the pixels hardly faster than they do.
    pub fn work(&self) -> u64 {
        let steps = match &self.image {
            Some(_) => (f64::from(self.num_inference_steps) * self.prompt_strength) as u64,
            None => u64::from(self.num_inference_steps),
        };
        // Schedulers that look twice at each step, and guidance, which needs the picture without the prompt as well.
        let looks = if matches!(self.scheduler, Scheduler::HeunDiscrete | Scheduler::KarrasDpm) { 2 } else { 1 };
        let guided = if self.guidance_scale > 1.0 { 2 } else { 1 };
        let pixels = u64::from(self.width) * u64::from(self.height);
        (steps * looks * guided + 1) * pixels * u64::from(self.num_outputs)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{FaceDefaults, InputLimits, UnknownFields};

    fn work(raw: Value) -> u64 {
        let defaults = FaceDefaults {
            prompt: "",
            negative_prompt: "",
            disable_safety_checker: false,
            unknown_fields: UnknownFields::Refuse,
        };
        Input::parse(&raw, &InputLimits::HOSTED, &defaults, 0).expect("valid").0.work()
    }

    #[test]
    fn work_grows_with_steps_pixels_and_images() {
        let one = work(json!({}));
        assert_eq!(one, 5 * 1024 * 1024);
        assert_eq!(work(json!({"num_outputs": 3})), 3 * one);
        assert_eq!(work(json!({"width": 512})), one / 2);
        assert_eq!(work(json!({"num_inference_steps": 9})), 2 * one);
        for twice in [json!({"scheduler": "HeunDiscrete"}), json!({"guidance_scale": 7})] {
            assert_eq!(work(twice), 9 * 1024 * 1024);
        }
    }
}
