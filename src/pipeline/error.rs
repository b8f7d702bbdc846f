//! What can go wrong in the pipeline, split by who can mend it: whoever owns the files, whoever wrote the request, or the
//! device.

use std::path::PathBuf;

/// The pipeline's error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model's files are incomplete or do not fit together.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The request asks for something this model cannot do.
    #[error("{0}")]
    Params(String),
    /// The text could not be tokenized.
    #[error("could not tokenize the prompt: {0}")]
    Prompt(String),
    /// The arithmetic left the range of its numbers; the picture would be black or noise.
    #[error("{stage} produced values that are not finite")]
    NotFinite {
        /// Where, as `the UNet`.
        stage: &'static str,
    },
    /// The tensor library or the device failed. Its text has its causes.
    #[error("the device failed: {0}")]
    Device(candle_core::Error),
    /// A GPU was asked of a program that cannot use any.
    #[error("this build uses no GPU: build it with `--features cuda`")]
    NoGpuSupport,
    /// A GPU was asked for where there is no driver for any.
    #[error("no NVIDIA driver was found (libcuda.so.1): install it, or draw on the CPU with `--device cpu`")]
    NoDriver,
    /// A GPU cannot be opened, although there is a driver.
    #[error("{0}; it needs cuBLAS, cuRAND and cuDNN beside the driver, or draw on the CPU with `--device cpu`")]
    UnusableGpu(candle_core::Error),
    /// Eight-bit integers were asked of a device that has no such instructions, or that is not a CPU.
    #[error("int8 needs an x86-64 CPU with AVX2, and the device `cpu`")]
    NoInt8,
    /// An image could not be encoded.
    #[error("could not encode the image: {0}")]
    Image(String),
    /// Every image was left out by the safety checker.
    #[error("NSFW content detected. Try running it again, or try a different prompt.")]
    Flagged,
    /// The caller's callback asked to stop.
    #[error("canceled")]
    Canceled,
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Device(error)
    }
}

/// What is wrong with a model's files. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file that must be there is not.
    #[error("{} is missing ({wanted})", path.display())]
    MissingFile {
        /// Where it was looked for.
        path: PathBuf,
        /// What it is for.
        wanted: &'static str,
    },
    /// A file is there and cannot be read.
    #[error("could not read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A configuration asks for something the pipeline does not build.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The configuration file.
        path: PathBuf,
        /// The setting and its value.
        what: String,
    },
    /// A tensor is not in the file.
    #[error("tensor {tensor} is missing from {}", path.display())]
    MissingTensor {
        /// Its full name.
        tensor: String,
        /// The file, or the folder of a sharded model.
        path: PathBuf,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("tensor {tensor} in {} has shape {found:?}, but the configuration implies {expected:?}", path.display())]
    Shape {
        /// Its full name.
        tensor: String,
        /// The file it is in.
        path: PathBuf,
        /// The shape the model needs.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// A tensor's numbers are of a type the pipeline does not convert.
    #[error("tensor {tensor} in {} has type {found}; F16, BF16 and F32 are read", path.display())]
    Type {
        /// Its full name.
        tensor: String,
        /// The file it is in.
        path: PathBuf,
        /// Its type, in the file's words.
        found: String,
    },
}
