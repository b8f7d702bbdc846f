//! Safetensors files: mapped into memory, and each tensor used where it is or copied once.
//!
//! A file's pages count as this process's memory while they are looked at, so they are given back as soon as a tensor
//! has been copied: loading needs hardly more than what it leaves.

use std::{
    collections::BTreeMap,
    fs::File,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use candle_core::{DType, Tensor};
use memmap2::{Advice, Mmap, UncheckedAdvice};
use rayon::prelude::*;
use safetensors::{SafeTensors, tensor::Metadata};

use super::{
    super::error::{Error, WeightsError},
    MappedMatrix, TensorStore, file_error,
    numbers::{self, Stored},
    read_json,
};

/// How much of a file is fetched at a time.
const FETCH: usize = 32 << 20;
/// How much of it a core maps at a time.
#[cfg(target_os = "linux")]
const POPULATE: usize = 4 << 20;
/// Where pages are larger, a few of a neighbor's go as well and come back from the file when it is read.
const PAGE: usize = 4096;

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
    map: Arc<Mmap>,
    metadata: Metadata,
    /// Where the tensors' bytes begin.
    start: usize,
    /// Which parts the kernel has been asked to fetch.
    fetched: Vec<AtomicBool>,
}

impl SafetensorsFiles {
    /// Finds a component's files under the names diffusers and transformers give them.
    pub(super) fn in_folder(folder: &Path, component: &'static str) -> Result<Self, Error> {
        match Self::find(folder, component) {
            Some(index) if index.extension().is_some_and(|ending| ending == "json") => {
                Self::open(shards(&index)?, index)
            }
            Some(single) => Self::open(vec![single.clone()], single),
            None => {
                let path = folder.join(format!("{}.safetensors", stem(component)));
                Err(WeightsError::MissingFile { path, wanted: component }.into())
            }
        }
    }

    /// A component's file, or the index of its shards.
    pub(super) fn find(folder: &Path, component: &str) -> Option<PathBuf> {
        let stem = stem(component);
        let names = ["", ".fp16"].into_iter().flat_map(|variant| {
            [format!("{stem}{variant}.safetensors"), format!("{stem}.safetensors.index{variant}.json")]
        });
        names.map(|name| folder.join(name)).find(|path| path.is_file())
    }

    /// Opens files as one. `path` is what to name when a tensor is in none of them.
    pub(in super::super) fn open(paths: Vec<PathBuf>, path: PathBuf) -> Result<Self, Error> {
        let files = paths.into_iter().map(MappedFile::open).collect::<Result<Vec<_>, _>>()?;
        let mut index = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            index.extend(file.metadata.offset_keys().into_iter().map(|name| (name, number)));
        }
        Ok(Self { files, index, path })
    }

    /// The names of all tensors, in order.
    pub(in super::super) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// Where a tensor of this shape is: its file, its numbers' type, and its bytes in the file.
    fn find_tensor(&self, name: &str, shape: &[usize]) -> Result<(&MappedFile, Stored, Range<usize>), Error> {
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
        let stored = Stored::of(info.dtype).ok_or_else(|| {
            let (tensor, path) = (name.into(), file.path.clone());
            WeightsError::Type { tensor, path, found: format!("{:?}", info.dtype) }
        })?;
        Ok((file, stored, file.start + info.data_offsets.0..file.start + info.data_offsets.1))
    }

    /// A tensor's shape, if there is one of this name.
    pub(in super::super) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.files[*self.index.get(name)?].metadata.info(name)?.shape)
    }
}

/// What transformers and diffusers call their files.
fn stem(component: &str) -> &'static str {
    let by_transformers = component.starts_with("text_encoder") || component == "safety_checker";
    if by_transformers { "model" } else { "diffusion_pytorch_model" }
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
        let unreadable = |reason| WeightsError::Unreadable { path: path.clone(), reason };
        let file = File::open(&path).map_err(|error| file_error(&path, "weights", error))?;
        // SAFETY: as long as nobody writes to the file: the hub's cache and this program replace files of weights and
        // never change one in place. Whoever truncates one under a running server kills the server.
        #[expect(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|error| unreadable(error.into()))?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| unreadable(error.into()))?;
        // The header is preceded by its own length in eight bytes.
        let start = header + 8;
        if start + metadata.data_len() > map.len() {
            return Err(unreadable("the file is shorter than its header says".into()).into());
        }
        let fetched = (0..map.len().div_ceil(FETCH)).map(|_| AtomicBool::new(false)).collect();
        Ok(Self { path, map: Arc::new(map), metadata, start, fetched })
    }

    /// Has the kernel fetch a range in large pieces and the next piece ahead: page by page a disk is several times
    /// slower.
    fn fetch(&self, range: &Range<usize>) {
        for part in range.start / FETCH..=range.end / FETCH + 1 {
            if self.fetched.get(part).is_some_and(|fetched| !fetched.swap(true, Relaxed)) {
                let start = part * FETCH;
                // Advice that is not taken costs time and nothing else, here and below.
                let _ = self.map.advise_range(Advice::WillNeed, start, FETCH.min(self.map.len() - start));
            }
        }
        // By every core.
        #[cfg(target_os = "linux")]
        (range.start..range.end).into_par_iter().step_by(POPULATE).for_each(|start| {
            let _ = self.map.advise_range(Advice::PopulateRead, start, POPULATE.min(range.end - start));
        });
    }

    /// Gives back the memory of a range that has been copied; the file's other pages stay.
    fn release(&self, range: &Range<usize>) {
        let (first, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if first < end {
            // SAFETY: the map is of a file and only read, so pages that are dropped come back from the file with the
            // same bytes, for other readers of the map as well.
            #[expect(unsafe_code)]
            let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, first, end - first) };
        }
    }
}

impl TensorStore for SafetensorsFiles {
    fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        let info = self.files[*self.index.get(name)?].metadata.info(name)?;
        Stored::of(info.dtype).map(Stored::dtype)
    }

    fn read(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Tensor, Error> {
        let (file, stored, range) = self.find_tensor(name, shape)?;
        file.fetch(&range);
        let tensor = numbers::tensor(&file.map[range.clone()], stored, shape, dtype);
        file.release(&range);
        Ok(tensor?)
    }

    fn map(&self, name: &str, shape: &[usize], dtype: DType) -> Result<Option<MappedMatrix>, Error> {
        let (file, stored, range) = self.find_tensor(name, shape)?;
        let dims = (shape[0], shape[1..].iter().product());
        let mapped = MappedMatrix::new(&file.map, range.clone(), stored, dims).filter(|mapped| mapped.dtype() == dtype);
        if mapped.is_some() {
            file.fetch(&range);
        }
        Ok(mapped)
    }
}
