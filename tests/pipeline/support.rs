//! The fixtures, and how far two tensors are apart.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use candle_core::{DType, Device, Tensor};
use fourstep::pipeline::{Pipeline, Weights};
use image::RgbImage;

/// What every stage is held to, in f32.
pub(crate) const TOLERANCE: f32 = 1e-4;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pipeline")
}

pub(crate) fn tiny() -> Weights {
    Weights::new(fixtures().join("tiny"))
}

pub(crate) fn tiny_pipeline() -> Pipeline {
    Pipeline::load(&tiny(), &Device::Cpu, DType::F32).unwrap()
}

/// A picture that diffusers drew or Pillow prepared.
pub(crate) fn image_fixture(name: &str) -> RgbImage {
    let bytes = fs::read(fixtures().join(format!("images/{name}.png"))).unwrap();
    image::load_from_memory(&bytes).unwrap().into_rgb8()
}

/// Numbers diffusers computed.
pub(crate) struct Golden(HashMap<String, Tensor>);

impl Golden {
    pub(crate) fn load() -> Self {
        Self(candle_core::safetensors::load(fixtures().join("golden.safetensors"), &Device::Cpu).unwrap())
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    /// A picture or latents, channels last.
    pub(crate) fn channels_last(&self, name: &str) -> Tensor {
        self.get(name).permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
    }
}

/// The largest difference, as a share of the largest number expected.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len(), "another number of values than expected");
    assert!(found.iter().all(|x| x.is_finite()), "values that are not finite");
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let difference = largest(&mut found.iter().zip(expected).map(|(a, b)| (a - b).abs()));
    difference / largest(&mut expected.iter().map(|x| x.abs()))
}

/// Fails with the error reached when it is too large, and prints it otherwise (`--nocapture` shows it).
pub(crate) fn assert_close(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{name} has another shape than diffusers'");
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_error(name, relative_error(&values(found), &values(expected)));
}

pub(crate) fn assert_error(name: &str, error: f32) {
    assert!(error <= TOLERANCE, "{name}: relative error {error:e} is above {TOLERANCE:e}");
    eprintln!("{name}: relative error {error:.1e}");
}

/// How far two pictures are apart where they are furthest, in levels of 255.
pub(crate) fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter().zip(b.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// A folder that goes when the test does.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fourstep-pipeline-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A copy of the tiny model, to be broken.
    pub(crate) fn with_tiny() -> Self {
        let folder = Self::new();
        copy(&fixtures().join("tiny"), &folder.0);
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder left behind is a nuisance, not a failure.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
