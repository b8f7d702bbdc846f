//! How a network asks for its tensors: by the checkpoint's names, with the shapes its configuration implies.

use std::fmt::Display;

use candle_core::{DType, Device, Tensor};

use super::{super::error::Error, TensorStore, WeightMatrix, activation_dtype};

/// A place in a component's tree of tensors, from which a layer takes its own.
#[derive(Clone)]
pub struct Source<'a> {
    store: &'a dyn TensorStore,
    path: String,
    device: &'a Device,
    dtype: DType,
    precision: DType,
    in_int8: bool,
}

impl<'a> Source<'a> {
    /// The root of a component.
    pub fn new(store: &'a dyn TensorStore, device: &'a Device, dtype: DType) -> Self {
        Self { store, path: String::new(), device, dtype, precision: dtype, in_int8: false }
    }

    /// The same source, multiplied with only as many bits as `precision` has, although its weights are kept in a wider
    /// type.
    #[must_use]
    pub fn as_exact_as(self, precision: DType) -> Self {
        Self { precision, ..self }
    }

    /// The same, whose [projections](super::super::ops::Projection) are held in eight-bit integers.
    #[must_use]
    pub fn quantized(self) -> Self {
        Self { in_int8: true, ..self }
    }

    /// The same, whose projections are held in the type weights are kept in.
    #[must_use]
    pub fn as_kept(self) -> Self {
        Self { in_int8: false, ..self }
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
        self.store.read(&self.full_name(name), shape, self.kept_in(name))
    }

    /// The matrix of a linear layer, a row for each of the tensor's first dimension, on the device. On the CPU it may
    /// stay in its file; but not if something else is made of it at once.
    pub fn matrix(&self, name: &str, shape: &[usize]) -> Result<WeightMatrix, Error> {
        if self.device.is_cpu()
            && !self.in_int8
            && let Some(mapped) = self.store.map(&self.full_name(name), shape, self.kept_in(name))?
        {
            return Ok(mapped.into());
        }
        let columns: usize = shape[1..].iter().product();
        Ok(self.weight(name, shape)?.reshape((shape[0], columns))?.to_device(self.device)?.into())
    }

    /// A bias or a norm's parameter, on the device, in the type activations have.
    pub fn vector(&self, name: &str, length: usize) -> Result<Tensor, Error> {
        let tensor = self.store.read(&self.full_name(name), &[length], activation_dtype(self.device, self.dtype))?;
        Ok(tensor.to_device(self.device)?)
    }

    /// Numbers to calculate with on the host.
    pub(in super::super) fn numbers(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        Ok(self.store.read(&self.full_name(name), shape, DType::F32)?.flatten_all()?.to_vec1()?)
    }

    /// Whether projections are held in eight-bit integers.
    pub fn in_int8(&self) -> bool {
        self.in_int8
    }

    /// The type weights were asked for in: how exactly they are to multiply.
    pub fn precision(&self) -> DType {
        self.precision
    }

    /// The type a weight is kept in. Where f32 is asked for on the CPU, which widens numbers as it multiplies with
    /// them, it is the file's: a narrower type holds the same numbers in half the memory.
    fn kept_in(&self, name: &str) -> DType {
        let stored = if self.device.is_cpu() && self.dtype == DType::F32 {
            self.store.dtype(&self.full_name(name))
        } else {
            None
        };
        stored.unwrap_or(self.dtype)
    }

    /// The type activations have.
    pub(in super::super) fn activation_dtype(&self) -> DType {
        activation_dtype(self.device, self.dtype)
    }

    /// Where the tensors shall live.
    pub fn device(&self) -> &Device {
        self.device
    }

    fn full_name(&self, name: impl Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}
