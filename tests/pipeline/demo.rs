//! The demo model against diffusers: the weights a newcomer has, whole.

use std::{ops::ControlFlow, path::Path};

use candle_core::{DType, Device};
use fourstep::pipeline::{Params, Pipeline, SchedulerName, Weights};

use crate::support::largest_difference;

#[test]
fn the_demo_model_draws_what_diffusers_draws() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let weights = Weights::new(root.join("assets/demo"));
    let pipeline = Pipeline::load(&weights, &Device::Cpu, DType::F32).unwrap();
    // As `tools/demo-model/goldens.py` asks diffusers.
    let circle = Params { width: 256, height: 256, seed: 7, ..Params::new("a red circle on a blue background") };
    let pair = "a small yellow star above a green square".to_owned();
    let pair = Params { prompt: pair, scheduler: SchedulerName::HeunDiscrete, ..circle.clone() };
    let moon =
        Params { width: 320, height: 264, guidance_scale: 3.0, seed: 7, ..Params::new("a white moon at night!") };
    let star = "a large orange star on a green striped background";
    let star = Params { width: 512, height: 384, seed: 7, ..Params::new(star) };
    for (name, params) in [("circle", circle), ("pair", pair), ("moon", moon), ("star", star)] {
        let drawn = pipeline.generate(&params, &mut |_| ControlFlow::Continue(())).unwrap().images.remove(0);
        let expected = image::open(root.join(format!("tests/fixtures/demo/{name}.png"))).unwrap().into_rgb8();
        let largest = largest_difference(&drawn, &expected);
        assert!(largest <= 2, "{name}: a pixel is {largest} levels off");
    }
}

/// The mean of red, green and blue in the middle of the picture.
fn middle(pipeline: &Pipeline, params: &Params) -> [i64; 3] {
    let picture = pipeline.generate(params, &mut |_| ControlFlow::Continue(())).unwrap().images.remove(0);
    let (x, y) = (picture.width() / 2, picture.height() / 2);
    let pixels: Vec<_> = (0..81).map(|at| picture.get_pixel(x + at % 9 - 4, y + at / 9 - 4).0).collect();
    [0, 1, 2].map(|channel| pixels.iter().map(|pixel| i64::from(pixel[channel])).sum::<i64>() / 81)
}

#[test]
fn guidance_and_a_negative_prompt_can_be_seen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pipeline = Pipeline::load(&Weights::new(root.join("assets/demo")), &Device::Cpu, DType::F32).unwrap();
    let plain = Params { width: 256, height: 256, seed: 1, ..Params::new("a red circle on a blue background") };
    let [unguided, ..] = middle(&pipeline, &plain);
    let [guided, ..] = middle(&pipeline, &Params { guidance_scale: 5.0, ..plain.clone() });
    assert!(guided >= unguided + 10, "red is {unguided}, and with guidance {guided}");

    let guided = Params { guidance_scale: 3.0, ..plain };
    let yellow = Some("a yellow circle on a blue background".to_owned());
    let [_, green, _] = middle(&pipeline, &guided);
    let [_, less_yellow, _] = middle(&pipeline, &Params { negative_prompt: yellow, ..guided });
    assert!(less_yellow + 20 <= green, "green is {green}, and against yellow {less_yellow}");
}
