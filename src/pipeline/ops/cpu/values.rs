//! Tensors as slices.

use std::{borrow::Cow, ops::Deref};

use candle_core::{CpuStorage, DType, Result, Storage, StorageRef, Tensor};
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::tiles::Precision;
use super::{super::attention::row_stride, lanes::Rows};
use crate::pipeline::weights::{Numbers, WeightMatrix};

/// The numbers of a contiguous f32 tensor, readable as a slice.
pub(super) struct Values<'a> {
    storage: StorageRef<'a>,
    start: usize,
    end: usize,
}

impl<'a> Values<'a> {
    pub(super) fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("the operation needs a contiguous tensor, not {layout:?}");
        };
        match &*storage {
            Storage::Cpu(CpuStorage::F32(_)) => Ok(Self { storage, start, end }),
            _ => candle_core::bail!("the operation needs f32 on the CPU"),
        }
    }
}

/// The rows of an f32 tensor, which may be further apart than they are long.
pub(super) struct RowsOf<'a> {
    values: Values<'a>,
    stride: usize,
}

impl<'a> RowsOf<'a> {
    /// Of a tensor `(b, rows, columns)`, the rows of all of which are equally far apart.
    pub(super) fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let (batch, rows, columns) = layout.shape().dims3()?;
        let Some(stride) = row_stride(layout) else {
            candle_core::bail!("the operation needs rows that are equally far apart, not {layout:?}");
        };
        let start = layout.start_offset();
        let end = start + (batch * rows).saturating_sub(1) * stride + columns;
        match &*storage {
            Storage::Cpu(CpuStorage::F32(_)) => Ok(Self { values: Values { storage, start, end }, stride }),
            _ => candle_core::bail!("the operation needs f32 on the CPU"),
        }
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        Rows { values: &self.values, stride: self.stride }
    }
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.start..self.end],
            _ => unreachable!("checked when it was made"),
        }
    }
}

/// The numbers of a weight, in whichever type it is kept.
pub(super) struct Weight<'a> {
    place: Place<'a>,
    /// The type it was asked for in.
    precision: DType,
}

enum Place<'a> {
    /// In a tensor.
    Held { storage: StorageRef<'a>, start: usize, end: usize },
    /// In their file.
    Mapped(Numbers<'a>),
}

impl<'a> Weight<'a> {
    pub(super) fn of(tensor: &'a Tensor, precision: DType) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("the operation needs a contiguous weight, not {layout:?}");
        };
        match &*storage {
            Storage::Cpu(CpuStorage::F32(_) | CpuStorage::F16(_) | CpuStorage::BF16(_)) => {
                Ok(Self { place: Place::Held { storage, start, end }, precision })
            }
            _ => candle_core::bail!("the operation needs a weight of f32, f16 or bf16 on the CPU"),
        }
    }

    pub(super) fn of_linear(weight: &'a WeightMatrix, precision: DType) -> Result<Self> {
        match weight {
            WeightMatrix::Held(tensor) => Self::of(tensor, precision),
            WeightMatrix::Mapped(matrix) => Ok(Self { place: Place::Mapped(matrix.numbers()), precision }),
        }
    }

    pub(super) fn numbers(&self) -> Numbers<'_> {
        match &self.place {
            Place::Mapped(numbers) => *numbers,
            Place::Held { storage, start, end } => match &**storage {
                Storage::Cpu(CpuStorage::F32(values)) => Numbers::F32(&values[*start..*end]),
                Storage::Cpu(CpuStorage::F16(values)) => Numbers::F16(&values[*start..*end]),
                Storage::Cpu(CpuStorage::BF16(values)) => Numbers::BF16(&values[*start..*end]),
                _ => unreachable!("checked when it was made"),
            },
        }
    }

    /// Whether it is to be multiplied as exactly as f32 has it.
    pub(super) fn is_exact(&self) -> bool {
        !matches!(self.precision, DType::F16 | DType::BF16)
    }

    /// How exactly it is to be multiplied.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn precision(&self) -> Precision {
        match self.precision {
            DType::BF16 => Precision::Bf16,
            DType::F16 => Precision::Split,
            _ => Precision::Exact,
        }
    }

    /// All of it in f32: borrowed, or converted for this one use.
    pub(super) fn to_f32(&self) -> Cow<'_, [f32]> {
        match self.numbers() {
            Numbers::F32(values) => Cow::Borrowed(values),
            Numbers::F16(values) => Cow::Owned(widen(values)),
            Numbers::BF16(values) => Cow::Owned(widen(values)),
        }
    }
}

/// Half-precision numbers in f32.
pub(super) fn widen<T: Sync>(values: &[T]) -> Vec<f32>
where
    [T]: HalfFloatSliceExt,
{
    let mut wide = vec![0.0; values.len()];
    wide.par_chunks_mut(1 << 14)
        .zip(values.par_chunks(1 << 14))
        .for_each(|(wide, values)| values.convert_to_f32_slice(wide));
    wide
}
