//! A model's files: the diffusers folder layout, safetensors whole or in shards, and tensors converted as they are
//! read.
//!
//! Files are memory-mapped. On the CPU a linear layer's matrix, which is most of a model, is used where it is if it is
//! of the type it shall be kept in; any other tensor is copied once, straight into that type and to its device. It is
//! the type asked for, but weights for f32's arithmetic on the CPU stay as their file has them. What a tensor must be
//! called and how it must be shaped is said by the networks, through [`Source`]; a file that disagrees is named with
//! the tensor.

mod files;
mod matrix;
mod numbers;
mod source;

use std::{
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use serde::de::DeserializeOwned;

use super::{
    error::{Error, WeightsError},
    lora::{LoraFile, Merged},
    scheduler::{PredictionType, SchedulerConfig},
};
pub use files::SafetensorsFiles;
pub use matrix::{MappedMatrix, Numbers, WeightMatrix};
pub use source::Source;

/// Channels, layers and the like that a configuration may ask for: sums and products of a few of them cannot overflow.
pub(super) const SIZES: RangeInclusive<usize> = 1..=1 << 20;

/// Where a model's files are.
#[derive(Clone, Debug)]
pub struct Weights {
    directory: PathBuf,
    unet: Option<PathBuf>,
    loras: Vec<LoraFile>,
}

impl Weights {
    /// A model in the diffusers folder layout.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), unet: None, loras: Vec::new() }
    }

    /// Takes the UNet's tensors from this file instead; its configuration stays the folder's.
    #[must_use]
    pub fn with_unet(mut self, file: impl Into<PathBuf>) -> Self {
        self.unet = Some(file.into());
        self
    }

    /// Merges these changes into the weights, in this order.
    #[must_use]
    pub fn with_loras(mut self, loras: Vec<LoraFile>) -> Self {
        self.loras = loras;
        self
    }

    /// A component's folder.
    pub(super) fn folder(&self, component: &str) -> PathBuf {
        self.directory.join(component)
    }

    /// A component's `config.json`, with its path for error messages.
    pub(super) fn config<C: DeserializeOwned>(&self, component: &'static str) -> Result<(C, PathBuf), Error> {
        let path = self.folder(component).join("config.json");
        Ok((read_json(&path, component)?, path))
    }

    /// Whether there are tensors of a component that not every model has.
    pub(super) fn has(&self, component: &'static str) -> bool {
        SafetensorsFiles::find(&self.folder(component), component).is_some()
    }

    /// `scheduler/scheduler_config.json`. A UNet in a file of its own may predict something else than the folder's: the
    /// one-step checkpoint of SDXL-Lightning does, and its name says so.
    pub(super) fn scheduler_config(&self) -> Result<SchedulerConfig, Error> {
        let path = self.folder("scheduler").join("scheduler_config.json");
        let mut config: SchedulerConfig = read_json(&path, "the noise the model was trained with")?;
        if !SIZES.contains(&config.num_train_timesteps) {
            let what = format!("num_train_timesteps is {}", config.num_train_timesteps);
            return Err(WeightsError::Unsupported { path, what }.into());
        }
        let name = self.unet.as_ref().and_then(|file| file.file_stem()).map(|stem| stem.to_string_lossy());
        if name.is_some_and(|name| name.ends_with("_x0")) {
            config.prediction_type = PredictionType::Sample;
        }
        Ok(config)
    }

    /// A component's tensors.
    pub(super) fn tensors(&self, component: &'static str) -> Result<Box<dyn TensorStore>, Error> {
        let files = match (&self.unet, component) {
            (Some(file), "unet") => SafetensorsFiles::open(vec![file.clone()], file.clone()),
            _ => SafetensorsFiles::in_folder(&self.folder(component), component),
        }?;
        // No LoRA changes these.
        if self.loras.is_empty() || ["vae", "safety_checker"].contains(&component) {
            return Ok(Box::new(files));
        }
        Ok(Box::new(Merged::new(files, component, &self.loras)?))
    }
}

/// Reads a JSON file that must be there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, wanted: &'static str) -> Result<T, Error> {
    let text = read_text(path, wanted)?;
    serde_json::from_str(&text)
        .map_err(|error| WeightsError::Unreadable { path: path.into(), reason: error.into() }.into())
}

/// Reads a text file that must be there.
pub(super) fn read_text(path: &Path, wanted: &'static str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| file_error(path, wanted, error).into())
}

fn file_error(path: &Path, wanted: &'static str, error: std::io::Error) -> WeightsError {
    if error.kind() == std::io::ErrorKind::NotFound {
        WeightsError::MissingFile { path: path.into(), wanted }
    } else {
        WeightsError::Unreadable { path: path.into(), reason: error.into() }
    }
}

/// Something tensors can be asked of: files, as they are or with changes merged in.
pub trait TensorStore {
    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// The type of a tensor's numbers, if there is one of this name and of a type that weights may have.
    fn dtype(&self, name: &str) -> Option<DType>;

    /// The tensor on the CPU in this type, if it has this shape.
    fn read(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, Error>;

    /// The tensor where it is, as a matrix with a row for each of its first dimension, if it has this shape. `None` if
    /// it is not of this type there, or cannot be used from there: then it is to be read.
    fn map(&self, _name: &str, _shape: &[usize], _dtype: DType) -> Result<Option<MappedMatrix>, Error> {
        Ok(None)
    }
}

/// The type activations have when weights are kept in `dtype`: CPUs calculate in f32, whatever the weights.
pub fn activation_dtype(device: &Device, dtype: DType) -> DType {
    if device.is_cpu() { DType::F32 } else { dtype }
}
