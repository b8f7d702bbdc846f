//! What is fuzzed: files somebody else made. Whatever is in them, the answer is a picture, a model, or an error.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use candle_core::{DType, Device};
use fourstep::{
    picture::{self, Format, MAX_SIDE, Provenance},
    pipeline::{Params, Pipeline, Weights},
};

/// An image somebody sent.
pub fn image(bytes: &[u8]) {
    if let Ok(image) = picture::read(bytes) {
        assert!((1..=MAX_SIDE).contains(&image.width()) && (1..=MAX_SIDE).contains(&image.height()));
    }
}

/// The files of a model that an input may stand for. Its first byte says which.
pub const FILES: [&str; 14] = [
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer_2/special_tokens_map.json",
    "scheduler/scheduler_config.json",
    "model_index.json",
    "safety_checker/config.json",
    "unet/diffusion_pytorch_model.safetensors.index.json",
    LORA,
];

const LORA: &str = "lora.safetensors";

/// Pictures of each kind.
pub fn image_seeds() -> Vec<Vec<u8>> {
    let file = |name: &&str| fs::read(fixtures().join("images").join(name)).ok();
    let mut seeds: Vec<_> =
        ["start.png", "transparent.png", "upright.png", "orientation-6.jpg"].iter().filter_map(file).collect();
    let small = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, 99]));
    let provenance = Provenance { parameters: "a cat".to_owned(), json: "{}".to_owned() };
    let formats = [Format::Png, Format::Jpeg(50), Format::WebP];
    seeds.extend(formats.into_iter().filter_map(|format| picture::write(&small, format, Some(&provenance)).ok()));
    seeds
}

/// Each file as it is, where it is small enough to be changed with any hope.
pub fn weights_seeds() -> Vec<Vec<u8>> {
    let content = |name: &str| match name {
        LORA => fs::read(fixtures().join("lora/convolutions.safetensors")).ok(),
        "unet/diffusion_pytorch_model.safetensors.index.json" => {
            Some(br#"{"metadata": {}, "weight_map": {"conv_in.weight": "a.safetensors"}}"#.to_vec())
        }
        name if name.ends_with(".safetensors") => Some(small_safetensors()),
        name if name.starts_with("safety_checker") => fs::read(fixtures().join(name)).ok(),
        name => fs::read(fixtures().join("other").join(name)).ok(),
    };
    let seed = |(number, name): (usize, &&str)| Some([&[number as u8][..], &content(name)?].concat());
    FILES.iter().enumerate().filter_map(seed).collect()
}

fn small_safetensors() -> Vec<u8> {
    let header = br#"{"conv_in.weight":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}}  "#;
    [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat()
}

/// A model one of whose files is replaced: it is refused, or it loads and draws or says why not.
pub fn weights(bytes: &[u8]) {
    let Some((&number, content)) = bytes.split_first() else { return };
    let Some(name) = FILES.get(usize::from(number)) else { return };
    let folder = model();
    let path = folder.join(name);
    let original = fs::read(&path).ok();
    // The index is looked at only where there is no single file.
    let single = folder.join(FILES[1]);
    let aside = name.ends_with("index.json").then(|| fs::rename(&single, folder.join("aside")));
    fs::write(&path, content).expect("the scratch folder can be written to");
    let mut model = Weights::new(folder);
    if *name == LORA
        && let Ok(lora) = path.to_string_lossy().parse()
    {
        model = model.with_loras(vec![lora]);
    }
    if let Ok(pipeline) = Pipeline::load(&model, &Device::Cpu, DType::F32) {
        let params = Params { width: 16, height: 16, num_inference_steps: 2, ..Params::new("a cat") };
        // A configuration may ask for numbers that overflow, or for steps that are not there.
        drop(pipeline.generate(&params, &mut |_| ControlFlow::Continue(())));
    }
    match original {
        Some(original) => fs::write(&path, original),
        None => fs::remove_file(&path),
    }
    .and_then(|()| if aside.is_some() { fs::rename(folder.join("aside"), single) } else { Ok(()) })
    .expect("the scratch folder can be put in order");
}

fn fixtures() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|folder| folder.join("tests/fixtures").is_dir()).expect("inside the repository");
    root.join("tests/fixtures/pipeline")
}

/// A small model's folder of this process's own, in memory where that is possible.
fn model() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let folder = parent.join(format!("fourstep-fuzz-{}", std::process::id()));
        copy(&fixtures().join("other"), &folder);
        copy(&fixtures().join("safety_checker"), &folder.join("safety_checker"));
        folder
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a scratch folder");
    for entry in fs::read_dir(from).expect("the fixtures") {
        let entry = entry.expect("the fixtures");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
