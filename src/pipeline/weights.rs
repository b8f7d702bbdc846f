//! A model's files: the diffusers folder layout, safetensors whole or in shards, and tensors converted as they are read.
//!
//! Files are memory-mapped, and a tensor is copied once, straight into the type it is kept in. What a tensor must be called
//! and how it must be shaped is said by the networks, through [`Source`]; a file that disagrees is named with the tensor.

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{self, File},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::Metadata};
use serde::de::DeserializeOwned;

use super::{
    error::{Error, WeightsError},
    lora::{LoraFile, Merged},
    scheduler::SchedulerConfig,
};

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

    /// `scheduler/scheduler_config.json`.
    pub(super) fn scheduler_config(&self) -> Result<SchedulerConfig, Error> {
        read_json(&self.folder("scheduler").join("scheduler_config.json"), "the noise the model was trained with")
    }

    /// A component's tensors.
    pub(super) fn tensors(&self, component: &'static str) -> Result<Box<dyn TensorStore>, Error> {
        let files = match (&self.unet, component) {
            (Some(file), "unet") => SafetensorsFiles::open(vec![file.clone()], file.clone()),
            _ => SafetensorsFiles::in_folder(&self.folder(component), component),
        }?;
        // No LoRA changes a VAE.
        if self.loras.is_empty() || component == "vae" {
            return Ok(Box::new(files));
        }
        Ok(Box::new(Merged::new(files, component, &self.loras)?))
    }
}

/// Reads a JSON file that must be there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, wanted: &'static str) -> Result<T, Error> {
    let text = read_text(path, wanted)?;
    serde_json::from_str(&text)
        .map_err(|error| WeightsError::Unreadable { path: path.into(), reason: error.to_string() }.into())
}

/// Reads a text file that must be there.
pub(super) fn read_text(path: &Path, wanted: &'static str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| file_error(path, wanted, &error).into())
}

fn file_error(path: &Path, wanted: &'static str, error: &std::io::Error) -> WeightsError {
    if error.kind() == std::io::ErrorKind::NotFound {
        WeightsError::MissingFile { path: path.into(), wanted }
    } else {
        WeightsError::Unreadable { path: path.into(), reason: error.to_string() }
    }
}

/// Something tensors can be asked of: files, as they are or with changes merged in.
pub trait TensorStore {
    /// Whether there is a tensor of this name.
    fn contains(&self, name: &str) -> bool;

    /// The tensor on the CPU in this type, if it has this shape.
    fn read(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, Error>;
}

/// The safetensors files of one component.
pub struct SafetensorsFiles {
    files: Vec<MappedFile>,
    /// Tensor to file.
    index: BTreeMap<String, usize>,
    /// What to name when a tensor is nowhere.
    path: PathBuf,
}

struct MappedFile {
    path: PathBuf,
    map: Mmap,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: usize,
}

impl SafetensorsFiles {
    /// Finds a component's files under the names diffusers and transformers give them.
    fn in_folder(folder: &Path, component: &'static str) -> Result<Self, Error> {
        let stem = if component.starts_with("text_encoder") { "model" } else { "diffusion_pytorch_model" };
        for variant in ["", ".fp16"] {
            let single = folder.join(format!("{stem}{variant}.safetensors"));
            if single.is_file() {
                return Self::open(vec![single.clone()], single);
            }
            let index = folder.join(format!("{stem}.safetensors.index{variant}.json"));
            if index.is_file() {
                return Self::open(shards(&index)?, index);
            }
        }
        let path = folder.join(format!("{stem}.safetensors"));
        Err(WeightsError::MissingFile { path, wanted: component }.into())
    }

    /// Opens files as one. `path` is what to name when a tensor is in none of them.
    pub(super) fn open(paths: Vec<PathBuf>, path: PathBuf) -> Result<Self, Error> {
        let files = paths.into_iter().map(MappedFile::open).collect::<Result<Vec<_>, _>>()?;
        let mut index = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            index.extend(file.metadata.offset_keys().into_iter().map(|name| (name, number)));
        }
        Ok(Self { files, index, path })
    }

    /// The names of all tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// A tensor's shape, if there is one of this name.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.files[*self.index.get(name)?].metadata.info(name)?.shape)
    }
}

/// The files a sharded model's index names, each once.
fn shards(index: &Path) -> Result<Vec<PathBuf>, Error> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let mut names: Vec<String> = read_json::<Index>(index, "shard index")?.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| index.with_file_name(name)).collect())
}

impl MappedFile {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let unreadable = |reason: String| WeightsError::Unreadable { path: path.clone(), reason };
        let file = File::open(&path).map_err(|error| file_error(&path, "weights", &error))?;
        #[expect(unsafe_code, reason = "the file is only read; whoever truncates it under a running server kills it")]
        let map = unsafe { Mmap::map(&file) }.map_err(|error| unreadable(error.to_string()))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| unreadable(error.to_string()))?;
        // The header is preceded by its own length in eight bytes.
        let start = header + 8;
        if start + metadata.data_len() > map.len() {
            return Err(unreadable("the file is shorter than its header says".into()).into());
        }
        Ok(Self { path, map, metadata, start })
    }
}

impl TensorStore for SafetensorsFiles {
    fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    fn read(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, Error> {
        let missing = || WeightsError::MissingTensor { tensor: name.into(), path: self.path.clone() };
        let file = &self.files[*self.index.get(name).ok_or_else(missing)?];
        let info = file.metadata.info(name).ok_or_else(missing)?;
        if info.shape != shape {
            return Err(WeightsError::Shape {
                tensor: name.into(),
                path: file.path.clone(),
                expected: shape.to_vec(),
                found: info.shape.clone(),
            }
            .into());
        }
        let bytes = &file.map[file.start + info.data_offsets.0..file.start + info.data_offsets.1];
        let tensor = match info.dtype {
            Dtype::F16 => convert(bytes, shape, dtype, |pair: [u8; 2]| f16::from_le_bytes(pair).to_f32()),
            Dtype::BF16 => convert(bytes, shape, dtype, |pair: [u8; 2]| bf16::from_le_bytes(pair).to_f32()),
            Dtype::F32 => convert(bytes, shape, dtype, f32::from_le_bytes),
            other => {
                let (tensor, path) = (name.into(), file.path.clone());
                return Err(WeightsError::Type { tensor, path, found: format!("{other:?}") }.into());
            }
        };
        Ok(tensor?)
    }
}

/// Little-endian numbers of `N` bytes to a tensor of `dtype`. Every supported type passes through f32 unharmed.
fn convert<const N: usize>(
    bytes: &[u8],
    shape: &[usize],
    dtype: DType,
    number: impl Fn([u8; N]) -> f32 + Sync + Send,
) -> candle_core::Result<Tensor> {
    let (numbers, _) = bytes.as_chunks::<N>();
    let numbers = numbers.par_iter().with_min_len(1 << 16).map(|chunk| number(*chunk));
    match dtype {
        DType::F16 => Tensor::from_vec(numbers.map(f16::from_f32).collect::<Vec<_>>(), shape, &Device::Cpu),
        DType::BF16 => Tensor::from_vec(numbers.map(bf16::from_f32).collect::<Vec<_>>(), shape, &Device::Cpu),
        DType::F32 => Tensor::from_vec(numbers.collect::<Vec<_>>(), shape, &Device::Cpu),
        other => candle_core::bail!("weights are kept in f16, bf16 or f32, not {other:?}"),
    }
}

/// A place in a component's tree of tensors, from which a layer takes its own.
#[derive(Clone)]
pub struct Source<'a> {
    store: &'a dyn TensorStore,
    path: String,
    device: &'a Device,
    dtype: DType,
}

impl<'a> Source<'a> {
    /// The root of a component.
    pub fn new(store: &'a dyn TensorStore, device: &'a Device, dtype: DType) -> Self {
        Self { store, path: String::new(), device, dtype }
    }

    /// The tree below `name`, which may itself contain dots.
    #[must_use]
    pub fn at(&self, name: impl Display) -> Self {
        Self { path: self.full_name(name), ..self.clone() }
    }

    /// The tree below the first of two names that holds a `weight`: some checkpoints use older names.
    #[must_use]
    pub fn at_either(&self, name: &str, older: &str) -> Self {
        let found = self.at(name);
        if found.contains("weight") { found } else { self.at(older) }
    }

    /// Whether a tensor is here.
    pub fn contains(&self, name: &str) -> bool {
        self.store.contains(&self.full_name(name))
    }

    /// A matrix or a kernel, on the CPU, in the type weights are kept in.
    pub fn weight(&self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        self.store.read(&self.full_name(name), shape, self.dtype)
    }

    /// A bias or a norm's parameter, on the device, in the type activations have.
    pub fn vector(&self, name: &str, length: usize) -> Result<Tensor, Error> {
        let tensor = self.store.read(&self.full_name(name), &[length], activation_dtype(self.device, self.dtype))?;
        Ok(tensor.to_device(self.device)?)
    }

    /// Where the tensors shall live.
    pub fn device(&self) -> &Device {
        self.device
    }

    fn full_name(&self, name: impl Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

/// The type activations have when weights are kept in `dtype`: CPUs calculate in f32, whatever the weights.
pub fn activation_dtype(device: &Device, dtype: DType) -> DType {
    if device.is_cpu() { DType::F32 } else { dtype }
}
