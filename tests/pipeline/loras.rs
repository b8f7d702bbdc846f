//! LoRA against diffusers': the same change under every kind of name, and files that do not fit.

use std::{ops::ControlFlow, path::PathBuf};

use candle_core::{DType, Device, Tensor};
use fourstep::pipeline::{Error, LoraFile, Params, Pipeline, WeightsError};
use image::RgbImage;

use crate::support::{Folder, fixtures, largest_difference, tiny};

/// What the images were made with.
const SCALE: f64 = 0.8;

fn lora(name: &str) -> LoraFile {
    LoraFile { path: fixtures().join("lora").join(name), scale: SCALE }
}

fn load(loras: Vec<LoraFile>) -> Result<Pipeline, Error> {
    Pipeline::load(&tiny().with_loras(loras), &Device::Cpu, DType::F32)
}

fn draw(loras: Vec<LoraFile>) -> RgbImage {
    let params =
        Params { width: 48, height: 64, seed: 1234, ..Params::new("a photo! of the man and his cats, it's 🙂") };
    load(loras).unwrap().generate(&params, &mut |_| ControlFlow::Continue(())).unwrap().images.remove(0)
}

fn image(name: &str) -> RgbImage {
    image::open(fixtures().join("lora").join(name)).unwrap().into_rgb8()
}

#[test]
fn a_change_draws_what_diffusers_draws_whatever_its_layers_are_called() {
    let expected = image("image.png");
    for name in ["peft.safetensors", "kohya.safetensors", "original.safetensors"] {
        assert!(largest_difference(&draw(vec![lora(name)]), &expected) <= 1, "{name}");
    }
    let convolutions = draw(vec![lora("convolutions.safetensors")]);
    assert!(largest_difference(&convolutions, &image("convolutions.png")) <= 1);
}

#[test]
fn changes_add_up_and_cancel_out() {
    let plain = draw(Vec::new());
    let undone = LoraFile { scale: -SCALE, ..lora("kohya.safetensors") };
    assert!(largest_difference(&draw(vec![lora("kohya.safetensors"), undone]), &plain) <= 1);
    let half = LoraFile { scale: SCALE / 2.0, ..lora("kohya.safetensors") };
    assert!(largest_difference(&draw(vec![half.clone(), half]), &image("image.png")) <= 1);
    assert!(largest_difference(&plain, &image("image.png")) > 10, "the change shows");
}

/// What is said of a file with these tensors.
fn refusal(tensors: &[(&str, &[usize])]) -> String {
    let folder = Folder::new();
    let path: PathBuf = folder.0.join("lora.safetensors");
    let tensors: std::collections::HashMap<_, _> = tensors
        .iter()
        .map(|(name, shape)| ((*name).to_owned(), Tensor::zeros(*shape, DType::F32, &Device::Cpu).unwrap()))
        .collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    match load(vec![LoraFile { path: path.clone(), scale: 1.0 }]) {
        Err(Error::Weights(error @ (WeightsError::Unsupported { .. } | WeightsError::Shape { .. }))) => {
            let message = error.to_string();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            message
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was loaded"),
    }
}

#[test]
fn a_file_that_does_not_fit_is_refused_by_the_tensor_that_does_not() {
    let layer = "unet.conv_in.lora_A.weight";
    assert!(refusal(&[("unet.conv_in.hada_w1_a", &[2, 2])]).contains("unet.conv_in.hada_w1_a"));
    assert!(refusal(&[("unet.nowhere.lora_A.weight", &[2, 2])]).contains("unet.nowhere.lora_A.weight"));
    assert!(refusal(&[("lora_te2_nowhere.lora_up.weight", &[2, 2])]).contains("text_encoder_2"));
    assert!(refusal(&[(layer, &[2, 4, 3, 3])]).contains("halves"));
    let up = "unet.conv_in.lora_B.weight";
    assert!(refusal(&[(layer, &[2, 4, 3, 2]), (up, &[16, 2, 1, 1])]).contains(layer));
    assert!(refusal(&[(layer, &[2, 4, 3, 3]), (up, &[16, 3, 1, 1])]).contains(up));
    assert!(refusal(&[(layer, &[0, 4, 3, 3]), (up, &[16, 0, 1, 1])]).contains(layer));
}
