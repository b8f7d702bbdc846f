//! The safety checker against diffusers', and what becomes of the images it flags.

use std::{fs, ops::ControlFlow, path::Path, process::Command};

use candle_core::{DType, Device, Tensor, safetensors};
use fourstep::{
    domain::{self, FaceDefaults, Input, InputLimits, UnknownFields},
    pipeline::{Error, Generation, Options, Params, Pipeline, Safety, Weights, safety_checker::SafetyChecker},
    worker::predictor::{Predictor, Sdxl, SdxlOptions},
};

use crate::support::{Folder, assert_close, fixtures, image_fixture, tiny};

const CHECKER: &str = "safety_checker/model.safetensors";

fn checker(weights: &Weights) -> SafetyChecker {
    SafetyChecker::open(weights, &Device::Cpu, DType::F32).unwrap().expect("the model has a checker")
}

fn params() -> Params {
    Params { width: 64, height: 48, num_inference_steps: 1, num_images_per_prompt: 3, seed: 5, ..Params::new("a cat") }
}

fn draw(weights: &Weights, params: &Params) -> Result<Generation, Error> {
    let pipeline = Pipeline::load(weights, &Device::Cpu, DType::F32).unwrap();
    pipeline.generate(params, &mut |_| ControlFlow::Continue(()))
}

/// The tiny model with the tiny checker, whose every threshold is this.
fn tiny_with_checker(threshold: f32) -> Folder {
    let folder = Folder::with_tiny();
    fs::create_dir(folder.0.join("safety_checker")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        let name = format!("safety_checker/{name}");
        fs::copy(fixtures().join(&name), folder.0.join(&name)).unwrap();
    }
    change(&folder.0, |tensors| {
        for name in ["concept_embeds_weights", "special_care_embeds_weights"] {
            let thresholds = (tensors[name].ones_like().unwrap() * f64::from(threshold)).unwrap();
            tensors.insert(name.to_owned(), thresholds);
        }
    });
    folder
}

fn change(folder: &Path, change: impl Fn(&mut std::collections::HashMap<String, Tensor>)) {
    let mut tensors = safetensors::load(folder.join(CHECKER), &Device::Cpu).unwrap();
    tensors.values_mut().for_each(|tensor| *tensor = tensor.to_dtype(DType::F32).unwrap());
    change(&mut tensors);
    safetensors::save(&tensors, folder.join(CHECKER)).unwrap();
}

/// Makes one picture the only one near enough to a concept.
fn flag_only(folder: &Folder, generation: &Generation, number: usize) {
    let checker = checker(&Weights::new(&folder.0));
    let embeds = |image: &image::RgbImage| {
        let embeds = checker.embed(image).unwrap();
        let length = embeds.iter().map(|x| x * x).sum::<f32>().sqrt();
        embeds.into_iter().map(|x| x / length).collect::<Vec<f32>>()
    };
    let wanted = embeds(&generation.images[number]);
    let others = generation.images.iter().enumerate().filter(|(other, _)| *other != number);
    let cosine = |image| embeds(image).iter().zip(&wanted).map(|(a, b)| a * b).sum::<f32>();
    let nearest = others.map(|(_, image)| cosine(image)).fold(-1.0, f32::max);
    assert!(nearest < 0.99, "the pictures are too much alike for this test: {nearest}");
    change(&folder.0, |tensors| {
        let (count, width) = tensors["concept_embeds"].dims2().unwrap();
        let rows = Tensor::from_slice(&wanted, (1, width), &Device::Cpu).unwrap();
        tensors.insert("concept_embeds".to_owned(), rows.broadcast_as((count, width)).unwrap().contiguous().unwrap());
        let threshold = Tensor::full((1.0 + nearest) / 2.0, count, &Device::Cpu).unwrap();
        tensors.insert("concept_embeds_weights".to_owned(), threshold);
    });
}

#[test]
fn the_checker_sees_and_decides_what_diffusers_does() {
    let golden = safetensors::load(fixtures().join("safety.safetensors"), &Device::Cpu).unwrap();
    let checker = checker(&Weights::new(fixtures()));
    let flagged: Vec<u8> = golden["flagged"].to_vec1().unwrap();
    assert_eq!(flagged.iter().map(|flag| u32::from(*flag)).sum::<u32>(), 2, "one by itself, one by special care");
    for (number, flag) in flagged.into_iter().enumerate() {
        let image = image_fixture(&format!("checked-{number}"));
        let expected = golden["pixels"].narrow(0, number, 1).unwrap().permute((0, 2, 3, 1)).unwrap();
        assert_close(&format!("pixels of {number}"), &checker.prepared(&image).unwrap(), &expected);
        let embeds = Tensor::new(checker.embed(&image).unwrap(), &Device::Cpu).unwrap();
        assert_close(&format!("embeds of {number}"), &embeds, &golden["embeds"].get(number).unwrap());
        assert_eq!(checker.flags(&image).unwrap(), flag == 1, "picture {number}");
    }
}

#[test]
fn a_flagged_image_is_left_out_with_its_seed_and_a_note() {
    let folder = tiny_with_checker(2.0);
    let weights = Weights::new(&folder.0);
    let all = draw(&weights, &params()).unwrap();
    assert_eq!((all.images.len(), all.safety, all.notes.len()), (3, Safety::Checked, 0));
    flag_only(&folder, &all, 1);
    let shown = draw(&weights, &params()).unwrap();
    assert_eq!(shown.images, [all.images[0].clone(), all.images[2].clone()]);
    assert_eq!((shown.seeds, shown.notes), (vec![5, 7], vec!["NSFW content detected in image 1".to_owned()]));
    let unchecked = draw(&weights, &Params { disable_safety_checker: true, ..params() }).unwrap();
    assert_eq!((unchecked.images, unchecked.safety), (all.images, Safety::Disabled));
}

#[test]
fn a_worker_keeps_every_image_in_the_place_of_its_seed_and_is_told_of_the_flagged_one() {
    let folder = tiny_with_checker(2.0);
    let all = draw(&Weights::new(&folder.0), &params()).unwrap();
    flag_only(&folder, &all, 1);
    let options = SdxlOptions {
        weights: folder.0.clone(),
        unet: None,
        loras: Vec::new(),
        device: Device::Cpu,
        dtype: DType::F32,
        options: Options::default(),
    };
    let raw = serde_json::json!({
        "prompt": "a cat", "width": 64, "height": 48, "num_inference_steps": 1, "num_outputs": 3, "seed": 5
    });
    let defaults = FaceDefaults {
        prompt: "",
        negative_prompt: "",
        disable_safety_checker: false,
        has_seed_minus_one: false,
        unknown_fields: UnknownFields::Refuse,
    };
    let limits = InputLimits { min_size: 8, ..InputLimits::HOSTED };
    let (input, _) = Input::parse(&raw, &limits, &defaults, 0).unwrap();
    let drawn = Sdxl::load(&options).unwrap().predict(&input, None, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(drawn.images, [Some(all.images[0].clone()), None, Some(all.images[2].clone())]);
    assert_eq!(
        (drawn.safety, drawn.notes),
        (domain::Safety::Checked, vec!["NSFW content detected in image 1".to_owned()])
    );
}

#[test]
fn when_every_image_is_flagged_the_generation_fails_in_the_hosted_models_words() {
    let folder = tiny_with_checker(-2.0);
    let failed = draw(&Weights::new(&folder.0), &params());
    let expected = "NSFW content detected. Try running it again, or try a different prompt.";
    assert!(matches!(&failed, Err(error @ Error::Flagged) if error.to_string() == expected), "{failed:?}");
}

#[test]
fn a_model_without_a_checker_says_that_its_images_were_not_checked() {
    assert_eq!(draw(&tiny(), &params()).unwrap().safety, Safety::Unavailable);
    // A configuration alone is no checker.
    let folder = tiny_with_checker(-2.0);
    fs::remove_file(folder.0.join(CHECKER)).unwrap();
    assert_eq!(draw(&Weights::new(&folder.0), &params()).unwrap().safety, Safety::Unavailable);
}

#[test]
fn a_checker_that_does_not_fit_its_configuration_is_refused_by_name() {
    let folder = tiny_with_checker(2.0);
    change(&folder.0, |tensors| drop(tensors.remove("visual_projection.weight")));
    let refused = Pipeline::load(&Weights::new(&folder.0), &Device::Cpu, DType::F32).err().unwrap().to_string();
    assert!(refused.contains("visual_projection.weight") && refused.contains(CHECKER), "{refused}");
}

#[test]
fn the_command_line_leaves_flagged_pictures_out_and_a_gap_in_the_numbering() {
    let folder = tiny_with_checker(2.0);
    let run = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_fourstep"))
            .args(["generate", "--prompt", "a cat", "--seed", "5", "--width", "64", "--height", "48"])
            .args(["--num-inference-steps", "1", "--num-outputs", "3", "--weights"])
            .arg(&folder.0)
            .args(arguments)
            .arg("--out")
            .arg(folder.0.join("cat.png"))
            .output()
            .unwrap()
    };
    let there = || ["cat.png", "cat-2.png", "cat-3.png"].map(|name| fs::remove_file(folder.0.join(name)).is_ok());
    flag_only(&folder, &draw(&Weights::new(&folder.0), &params()).unwrap(), 1);
    let shown = run(&[]);
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success() && said.contains("note: NSFW content detected in image 1"), "{said}");
    assert_eq!(there(), [true, false, true]);
    assert!(run(&["--disable-safety-checker"]).status.success());
    assert_eq!(there(), [true; 3]);
}
