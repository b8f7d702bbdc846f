//! Flags that several commands share, and how flags become the top layer of the configuration.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use fourstep::{
    config::{Config, Layers, Override},
    hub,
};

/// Where the configuration and the data are.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Place {
    /// Configuration file with what differs from the defaults
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder of the database, the key and the outputs [default: ~/.local/share/fourstep]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
}

/// Where a program that runs for long tells what it does.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LogFlags {
    /// Append the log to this file instead of standard error; opened anew at SIGHUP
    #[arg(long, value_name = "FILE")]
    log_file: Option<String>,
}

impl LogFlags {
    /// These flags as settings.
    pub(crate) fn overrides(&self) -> Option<Override> {
        flag("log.file", "--log-file", &self.log_file)
    }
}

/// How predictions are run.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Device {
    /// Folder of the model's weights, in the diffusers layout [default: what was pulled, else a model that stands in]
    #[arg(long, value_name = "DIR")]
    weights: Option<String>,
    /// Never let another model stand in for one whose weights are absent
    #[arg(long)]
    require_weights: bool,
    /// A safetensors file that replaces the UNet of the weights
    #[arg(long, value_name = "FILE")]
    unet: Option<String>,
    /// Merge the LoRA of this file into the weights, so much of it (1 if not said); may be repeated
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<String>,
    /// Number of workers, all on the same device; auto is one [default: auto]
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// What runs predictions: sdxl, or mock for tests without a model [default: sdxl]
    #[arg(long, value_name = "NAME")]
    predictor: Option<String>,
    /// auto, cpu or cuda:0 [default: auto]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Number format of the weights: auto, f32, f16 or bf16 [default: auto]
    #[arg(long, value_name = "NAME")]
    dtype: Option<String>,
    /// Hold the UNet's linear layers in eight-bit integers, on an x86-64 CPU with AVX2: int8 [default: none]
    #[arg(long, value_name = "KIND")]
    quantize: Option<String>,
    /// Read the text encoders anew for every prompt instead of keeping them in memory
    #[arg(long)]
    low_memory: bool,
    /// Have a GPU do the UNet's operations one by one, and not as a recording of them
    #[arg(long)]
    no_cuda_graphs: bool,
    /// Decode pictures larger than so many pixels in tiles of that size, as 512
    #[arg(long, value_name = "PIXELS")]
    vae_tile: Option<String>,
}

impl Place {
    /// The configuration with these flags and `more` on top.
    pub(crate) fn load(&self, more: Vec<Override>) -> Result<Config> {
        Ok(self.layers(more)?.resolve()?)
    }

    /// The settings with their origins.
    pub(crate) fn layers(&self, mut more: Vec<Override>) -> Result<Layers> {
        more.extend(flag("data.dir", "--data-dir", &self.data_dir));
        Ok(Layers::read(self.config.as_deref(), environment(), more)?)
    }
}

/// Where weights are fetched from and kept, as `HF_HOME` and its kin say.
pub(crate) fn hub() -> Result<hub::Environment> {
    Ok(hub::Environment::from_variables(environment())?)
}

/// The environment. A variable that is not text is none of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

impl Device {
    /// These flags as settings.
    pub(crate) fn overrides(&self) -> Vec<Override> {
        [
            flag("worker.weights", "--weights", &self.weights),
            flag("worker.require_weights", "--require-weights", &self.require_weights.then(|| "true".to_owned())),
            flag("worker.unet", "--unet", &self.unet),
            flag("worker.loras", "--lora", &(!self.lora.is_empty()).then(|| self.lora.join(","))),
            flag("worker.count", "--workers", &self.workers),
            flag("worker.predictor", "--predictor", &self.predictor),
            flag("worker.device", "--device", &self.device),
            flag("worker.dtype", "--dtype", &self.dtype),
            flag("worker.quantize", "--quantize", &self.quantize),
            flag("worker.low_memory", "--low-memory", &self.low_memory.then(|| "true".to_owned())),
            flag("worker.cuda_graphs", "--no-cuda-graphs", &self.no_cuda_graphs.then(|| "false".to_owned())),
            flag("worker.vae_tile", "--vae-tile", &self.vae_tile),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A flag as a setting, if it was given.
pub(crate) fn flag(key: &'static str, flag: &'static str, value: &Option<String>) -> Option<Override> {
    value.clone().map(|value| Override { key, flag, value })
}
