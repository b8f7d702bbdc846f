//! Whole images against diffusers': every scheduler, from text and from an image, with guidance and without, and a
//! model of other dimensions by the command line.

use std::{fs, ops::ControlFlow, process::Command};

use fourstep::pipeline::{Error, Params, Pipeline, Progress, SchedulerName};
use image::RgbImage;

use crate::support::{Folder, fixtures, image_fixture, tiny_pipeline};

const PROMPT: &str = "a photo! of the man and his cats, it's 🙂";
const SEED: u64 = 1234;

fn from_text() -> Params {
    Params { width: 48, height: 64, seed: SEED, ..Params::new(PROMPT) }
}

/// diffusers takes the image's size, rounded down.
fn from_image() -> Params {
    let image = Some(image_fixture("start"));
    Params { width: 56, height: 80, seed: SEED, num_inference_steps: 5, strength: 0.7, image, ..Params::new(PROMPT) }
}

fn guided(params: Params) -> Params {
    Params { guidance_scale: 7.5, negative_prompt: Some("low quality".into()), ..params }
}

fn draw(pipeline: &Pipeline, params: &Params) -> RgbImage {
    pipeline.generate(params, &mut |_| ControlFlow::Continue(())).unwrap().images.remove(0)
}

/// Within a level of 255, and that in one number of a hundred at most.
fn assert_same(what: &str, found: &RgbImage, name: &str) {
    let expected = image_fixture(name);
    assert_eq!(found.dimensions(), expected.dimensions(), "{what}");
    let differences: Vec<u8> = found.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).collect();
    let (largest, differing) = (differences.iter().max().unwrap(), differences.iter().filter(|d| **d > 0).count());
    assert!(*largest <= 1, "{what}: a pixel is {largest} levels off");
    assert!(differing * 100 <= differences.len(), "{what}: {differing} of {} levels differ", differences.len());
    eprintln!("{what}: {differing} of {} levels differ by one", differences.len());
}

#[test]
fn every_scheduler_draws_the_image_diffusers_draws_from_text() {
    let pipeline = tiny_pipeline();
    for scheduler in SchedulerName::ALL {
        let plain = Params { scheduler, ..from_text() };
        assert_same(&format!("{scheduler} from text"), &draw(&pipeline, &plain), &format!("{scheduler}.text.plain"));
        let image = draw(&pipeline, &guided(plain));
        assert_same(&format!("{scheduler} from text, guided"), &image, &format!("{scheduler}.text.guided"));
    }
}

#[test]
fn every_scheduler_draws_the_image_diffusers_draws_from_an_image() {
    let pipeline = tiny_pipeline();
    for scheduler in SchedulerName::ALL {
        let plain = Params { scheduler, ..from_image() };
        assert_same(
            &format!("{scheduler} from an image"),
            &draw(&pipeline, &plain),
            &format!("{scheduler}.image.plain"),
        );
        let image = draw(&pipeline, &guided(plain));
        assert_same(&format!("{scheduler} from an image, guided"), &image, &format!("{scheduler}.image.guided"));
    }
}

#[test]
fn the_number_of_unet_calls_is_known_beforehand_with_an_image_too() {
    let pipeline = tiny_pipeline();
    for scheduler in SchedulerName::ALL {
        for (num_inference_steps, strength) in [(5, 0.7), (4, 1.0), (2, 0.5)] {
            let params = Params { scheduler, num_inference_steps, strength, num_images_per_prompt: 2, ..from_image() };
            let mut heard = Vec::new();
            let generation = pipeline
                .generate(&params, &mut |progress| {
                    if let Progress::Step(step) = progress {
                        heard.push((step.index, step.total));
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
            let total = params.unet_calls();
            let expected: Vec<_> = (0..total).map(|index| (index, total)).collect();
            assert_eq!(heard, expected, "{scheduler}, {num_inference_steps} steps, strength {strength}");
            assert_eq!(generation.timings.steps.len(), total);
        }
    }
}

#[test]
fn image_i_from_an_image_is_what_seed_plus_i_alone_draws() {
    let pipeline = tiny_pipeline();
    let several = Params { num_images_per_prompt: 2, scheduler: SchedulerName::EulerAncestral, ..from_image() };
    let generation = pipeline.generate(&several, &mut |_| ControlFlow::Continue(())).unwrap();
    let alone = draw(&pipeline, &Params { num_images_per_prompt: 1, seed: SEED + 1, ..several });
    assert_eq!(generation.images[1], alone);
    assert_ne!(generation.images[0], alone);
}

#[test]
fn an_image_without_pixels_or_steps_is_refused_by_name() {
    let pipeline = tiny_pipeline();
    for (params, name) in [
        (Params { image: Some(RgbImage::new(0, 5)), ..from_image() }, "image"),
        (Params { strength: 0.19, ..from_image() }, "strength must be at least 1"),
        (Params { strength: f64::NAN, ..from_image() }, "strength"),
    ] {
        match pipeline.generate(&params, &mut |_| ControlFlow::Continue(())) {
            Err(Error::Params(message)) => assert!(message.contains(name), "{message}"),
            other => panic!("{name} was accepted: {other:?}"),
        }
    }
    // Without an image there is no such thing as too little strength.
    draw(&pipeline, &Params { strength: 0.0, ..from_text() });
}

/// What `fourstep generate` draws with the other model.
fn generate(arguments: &[&str]) -> RgbImage {
    let folder = Folder::new();
    let out = folder.0.join("out.png");
    let finished = Command::new(env!("CARGO_BIN_EXE_fourstep"))
        .args(["generate", "--prompt", PROMPT, "--seed", "1234", "--weights"])
        .arg(fixtures().join("other"))
        .args(arguments)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert!(finished.status.success(), "{}", String::from_utf8_lossy(&finished.stderr));
    image::load_from_memory(&fs::read(out).unwrap()).unwrap().into_rgb8()
}

#[test]
fn the_command_line_draws_with_a_model_of_other_dimensions_what_diffusers_draws() {
    let image = generate(&["--width", "88", "--height", "104"]);
    assert_same("another model, from text", &image, "other.text");
    let guided = ["--scheduler", "DPM++2MSDE", "--num-inference-steps", "3", "--guidance-scale", "5"];
    let image = generate(&[&["--width", "72", "--height", "56"], &guided[..]].concat());
    assert_same("another model, guided", &image, "other.guided");
    let start = fixtures().join("images/start.png");
    let from_image = ["--image", start.to_str().unwrap(), "--prompt-strength", "0.5", "--guidance-scale", "1"];
    let image = generate(&[&from_image[..], &["--scheduler", "HeunDiscrete", "--num-inference-steps", "6"]].concat());
    assert_same("another model, from an image", &image, "other.image");
}
