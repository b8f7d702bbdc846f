//! `fourstep-candle-peer FOLDER SIZE RUNS`: the SDXL that comes with candle (candle-transformers), f32 on the CPU, one
//! JSON object on standard output.
//!
//! The same stages as `fourstep generate --timings`, with the weights in FOLDER. Its UNet has no place for SDXL's
//! second conditioning, so its pictures are not the model's; what it leaves out is next to no work. Tokens are made up:
//! to encode them takes as long as any others.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::stable_diffusion::{
    StableDiffusionConfig, clip, clip::ClipTextTransformer, unet_2d::UNet2DConditionModel, vae::AutoEncoderKL,
};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

const STEPS: usize = 4;
const DTYPE: DType = DType::F32;
/// Tokens of a prompt: a beginning, some words, and ends.
const TOKENS: usize = 77;

struct Model {
    text_encoders: [ClipTextTransformer; 2],
    unet: UNet2DConditionModel,
    vae: AutoEncoderKL,
    scaling_factor: f64,
}

impl Model {
    fn load(folder: &Path, config: &StableDiffusionConfig) -> Result<Self> {
        let file =
            |name: &str| folder.join(name).into_os_string().into_string().ok().context("a path that is not text");
        let clip2 = config.clip2.as_ref().context("SDXL has two text encoders")?;
        let device = Device::Cpu;
        Ok(Self {
            text_encoders: [
                text_encoder(file("text_encoder/model.safetensors")?, &config.clip)?,
                text_encoder(file("text_encoder_2/model.safetensors")?, clip2)?,
            ],
            unet: config.build_unet(file("unet/diffusion_pytorch_model.safetensors")?, &device, 4, false, DTYPE)?,
            vae: config.build_vae(file("vae/diffusion_pytorch_model.safetensors")?, &device, DTYPE)?,
            scaling_factor: 0.13025,
        })
    }

    /// `(1, 77, 2048)`.
    fn encode(&self) -> Result<Tensor> {
        let token = |place| match place {
            0 => 49406,
            1..=20 => 1000 + place as u32,
            _ => 49407,
        };
        let tokens = Tensor::from_iter((0..TOKENS).map(token), &Device::Cpu)?.unsqueeze(0)?;
        let encode = |encoder: &ClipTextTransformer| encoder.forward_until_encoder_layer(&tokens, usize::MAX, -2);
        let [first, second] = &self.text_encoders;
        Ok(Tensor::cat(&[encode(first)?.1, encode(second)?.1], 2)?)
    }
}

/// An encoder of a file by transformers, which from version 5 on leaves the first part of the names away.
fn text_encoder(file: String, config: &clip::Config) -> Result<ClipTextTransformer> {
    // SAFETY: nobody writes to the file meanwhile.
    #[expect(unsafe_code)]
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[file], DTYPE, &Device::Cpu)? };
    let named = weights.contains_tensor("text_model.final_layer_norm.weight");
    let weights = if named {
        weights
    } else {
        weights.rename_f(|name| name.strip_prefix("text_model.").unwrap_or(name).to_owned())
    };
    Ok(ClipTextTransformer::new(weights, config)?)
}

/// What it gives, and the seconds it took.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let begun = Instant::now();
    let result = work()?;
    Ok((result, begun.elapsed().as_secs_f64()))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, size, runs] = &arguments[..] else { anyhow::bail!("usage: fourstep-candle-peer FOLDER SIZE RUNS") };
    let (size, runs): (usize, usize) = (size.parse()?, runs.parse()?);
    let config = StableDiffusionConfig::sdxl_turbo(None, Some(size), Some(size));
    let (model, load) = timed(|| Model::load(Path::new(folder), &config))?;
    let (mut encodes, mut steps, mut decodes, mut images) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let (context, encode) = timed(|| model.encode())?;
        let mut sample = Tensor::randn(0.0_f32, 1.0, (1, 4, size / 8, size / 8), &Device::Cpu)?;
        let mut image = encode;
        for step in 0..STEPS {
            // The trailing timesteps of a thousand; the scheduler's own arithmetic is nothing beside a call.
            let timestep = (999 - step * 1000 / STEPS) as f64;
            let (noise, call) = timed(|| Ok(model.unet.forward(&sample, timestep, &context)?))?;
            sample = (sample - (noise * 0.25)?)?;
            steps.push(call);
            image += call;
        }
        let (pixels, decode) = timed(|| Ok(model.vae.decode(&(sample / model.scaling_factor)?)?))?;
        drop(pixels);
        encodes.push(encode);
        decodes.push(decode);
        images.push(image + decode);
    }
    let peak_rss = getrusage(UsageWho::RUSAGE_SELF)?.max_rss() as f64 / 1024.0;
    let report = json!({
        "load_s": load, "encode_s": encodes, "steps_s": steps, "decode_s": decodes, "image_s": images,
        "peak_rss_mib": peak_rss,
    });
    std::io::Write::write_all(&mut std::io::stdout(), format!("{report}\n").as_bytes())?;
    Ok(())
}
