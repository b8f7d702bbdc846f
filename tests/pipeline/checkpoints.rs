//! The checkpoints people have: the files of SDXL-Lightning, other models of the family by their configurations, and
//! weights that overflow.

use std::{collections::HashMap, fs, ops::ControlFlow};

use candle_core::{DType, Device, Tensor, safetensors};
use fourstep::pipeline::{Error, Generation, Params, Pipeline, Weights};
use image::RgbImage;
use serde_json::{Value, json};

use crate::support::{Folder, tiny_pipeline};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

fn generate(pipeline: &Pipeline, steps: usize) -> Result<Generation, Error> {
    let params = Params { width: 32, height: 40, num_inference_steps: steps, ..Params::new("a cat") };
    pipeline.generate(&params, &mut |_| ControlFlow::Continue(()))
}

fn draw(weights: &Weights, steps: usize) -> RgbImage {
    let pipeline = Pipeline::load(weights, &Device::Cpu, DType::F32).unwrap();
    generate(&pipeline, steps).unwrap().images.remove(0)
}

fn configure(folder: &Folder, file: &str, settings: &Value) {
    let path = folder.0.join(file);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    fs::write(path, config.to_string()).unwrap();
}

#[test]
fn lightnings_unets_are_known_by_their_files() {
    let folder = Folder::with_tiny();
    let plain = generate(&tiny_pipeline(), 1).unwrap().images.remove(0);
    let file = |name: &str| {
        let path = folder.0.join(format!("sdxl_lightning_{name}.safetensors"));
        fs::copy(folder.0.join(UNET), &path).unwrap();
        path
    };
    for name in ["2step_unet", "4step_unet", "8step_unet"] {
        assert_eq!(draw(&Weights::new(&folder.0).with_unet(file(name)), 1), plain, "{name} predicts noise");
    }
    let one_step = draw(&Weights::new(&folder.0).with_unet(file("1step_unet_x0")), 1);
    assert_ne!(one_step, plain, "the one-step file predicts the image");
    configure(&folder, "scheduler/scheduler_config.json", &json!({"prediction_type": "sample"}));
    assert_eq!(one_step, draw(&Weights::new(&folder.0), 1));
}

#[test]
fn folders_of_sdxl_base_and_turbo_load_by_their_configurations() {
    let folder = Folder::with_tiny();
    let plain = generate(&tiny_pipeline(), 2).unwrap().images.remove(0);
    // What the published configurations say beyond the tiny model's.
    let common = json!({"clip_sample": false, "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true,
        "trained_betas": null, "use_karras_sigmas": false});
    configure(&folder, "scheduler/scheduler_config.json", &common);
    let unet = json!({"dropout": 0.0, "reverse_transformer_layers_per_block": null, "upcast_attention": null,
        "attention_type": "default", "addition_embed_type_num_heads": 64, "num_attention_heads": null});
    configure(&folder, "unet/config.json", &unet);
    configure(&folder, "vae/config.json", &json!({"force_upcast": true, "latents_mean": null, "latents_std": null}));
    assert_eq!(draw(&Weights::new(&folder.0), 2), plain, "SDXL base");
    let turbo = json!({"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"});
    configure(&folder, "scheduler/scheduler_config.json", &turbo);
    assert_eq!(draw(&Weights::new(&folder.0), 2), plain, "SDXL turbo");
}

/// The tiny model with one tensor of one file set to the greatest number.
fn overflowing(file: &str, name: &str) -> Folder {
    let folder = Folder::with_tiny();
    let path = folder.0.join(file);
    let mut tensors: HashMap<String, Tensor> = safetensors::load(&path, &Device::Cpu).unwrap();
    let shape = tensors[name].shape().clone();
    tensors.insert(name.to_owned(), Tensor::full(f32::MAX, shape, &Device::Cpu).unwrap());
    safetensors::save(&tensors, path).unwrap();
    folder
}

#[test]
fn numbers_that_overflow_are_an_error_that_says_where_and_never_a_black_image() {
    for (file, name, stage) in [
        (UNET, "conv_out.weight", "the UNet"),
        (UNET, "mid_block.resnets.0.norm1.weight", "the UNet"),
        (VAE, "decoder.conv_in.weight", "the VAE"),
    ] {
        let folder = overflowing(file, name);
        let pipeline = Pipeline::load(&Weights::new(&folder.0), &Device::Cpu, DType::F32).unwrap();
        let failed = generate(&pipeline, 1).err().unwrap_or_else(|| panic!("{name} drew a picture"));
        assert_eq!(failed.to_string(), format!("{stage} produced values that are not finite"), "{name}");
    }
}
