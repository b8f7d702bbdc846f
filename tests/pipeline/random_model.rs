//! The random model: what `generate` can draw with when there are no weights.

use std::{fs, ops::ControlFlow};

use candle_core::{DType, Device};
use fourstep::pipeline::{Params, Pipeline, Weights, random_model};

use crate::support::Folder;

#[test]
fn a_random_model_loads_and_draws_any_prompt_at_its_native_size() {
    let folder = Folder::new();
    random_model::write(&folder.0, 7).unwrap();
    let pipeline = Pipeline::load(&Weights::new(&folder.0), &Device::Cpu, DType::F32).unwrap();
    let size = pipeline.native_size();
    assert_eq!(size, 256);
    let params = Params { width: size, height: size, ..Params::new("a fox in the snow 🦊 東京 !") };
    let generation = pipeline.generate(&params, &mut |_| ControlFlow::Continue(())).unwrap();
    let image = &generation.images[0];
    assert_eq!((image.width(), image.height()), (256, 256));
    let mean = image.iter().map(|level| f64::from(*level)).sum::<f64>() / image.len() as f64;
    let deviation = image.iter().map(|level| (f64::from(*level) - mean).powi(2)).sum::<f64>() / image.len() as f64;
    assert!(deviation.sqrt() > 5.0, "the image is flat: mean {mean}, variance {deviation}");
    eprintln!("{:?}", generation.timings);
}

#[test]
fn the_same_seed_writes_the_same_model() {
    let (first, second, third) = (Folder::new(), Folder::new(), Folder::new());
    for (folder, seed) in [(&first, 1), (&second, 1), (&third, 2)] {
        random_model::write(&folder.0, seed).unwrap();
    }
    let unet = |folder: &Folder| fs::read(folder.0.join("unet/diffusion_pytorch_model.safetensors")).unwrap();
    assert_eq!(unet(&first), unet(&second));
    assert_ne!(unet(&first), unet(&third));
}
