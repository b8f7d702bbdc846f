//! Matrices of linear layers: in memory, or where their files are mapped.

use std::{fmt, ops::Range, sync::Arc};

use candle_core::{DType, Result, Tensor};
use half::{bf16, f16, slice::HalfBitsSliceExt};
use memmap2::Mmap;

use super::numbers::{self, Stored};

/// The matrix of a linear layer, `(out, in)` as the file has it.
#[derive(Clone, Debug)]
pub enum WeightMatrix {
    /// In memory, on the device where it is used.
    Held(Tensor),
    /// In its file, and used from there on the CPU.
    Mapped(MappedMatrix),
}

impl WeightMatrix {
    /// Outputs and inputs.
    pub fn dims(&self) -> candle_core::Result<(usize, usize)> {
        match self {
            Self::Held(tensor) => tensor.dims2(),
            Self::Mapped(matrix) => Ok(matrix.dims()),
        }
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Held(tensor) => tensor.dtype(),
            Self::Mapped(matrix) => matrix.dtype(),
        }
    }

    /// Whether it is on the CPU.
    pub(in super::super) fn is_on_cpu(&self) -> bool {
        match self {
            Self::Held(tensor) => tensor.device().is_cpu(),
            Self::Mapped(_) => true,
        }
    }

    /// A tensor of it.
    pub(in super::super) fn to_tensor(&self) -> candle_core::Result<Tensor> {
        match self {
            Self::Held(tensor) => Ok(tensor.clone()),
            Self::Mapped(matrix) => matrix.to_tensor(),
        }
    }
}

impl From<Tensor> for WeightMatrix {
    fn from(tensor: Tensor) -> Self {
        Self::Held(tensor)
    }
}

impl From<MappedMatrix> for WeightMatrix {
    fn from(matrix: MappedMatrix) -> Self {
        Self::Mapped(matrix)
    }
}

/// A matrix in a mapped file, of the type it is wanted in: nothing is copied, and its memory is the system's cache of
/// the file, which processes share and which the system can take back and fetch again.
#[derive(Clone)]
pub struct MappedMatrix {
    map: Arc<Mmap>,
    bytes: Range<usize>,
    stored: Stored,
    dims: (usize, usize),
}

/// The numbers of a matrix, row by row.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// 32 bits each.
    F32(&'a [f32]),
    /// Half precision.
    F16(&'a [f16]),
    /// The upper half of an f32.
    BF16(&'a [bf16]),
}

impl Numbers<'_> {
    /// Some of them.
    pub(in super::super) fn part(&self, range: Range<usize>) -> Numbers<'_> {
        match self {
            Self::F32(numbers) => Numbers::F32(&numbers[range]),
            Self::F16(numbers) => Numbers::F16(&numbers[range]),
            Self::BF16(numbers) => Numbers::BF16(&numbers[range]),
        }
    }
}

impl MappedMatrix {
    /// The matrix in these bytes of a file, if they can be read where they are: an address may not suit the type, or
    /// the processor's order of bytes not the file's.
    pub(super) fn new(map: &Arc<Mmap>, bytes: Range<usize>, stored: Stored, dims: (usize, usize)) -> Option<Self> {
        let this = Self { map: Arc::clone(map), bytes, stored, dims };
        (cfg!(target_endian = "little") && this.try_numbers().is_some()).then_some(this)
    }

    /// Rows and columns.
    pub fn dims(&self) -> (usize, usize) {
        self.dims
    }

    /// The type of its numbers.
    pub fn dtype(&self) -> DType {
        self.stored.dtype()
    }

    /// Its numbers, where they are.
    pub fn numbers(&self) -> Numbers<'_> {
        self.try_numbers().expect("tried when it was made")
    }

    /// A copy in memory.
    pub fn to_tensor(&self) -> Result<Tensor> {
        let (rows, columns) = self.dims;
        numbers::tensor(&self.map[self.bytes.clone()], self.stored, &[rows, columns], self.dtype())
    }

    fn try_numbers(&self) -> Option<Numbers<'_>> {
        let bytes = &self.map[self.bytes.clone()];
        Some(match self.stored {
            Stored::F32 => Numbers::F32(bytemuck::try_cast_slice(bytes).ok()?),
            Stored::F16 => Numbers::F16(bytemuck::try_cast_slice::<_, u16>(bytes).ok()?.reinterpret_cast()),
            Stored::BF16 => Numbers::BF16(bytemuck::try_cast_slice::<_, u16>(bytes).ok()?.reinterpret_cast()),
        })
    }
}

impl fmt::Debug for MappedMatrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MappedMatrix").field("dims", &self.dims).field("dtype", &self.dtype()).finish()
    }
}
