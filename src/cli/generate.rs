//! `fourstep generate`: one prompt to picture files, without server and database.
//!
//! The command line is the one checks and benchmarks are written against, and proof that the pipeline is a library.

use std::{
    fs,
    io::{self, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, DeviceLocation};
use clap::{Args, ValueEnum};
use fourstep::{
    app,
    config::DeviceChoice,
    domain,
    picture::{self, Format, Made, Provenance},
    pipeline::{Generation, LoraFile, Options, Params, Pipeline, Progress, Safety, SchedulerName, Weights},
};
use image::RgbImage;
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::allocator::keep_for_the_next_picture;

/// What to draw, with which weights, and where to.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The model's folder, in the diffusers layout
    #[arg(long, value_name = "DIR")]
    weights: PathBuf,
    /// Take the UNet from this safetensors file instead
    #[arg(long, value_name = "FILE")]
    unet: Option<PathBuf>,
    /// Merge the LoRA of this safetensors file, so much of it (1 if not said); may be repeated
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<LoraFile>,
    /// What to draw
    #[arg(long)]
    prompt: String,
    /// What to stay away from; needs a guidance scale above 1
    #[arg(long)]
    negative_prompt: Option<String>,
    /// Pixels, a multiple of 8 [default: the image's, or else the model's own]
    #[arg(long)]
    width: Option<u32>,
    /// Pixels, a multiple of 8 [default: the image's, or else the model's own]
    #[arg(long)]
    height: Option<u32>,
    /// Denoising steps
    #[arg(long, default_value_t = 4)]
    num_inference_steps: usize,
    /// Classifier-free guidance; 1 and below switch it off
    #[arg(long, default_value_t = 0.0)]
    guidance_scale: f64,
    /// The sampling algorithm, by the hosted model's name
    #[arg(long, value_name = "NAME", default_value_t)]
    scheduler: SchedulerName,
    /// The first picture's seed; each following picture's is one higher [default: a random one]
    #[arg(long)]
    seed: Option<u64>,
    /// Start from this PNG, JPEG or WebP file instead of pure noise
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// How much of the image is given up to noise, 0 to 1: so much of the steps is taken
    #[arg(long, default_value_t = 0.8)]
    prompt_strength: f64,
    /// Pictures; the second of cat.png goes to cat-2.png, and so on
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    num_outputs: usize,
    /// What the weights are kept in, and with how many bits they are multiplied where that is faster; sums are f32. On
    /// a CPU weights that the files have in half precision stay so for f32, too: no bit is lost
    #[arg(long, default_value = "f32")]
    dtype: Precision,
    /// `cpu`, `cuda:0` for the first GPU, or `auto` for that where it can be used
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object with the time of each stage
    #[arg(long)]
    timings: bool,
    /// Read the text encoders anew for every prompt instead of keeping them in memory
    #[arg(long)]
    low_memory: bool,
    /// Have a GPU do the UNet's operations one by one, and not as a recording of them
    #[arg(long)]
    no_cuda_graphs: bool,
    /// Decode pictures larger than so many pixels in tiles of that size, as 512
    #[arg(long, value_name = "PIXELS")]
    vae_tile: Option<usize>,
    /// Hold the UNet's linear layers in eight-bit integers: smaller and faster, on an x86-64 CPU with AVX2; pictures
    /// change
    #[arg(long, value_name = "KIND")]
    quantize: Option<Quantization>,
    /// Write pictures without looking at them, where the model has a safety checker
    #[arg(long)]
    disable_safety_checker: bool,
    /// How close to what was drawn a JPEG stays, 1 to 100
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    output_quality: u8,
    /// Leave out of the file how it was made
    #[arg(long)]
    no_metadata: bool,
    /// The picture to write: a PNG, JPEG or lossless WebP by its ending
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// The number formats weights can be kept in.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Precision {
    F32,
    Bf16,
    F16,
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
            Precision::F16 => Self::F16,
        }
    }
}

/// What weights can be quantized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Quantization {
    Int8,
}

/// As torch names it.
fn name_of(device: &Device) -> String {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        _ => "cpu".to_owned(),
    }
}

/// What `--timings` prints. Names and units are part of the command line.
#[derive(Serialize)]
struct Report {
    load_s: f64,
    encode_s: f64,
    steps_s: Vec<f64>,
    decode_s: f64,
    png_s: f64,
    total_s: f64,
    peak_rss_mib: f64,
    device: String,
    dtype: &'static str,
}

/// Greatest width and height that an image decides on; larger ones are for whoever asks for them.
const MAX_SIZE_FROM_IMAGE: u32 = 1280;

/// Draws.
pub(crate) fn run(args: GenerateArgs) -> Result<()> {
    let started = Instant::now();
    if !args.low_memory {
        keep_for_the_next_picture();
    }
    // A misspelled path is found before the model is loaded, not after it has drawn.
    let format = output_format(&args)?;
    let start = args.image.as_deref().map(read_image).transpose()?;
    let device = app::open_device(args.device)?;
    let pipeline = load(&args, &device)?;
    let load = started.elapsed();

    let params = params(&args, start, pipeline.native_size())?;
    let generation = pipeline.generate(&params, &mut tell_progress)?;
    for note in &generation.notes {
        writeln!(io::stderr(), "note: {note}")?;
    }
    if generation.safety == Safety::Unavailable {
        writeln!(io::stderr(), "note: the model has no safety checker: the pictures were not checked")?;
    }
    let encoding = Instant::now();
    write_images(&args, format, &params, &generation)?;
    let png = encoding.elapsed();
    if args.timings {
        let report = report(&args, &generation, name_of(&device), (load, png, started.elapsed()))?;
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(())
}

fn load(args: &GenerateArgs, device: &Device) -> Result<Pipeline> {
    let mut weights = Weights::new(&args.weights).with_loras(args.lora.clone());
    if let Some(unet) = &args.unet {
        weights = weights.with_unet(unet);
    }
    let options = Options {
        low_memory: args.low_memory,
        vae_tile: args.vae_tile,
        int8: args.quantize == Some(Quantization::Int8),
        eager: args.no_cuda_graphs,
    };
    Pipeline::load_with(&weights, device, args.dtype.into(), options)
        .with_context(|| format!("could not load the model in {}", args.weights.display()))
}

fn read_image(path: &Path) -> Result<RgbImage> {
    let bytes = fs::read(path).with_context(|| format!("could not read {}", path.display()))?;
    picture::read(&bytes).map_err(|reason| anyhow!("{} {reason}", path.display()))
}

fn params(args: &GenerateArgs, start: Option<RgbImage>, native_size: usize) -> Result<Params> {
    let native = native_size as u32;
    let (width, height) = match &start {
        Some(image) => domain::size_from_image(image.dimensions(), (args.width, args.height), (8, MAX_SIZE_FROM_IMAGE)),
        None => (args.width.unwrap_or(native), args.height.unwrap_or(native)),
    };
    Ok(Params {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        width: width as usize,
        height: height as usize,
        num_inference_steps: args.num_inference_steps,
        guidance_scale: args.guidance_scale,
        num_images_per_prompt: args.num_outputs,
        seed: match args.seed {
            Some(seed) => seed,
            None => u64::from(getrandom::u32().context("could not draw a seed")?),
        },
        scheduler: args.scheduler,
        image: start,
        strength: args.prompt_strength,
        disable_safety_checker: args.disable_safety_checker,
    })
}

fn output_format(args: &GenerateArgs) -> Result<Format> {
    let out = &args.out;
    let ending = out.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let format = match &*ending {
        "png" => Format::Png,
        "jpg" | "jpeg" => Format::Jpeg(args.output_quality),
        "webp" => Format::WebP,
        _ => bail!("--out must end in .png, .jpg or .webp, not {}", out.display()),
    };
    match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            bail!("the folder {} of --out is not there", folder.display())
        }
        _ => Ok(format),
    }
}

fn tell_progress(progress: Progress<'_>) -> ControlFlow<()> {
    let Progress::Step(step) = progress else { return ControlFlow::Continue(()) };
    // Progress that nobody can see is no reason to stop drawing.
    let _ = writeln!(io::stderr(), "step {} of {}", step.index + 1, step.total);
    ControlFlow::Continue(())
}

fn write_images(args: &GenerateArgs, format: Format, params: &Params, generation: &Generation) -> Result<()> {
    for (image, seed) in generation.images.iter().zip(&generation.seeds) {
        // A picture that was left out leaves a gap in the numbering.
        let path = numbered(&args.out, seed.wrapping_sub(params.seed) as usize);
        let provenance = (!args.no_metadata).then(|| provenance(args, params, *seed));
        let bytes = picture::write(image, format, provenance.as_ref())?;
        fs::write(&path, bytes).with_context(|| format!("could not write {}", path.display()))?;
        let (width, height) = image.dimensions();
        writeln!(io::stderr(), "{} ({width}x{height}, seed {seed})", path.display())?;
    }
    Ok(())
}

/// How a picture was made, as the server's files say it.
fn provenance(args: &GenerateArgs, params: &Params, seed: u64) -> Provenance {
    let folder = args.weights.file_name().unwrap_or_default().to_string_lossy();
    let made = Made {
        model: &folder,
        prompt: &params.prompt,
        negative_prompt: params.negative_prompt.as_deref(),
        width: params.width as u32,
        height: params.height as u32,
        scheduler: params.scheduler.as_str(),
        num_inference_steps: params.num_inference_steps as u32,
        guidance_scale: params.guidance_scale,
        seed,
        prompt_strength: params.image.as_ref().map(|_| params.strength),
    };
    made.provenance()
}

/// The file of picture `number`, counted from 0: the first has the name that was asked for.
fn numbered(out: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return out.into();
    }
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    let extension = out.extension().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!("{stem}-{}.{extension}", number + 1))
}

fn report(
    args: &GenerateArgs,
    generation: &Generation,
    device_name: String,
    (load, png, total): (Duration, Duration, Duration),
) -> Result<Report> {
    let timings = &generation.timings;
    Ok(Report {
        load_s: load.as_secs_f64(),
        encode_s: timings.encode.as_secs_f64(),
        steps_s: timings.steps.iter().map(Duration::as_secs_f64).collect(),
        decode_s: timings.decode.as_secs_f64(),
        png_s: png.as_secs_f64(),
        total_s: total.as_secs_f64(),
        // Linux counts in KiB.
        peak_rss_mib: getrusage(UsageWho::RUSAGE_SELF)?.max_rss() as f64 / 1024.0,
        device: device_name,
        dtype: match args.dtype {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_picture_has_the_name_that_was_asked_for() {
        let out = Path::new("folder/cat.v1.png");
        assert_eq!(numbered(out, 0), out);
        assert_eq!(numbered(out, 1), Path::new("folder/cat.v1-2.png"));
    }
}
