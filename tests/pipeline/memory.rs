//! What is saved of memory, and that it changes the picture by no more than is said.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env, fs,
    io::{self, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
};

use candle_core::{DType, Device, Tensor, safetensors};
use fourstep::pipeline::{
    Error, Options, Params, Pipeline,
    noise::TorchCudaRng,
    unet::{UNet, UNetConfig},
    vae::Vae,
    weights::{TensorStore, Weights},
};
use image::RgbImage;
use serde_json::{Value, json};

use crate::support::{Folder, assert_close, fixtures, largest_difference, tiny};

fn draw(options: Options, params: &Params) -> RgbImage {
    let pipeline = Pipeline::load_with(&tiny(), &Device::Cpu, DType::F32, options).unwrap();
    pipeline.generate(params, &mut |_| ControlFlow::Continue(())).unwrap().images.remove(0)
}

fn guided() -> Params {
    let negative_prompt = Some("low quality".into());
    Params { width: 48, height: 64, guidance_scale: 4.0, negative_prompt, ..Params::new("a cat and a man") }
}

#[test]
fn text_encoders_that_are_read_for_every_prompt_draw_the_same_picture() {
    let (kept, read) = (Options::default(), Options { low_memory: true, ..Options::default() });
    for params in [guided(), Params { negative_prompt: None, ..guided() }, Params { guidance_scale: 0.0, ..guided() }] {
        assert_eq!(draw(read, &params), draw(kept, &params));
    }
}

#[test]
fn a_prompt_drawn_again_is_not_encoded_again() {
    let folder = Folder::with_tiny();
    let options = Options { low_memory: true, ..Options::default() };
    let pipeline = Pipeline::load_with(&Weights::new(&folder.0), &Device::Cpu, DType::F32, options).unwrap();
    let draw = |params: &Params| pipeline.generate(params, &mut |_| ControlFlow::Continue(()));
    let first = draw(&guided()).unwrap().images;
    // Whoever encodes again finds no encoder.
    fs::remove_dir_all(folder.0.join("text_encoder")).unwrap();
    assert_eq!(draw(&guided()).unwrap().images, first);
    let swapped = Params { prompt: "low quality".into(), negative_prompt: Some("a cat and a man".into()), ..guided() };
    assert_ne!(draw(&swapped).unwrap().images, first, "which text is which still matters");
    assert!(draw(&Params { prompt: "a dog".into(), ..guided() }).is_err());
}

#[test]
fn a_tiled_vae_decodes_and_encodes_what_diffusers_tiled_vae_does() {
    let golden = safetensors::load(fixtures().join("tiled.safetensors"), &Device::Cpu).unwrap();
    let vae = Vae::open(&tiny(), &Device::Cpu, DType::F32).unwrap().tiled(Some(64)).unwrap();
    let noise = |channels: usize, height: usize, width: usize| {
        let values = TorchCudaRng::new(1234).normal(channels * height * width);
        let tensor = Tensor::from_vec(values, (1, channels, height, width), &Device::Cpu).unwrap();
        tensor.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
    };
    let assert_same = |name: &str, found: &Tensor, every: usize| {
        let values: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
        let some: Vec<f32> = values.into_iter().step_by(every).collect();
        assert_close(name, &Tensor::new(some, &Device::Cpu).unwrap(), &golden[name]);
    };
    for (width, height) in [(19, 10), (8, 13)] {
        let name = |part| format!("{width}x{height}.{part}");
        assert_same(&name("decoded"), &vae.decode(&noise(4, height, width)).unwrap(), 7);
        let pixels = noise(3, 8 * height, 8 * width).clamp(-1f32, 1f32).unwrap();
        let distribution = vae.encode(&pixels).unwrap();
        assert_same(&name("mean"), &distribution.mean, 1);
        assert_same(&name("logvar"), &distribution.logvar, 1);
    }
}

#[test]
fn what_fits_one_tile_is_not_tiled() {
    let tiled = |tile| draw(Options { vae_tile: Some(tile), ..Options::default() }, &guided());
    let whole = draw(Options::default(), &guided());
    assert_eq!(tiled(64), whole);
    assert!(largest_difference(&tiled(32), &whole) > 0, "tiles of half the size are seen");
}

#[test]
fn tiles_that_cannot_overlap_are_refused() {
    for tile in [0, 24, 100] {
        let options = Options { vae_tile: Some(tile), ..Options::default() };
        let refused = Pipeline::load_with(&tiny(), &Device::Cpu, DType::F32, options).err().unwrap();
        assert!(matches!(&refused, Error::Params(message) if message.contains("32 pixels")), "{refused}");
    }
}

/// Tells what a network asks for, and gives it zeros.
#[derive(Default)]
struct Recorder(RefCell<BTreeMap<String, Vec<usize>>>);

impl TensorStore for Recorder {
    fn contains(&self, _: &str) -> bool {
        true
    }

    fn dtype(&self, _: &str) -> Option<DType> {
        None
    }

    fn read(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, Error> {
        self.0.borrow_mut().insert(name.to_owned(), shape.to_vec());
        Ok(Tensor::zeros(shape, dtype, &Device::Cpu)?)
    }
}

/// Where the child finds the model, and what it keeps the weights in.
const MODEL: &str = "FOURSTEP_TEST_MODEL";
const DTYPE: &str = "FOURSTEP_TEST_DTYPE";

/// A UNet of some 180 MB in f16, all zeros. Returns how many numbers it has.
fn write_unet(folder: &Path) -> usize {
    let text = fs::read_to_string(fixtures().join("tiny/unet/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["block_out_channels"] = json!([128, 256, 384]);
    fs::create_dir_all(folder.join("unet")).unwrap();
    fs::write(folder.join("unet/config.json"), config.to_string()).unwrap();
    let (recorder, config) = (Recorder::default(), serde_json::from_value::<UNetConfig>(config).unwrap());
    UNet::load(&recorder, config, &Device::Cpu, DType::F16).unwrap();
    let (mut header, mut numbers) = (serde_json::Map::new(), 0);
    for (name, shape) in recorder.0.into_inner() {
        let end = numbers + shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "F16", "shape": shape, "data_offsets": [2 * numbers, 2 * end]}));
        numbers = end;
    }
    let mut header = Value::from(header).to_string();
    // As safetensors does it, so that the numbers begin where they can be read in place.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let path = folder.join("unet/diffusion_pytorch_model.safetensors");
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    // What was never written reads as zeros.
    file.set_len((8 + header.len() + 2 * numbers) as u64).unwrap();
    numbers
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
}

#[test]
fn loading_needs_hardly_more_memory_than_the_weights() {
    let folder = Folder::new();
    let numbers = write_unet(&folder.0);
    // The file is in f16: f32 is widened in use, bf16 is converted.
    for dtype in ["f16", "f32", "bf16"] {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "memory::loads_in_a_process_of_its_own", "--ignored", "--nocapture"])
            .env(MODEL, &folder.0)
            .env(DTYPE, dtype)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        let peak = said.lines().find_map(|line| line.split("peak ").nth(1)).and_then(|peak| peak.trim().parse().ok());
        let (peak, weights): (usize, _) = (peak.unwrap_or_else(|| panic!("{said}")), 2 * numbers);
        let ratio = peak as f64 / weights as f64;
        eprintln!("{dtype}: {} MB of weights, peak {} MB: {ratio:.3}", weights / 1_000_000, peak / 1_000_000);
        assert!(ratio <= 1.15, "{dtype}: loading took {ratio:.3} times the weights");
        assert!(ratio > 0.95, "{dtype}: {ratio:.3} times the weights is too little to be true");
    }
}

#[test]
#[ignore = "is started by loading_needs_hardly_more_memory_than_the_weights, with its environment"]
fn loads_in_a_process_of_its_own() {
    let weights = Weights::new(PathBuf::from(env::var_os(MODEL).unwrap()));
    let dtype = match env::var(DTYPE).unwrap().as_str() {
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ => DType::F32,
    };
    let before = memory("VmRSS");
    let unet = UNet::open(&weights, &Device::Cpu, dtype, Options::default()).unwrap();
    writeln!(io::stdout(), "\npeak {}", memory("VmHWM") - before).unwrap();
    drop(unet);
}
