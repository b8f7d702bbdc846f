//! How much there is to compute for an input, relative to other inputs of the same model.

use super::{Input, Scheduler};

impl Input {
    /// Whether both can be drawn side by side, step by step: of the same size, images, scheduler, steps and kind of
    /// guidance. What is drawn, the seeds and how much guidance are each one's own.
    pub fn goes_with(&self, other: &Self) -> bool {
        let steps = |input: &Self| {
            let strength = input.image.as_ref().map(|_| input.prompt_strength.to_bits());
            (input.scheduler, input.num_inference_steps, strength, input.guidance_scale > 1.0)
        };
        let images = |input: &Self| (input.width, input.height, input.num_outputs);
        steps(self) == steps(other) && images(self) == images(other)
    }

    /// Calls of the UNet, and one more for what else is done once for each image, times pixels, times images. Almost all of
    /// a run's time goes there, and grows with the pixels hardly faster than they do.
    pub fn work(&self) -> u64 {
        // Guidance needs the picture without the prompt as well.
        let guided = if self.guidance_scale > 1.0 { 2 } else { 1 };
        let pixels = u64::from(self.width) * u64::from(self.height);
        (u64::from(self.unet_calls()) * guided + 1) * pixels * u64::from(self.num_outputs)
    }

    /// UNet calls for one image. Second-order schedulers call it twice in every step but the last, PNDM makes one call
    /// more, and image-to-image leaves out the steps that `prompt_strength` skips.
    pub fn unet_calls(&self) -> u32 {
        let steps = self.num_inference_steps;
        let taken = match self.image {
            Some(_) => (f64::from(steps) * self.prompt_strength) as u32,
            None => steps,
        };
        match self.scheduler {
            Scheduler::HeunDiscrete | Scheduler::DpmPlusPlus2MSde => (2 * taken).saturating_sub(1),
            Scheduler::Pndm if steps > 1 => taken + 1,
            _ => taken,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{FaceDefaults, InputLimits, UnknownFields};

    fn input(raw: Value) -> Input {
        let defaults = FaceDefaults {
            prompt: "",
            negative_prompt: "",
            disable_safety_checker: false,
            has_seed_minus_one: false,
            unknown_fields: UnknownFields::Refuse,
        };
        Input::parse(&raw, &InputLimits::HOSTED, &defaults, 0).expect("valid").0
    }

    fn work(raw: Value) -> u64 {
        input(raw).work()
    }

    #[test]
    fn only_what_takes_the_same_steps_at_the_same_size_goes_together() {
        let one = input(json!({"prompt": "a cat", "guidance_scale": 3}));
        assert!(one.goes_with(&input(json!({"prompt": "a dog", "seed": 4, "guidance_scale": 7}))));
        for other in [
            json!({"guidance_scale": 0}),
            json!({"guidance_scale": 3, "width": 512}),
            json!({"guidance_scale": 3, "num_outputs": 2}),
            json!({"guidance_scale": 3, "num_inference_steps": 2}),
            json!({"guidance_scale": 3, "scheduler": "DDIM"}),
        ] {
            assert!(!one.goes_with(&input(other.clone())), "{other}");
        }
        let from_image = |strength| Input { image: Some(String::new()), prompt_strength: strength, ..one.clone() };
        assert!(from_image(0.5).goes_with(&from_image(0.5)));
        assert!(!from_image(0.5).goes_with(&from_image(0.8)) && !from_image(0.8).goes_with(&one));
    }

    #[test]
    fn work_grows_with_steps_pixels_and_images() {
        let one = work(json!({}));
        assert_eq!(one, 5 * 1024 * 1024);
        assert_eq!(work(json!({"num_outputs": 3})), 3 * one);
        assert_eq!(work(json!({"width": 512})), one / 2);
        assert_eq!(work(json!({"num_inference_steps": 9})), 2 * one);
        assert_eq!(work(json!({"guidance_scale": 7})), 9 * 1024 * 1024);
    }
}
