//! Whole images, and the rules of a generation.

use std::ops::ControlFlow;

use candle_core::{IndexOp, Tensor};
use fourstep::pipeline::{Error, Params, Pipeline, Progress, SchedulerName};

use crate::support::{Golden, assert_error, relative_error, tiny_pipeline};

const PROMPT: &str = "a photo! of the man and his cats, it's 🙂";
const SEED: u64 = 1234;

fn params() -> Params {
    Params { width: 48, height: 64, seed: SEED, ..Params::new(PROMPT) }
}

fn pixels(pipeline: &Pipeline, params: &Params) -> Vec<Vec<u8>> {
    let generation = pipeline.generate(params, &mut |_| ControlFlow::Continue(())).unwrap();
    generation.images.into_iter().map(image::RgbImage::into_raw).collect()
}

/// Draws and compares the latents after each step and the pixels with diffusers'.
fn assert_as_diffusers(name: &str, params: &Params) {
    let golden = Golden::load();
    let steps: &Tensor = golden.get(&format!("{name}.steps"));
    let mut latents = Vec::new();
    let generation = tiny_pipeline()
        .generate(params, &mut |progress| {
            if let Progress::Step(step) = progress {
                latents.push(step.latents().values.clone());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(latents.len(), steps.dim(0).unwrap());
    for (number, found) in latents.iter().enumerate() {
        let expected: Vec<f32> = steps.i(number).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_error(&format!("{name}: latents after step {number}"), relative_error(found, &expected));
    }
    let expected: Vec<u8> = golden.get(&format!("{name}.image")).flatten_all().unwrap().to_vec1().unwrap();
    let image = &generation.images[0];
    assert_eq!((image.width() as usize, image.height() as usize), (params.width, params.height));
    let differences: Vec<u8> = image.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
    assert_eq!(differences.len(), expected.len());
    let (largest, differing) = (differences.iter().max().unwrap(), differences.iter().filter(|d| **d > 0).count());
    assert!(*largest <= 1, "{name}: a pixel is {largest} levels off");
    assert!(differing * 200 <= expected.len(), "{name}: {differing} of {} levels differ", expected.len());
    eprintln!("{name}: {differing} of {} levels differ by one", expected.len());
}

#[test]
fn an_image_is_the_one_diffusers_draws() {
    assert_as_diffusers("plain", &params());
}

#[test]
fn an_image_of_an_odd_size_is_the_one_diffusers_draws() {
    assert_as_diffusers("odd", &Params { width: 56, height: 72, ..params() });
}

#[test]
fn a_guided_image_is_the_one_diffusers_draws() {
    let negative_prompt = Some("low quality".into());
    assert_as_diffusers("guided", &Params { guidance_scale: 7.5, negative_prompt, ..params() });
}

#[test]
fn guidance_without_a_negative_prompt_is_against_zeros_as_in_diffusers() {
    assert_as_diffusers("guided_without_negative", &Params { guidance_scale: 7.5, ..params() });
}

#[test]
fn guidance_of_one_ignores_the_negative_prompt() {
    let pipeline = tiny_pipeline();
    let guided = Params { guidance_scale: 1.0, negative_prompt: Some("low quality".into()), ..params() };
    assert_eq!(pixels(&pipeline, &guided), pixels(&pipeline, &params()));
}

#[test]
fn image_i_is_what_seed_plus_i_alone_draws() {
    let pipeline = tiny_pipeline();
    let several = Params { num_images_per_prompt: 3, seed: u64::MAX, ..params() };
    let generation = pipeline.generate(&several, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(generation.seeds, [u64::MAX, 0, 1], "seeds wrap around");
    for (image, seed) in generation.images.into_iter().zip(generation.seeds) {
        assert_eq!(vec![image.into_raw()], pixels(&pipeline, &Params { seed, ..params() }), "seed {seed}");
    }
}

#[test]
fn the_callback_hears_of_every_unet_call_of_every_image_and_of_the_images() {
    let pipeline = tiny_pipeline();
    let params = Params { num_images_per_prompt: 2, num_inference_steps: 3, ..params() };
    let (mut heard, mut images) = (Vec::new(), Vec::new());
    let generation = pipeline
        .generate(&params, &mut |progress| {
            match progress {
                Progress::Step(step) => heard.push((step.image_index, step.index, step.total)),
                Progress::Image { index, image } => images.push((heard.len(), index, image.clone())),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    let [first, second] = &generation.images[..] else { panic!("two images") };
    assert_eq!(images, [(3, 0, first.clone()), (6, 1, second.clone())]);
    assert_eq!(heard, [(0, 0, 6), (0, 1, 6), (0, 2, 6), (1, 3, 6), (1, 4, 6), (1, 5, 6)]);
    assert_eq!(params.unet_calls(), 6);
    assert_eq!(generation.timings.steps.len(), 6);
}

#[test]
fn a_break_cancels_before_the_next_unet_call() {
    let mut calls = 0;
    let canceled = tiny_pipeline().generate(&params(), &mut |progress| {
        calls += 1;
        match progress {
            Progress::Step(step) if step.index == 1 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    assert!(matches!(canceled, Err(Error::Canceled)));
    assert_eq!(calls, 2);
}

/// Requests that have only their size and steps in common.
fn alike() -> [Params; 4] {
    let other = |prompt: &str, seed, guidance_scale| Params { prompt: prompt.into(), seed, guidance_scale, ..params() };
    [
        Params { guidance_scale: 7.5, ..params() },
        other("a red circle", 5, 3.0),
        Params { negative_prompt: Some("low quality".into()), ..other("", 6, 2.0) },
        other(PROMPT, 7, 7.5),
    ]
}

#[test]
fn requests_drawn_side_by_side_are_each_what_it_is_alone() {
    let pipeline = tiny_pipeline();
    let draw = |scheduler, image: Option<image::RgbImage>, images| {
        let batch =
            alike().map(|params| Params { scheduler, image: image.clone(), num_images_per_prompt: images, ..params });
        let together = pipeline.generate_batch(&batch, &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(together.len(), 4);
        for (params, generation) in batch.iter().zip(together) {
            let (together, alone) = (generation.unwrap(), pixels(&pipeline, params));
            assert_eq!(together.seeds, [params.seed, params.seed + 1][..images]);
            assert_eq!(together.timings.steps.len(), params.unet_calls());
            for (together, alone) in together.images.into_iter().zip(alone) {
                let differences = together.iter().zip(&alone).map(|(a, b)| a.abs_diff(*b));
                assert!(differences.max() <= Some(1), "{scheduler}: {:?} with others", params.prompt);
            }
        }
    };
    for scheduler in SchedulerName::ALL {
        draw(scheduler, None, 1);
    }
    draw(SchedulerName::EulerAncestral, Some(image::RgbImage::from_pixel(40, 40, image::Rgb([200, 30, 60]))), 2);
}

#[test]
fn one_that_is_canceled_leaves_the_others_as_they_were() {
    let (pipeline, batch) = (tiny_pipeline(), alike());
    let mut heard = [0; 4];
    let mut results = pipeline
        .generate_batch(&batch, &mut |place, progress| {
            heard[place] += 1;
            match progress {
                Progress::Step(step) if place == 1 && step.index == 1 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })
        .unwrap();
    assert_eq!(heard, [5, 2, 5, 5], "four steps and an image each");
    assert!(matches!(results.remove(1), Err(Error::Canceled)));
    for (params, generation) in [&batch[0], &batch[2], &batch[3]].into_iter().zip(results) {
        let (left, alone) = (generation.unwrap().images.remove(0), pixels(&pipeline, params).remove(0));
        assert!(left.iter().zip(&alone).all(|(left, alone)| left.abs_diff(*alone) <= 1), "{:?}", params.prompt);
    }
}

#[test]
fn a_request_that_cannot_be_drawn_fails_alone_and_unlike_ones_are_no_batch() {
    let pipeline = tiny_pipeline();
    let broken = Params { guidance_scale: f64::NAN, ..params() };
    let results = pipeline.generate_batch(&[params(), broken], &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert!(results[0].is_ok() && matches!(results[1], Err(Error::Params(_))));
    let unlike = [params(), Params { width: 64, ..params() }];
    let refused = pipeline.generate_batch(&unlike, &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(Error::Params(_))));
}

#[test]
fn the_number_of_unet_calls_is_known_for_every_scheduler() {
    let calls = |scheduler: SchedulerName| [1, 2, 4].map(|steps| scheduler.unet_calls(steps));
    for scheduler in SchedulerName::ALL {
        let expected = match scheduler {
            SchedulerName::HeunDiscrete | SchedulerName::DpmPlusPlus2MSde => [1, 3, 7],
            SchedulerName::Pndm => [1, 3, 5],
            _ => [1, 2, 4],
        };
        assert_eq!(calls(scheduler), expected, "{scheduler}");
    }
}

#[test]
fn a_long_prompt_is_truncated_and_the_notes_say_what_was_left_out() {
    let pipeline = tiny_pipeline();
    let long = Params { prompt: format!("{PROMPT} {} zebra", "the ".repeat(80)), ..params() };
    let generation = pipeline.generate(&long, &mut |_| ControlFlow::Continue(())).unwrap();
    let [note] = &generation.notes[..] else { panic!("one note expected, not {:?}", generation.notes) };
    assert!(note.starts_with("the prompt is longer than the 75 tokens") && note.ends_with("zebra"), "{note}");
}

#[test]
fn impossible_parameters_are_refused_by_name() {
    let pipeline = tiny_pipeline();
    for (params, name) in [
        (Params { width: 0, ..params() }, "width"),
        (Params { height: 60, ..params() }, "height"),
        (Params { num_images_per_prompt: 0, ..params() }, "num_images_per_prompt"),
        (Params { num_inference_steps: 0, ..params() }, "num_inference_steps"),
        (Params { num_inference_steps: 1001, ..params() }, "num_inference_steps"),
        (Params { guidance_scale: f64::NAN, ..params() }, "guidance_scale"),
    ] {
        match pipeline.generate(&params, &mut |_| ControlFlow::Continue(())) {
            Err(Error::Params(message)) => assert!(message.contains(name), "{message}"),
            other => panic!("{name} was accepted: {other:?}"),
        }
    }
}

#[test]
fn weights_kept_in_f16_draw_the_same_image() {
    // The fixture's weights are f16 already, so keeping them so changes nothing where arithmetic is f32, and with
    // matrix units, which keep 16 bits of a number, no level by more than one.
    let half = Pipeline::load(&crate::support::tiny(), &candle_core::Device::Cpu, candle_core::DType::F16).unwrap();
    let (half, full) = (pixels(&half, &params()), pixels(&tiny_pipeline(), &params()));
    let most = u8::from(fourstep::pipeline::ops::has_matrix_units());
    assert!(half.concat().iter().zip(full.concat()).all(|(half, full)| half.abs_diff(full) <= most));
    assert_eq!(half.concat().len(), full.concat().len());
}
