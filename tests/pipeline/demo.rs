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
