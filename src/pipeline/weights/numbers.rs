//! Numbers as files hold them, little-endian, to tensors of the type they are kept in.

use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16, slice::HalfFloatSliceExt, vec::HalfBitsVecExt as _};
use rayon::prelude::*;
use safetensors::Dtype;

/// Numbers a core takes at a time.
const SHARE: usize = 1 << 18;
/// Numbers converted at a time: small enough that what is between two types stays in the first cache.
const PIECE: usize = 1 << 11;

/// The type of a file's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    F16,
    BF16,
    F32,
}

impl Stored {
    /// What a file says, if weights may be of that type.
    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Self::F16),
            Dtype::BF16 => Some(Self::BF16),
            Dtype::F32 => Some(Self::F32),
            _ => None,
        }
    }

    /// The type of tensors that hold the same numbers.
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
            Self::F32 => DType::F32,
        }
    }
}

/// A tensor of `dtype` on the CPU. What is of that type already is copied bit by bit; everything else passes through
/// f32.
pub(super) fn tensor(bytes: &[u8], stored: Stored, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let on_cpu = |bits: Vec<u16>| match dtype {
        DType::F16 => Tensor::from_vec(bits.reinterpret_into::<f16>(), shape, &Device::Cpu),
        _ => Tensor::from_vec(bits.reinterpret_into::<bf16>(), shape, &Device::Cpu),
    };
    match (stored, dtype) {
        (Stored::F16, DType::F16) | (Stored::BF16, DType::BF16) => on_cpu(collect::<2, _>(bytes, take_u16)),
        (_, DType::F16) => on_cpu(by_way_of_f32::<f16>(bytes, stored)),
        (_, DType::BF16) => on_cpu(by_way_of_f32::<bf16>(bytes, stored)),
        (_, DType::F32) => Tensor::from_vec(in_f32(bytes, stored), shape, &Device::Cpu),
        (_, other) => candle_core::bail!("weights are kept in f16, bf16 or f32, not {other:?}"),
    }
}

/// Numbers of `N` bytes each to as many of whatever `convert` makes of them, piece by piece on every core.
fn collect<const N: usize, T>(bytes: &[u8], convert: impl Fn(&[u8], &mut [T]) + Sync) -> Vec<T>
where
    T: Copy + Default + Send,
{
    // Zeros of these types cost nothing before they are written to.
    let mut numbers = vec![T::default(); bytes.len() / N];
    numbers.par_chunks_mut(SHARE).zip(bytes.par_chunks(SHARE * N)).for_each(|(numbers, bytes)| {
        numbers.chunks_mut(PIECE).zip(bytes.chunks(PIECE * N)).for_each(|(numbers, bytes)| convert(bytes, numbers));
    });
    numbers
}

fn in_f32(bytes: &[u8], stored: Stored) -> Vec<f32> {
    match stored {
        Stored::F16 => collect::<2, _>(bytes, widen::<f16>),
        Stored::BF16 => collect::<2, _>(bytes, widen::<bf16>),
        Stored::F32 => collect::<4, _>(bytes, take_f32),
    }
}

/// The bits of numbers of type `T`.
fn by_way_of_f32<T>(bytes: &[u8], stored: Stored) -> Vec<u16>
where
    T: Copy + Default,
    [T]: HalfFloatSliceExt,
{
    let narrow = |numbers: &[f32], bits: &mut [u16]| {
        let mut halves = [T::default(); PIECE];
        let halves = &mut halves[..bits.len()];
        halves.convert_from_f32_slice(numbers);
        bits.copy_from_slice(halves.reinterpret_cast());
    };
    let through = |fill: fn(&[u8], &mut [f32])| {
        move |bytes: &[u8], bits: &mut [u16]| {
            let mut numbers = [0.0; PIECE];
            let numbers = &mut numbers[..bits.len()];
            fill(bytes, numbers);
            narrow(numbers, bits);
        }
    };
    match stored {
        Stored::F16 => collect::<2, _>(bytes, through(widen::<f16>)),
        Stored::BF16 => collect::<2, _>(bytes, through(widen::<bf16>)),
        Stored::F32 => collect::<4, _>(bytes, through(take_f32)),
    }
}

fn widen<T: Copy + Default>(bytes: &[u8], numbers: &mut [f32])
where
    [T]: HalfFloatSliceExt,
{
    let mut halves = [T::default(); PIECE];
    let halves = &mut halves[..numbers.len()];
    take_u16(bytes, halves.reinterpret_cast_mut());
    halves.convert_to_f32_slice(numbers);
}

fn take_u16(bytes: &[u8], numbers: &mut [u16]) {
    numbers.iter_mut().zip(bytes.as_chunks().0).for_each(|(number, bytes)| *number = u16::from_le_bytes(*bytes));
}

fn take_f32(bytes: &[u8], numbers: &mut [f32]) {
    numbers.iter_mut().zip(bytes.as_chunks().0).for_each(|(number, bytes)| *number = f32::from_le_bytes(*bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_becomes_every_other_across_pieces_and_shares_from_any_address() {
        let count = 2 * SHARE + PIECE + 3;
        // Numbers that all three types hold.
        let values: Vec<f32> =
            (0..count).map(|number| (number % 511) as f32 / 2.0 - 100.0).map(halve_mantissa).collect();
        let stored = [
            (Stored::F16, values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect::<Vec<u8>>()),
            (Stored::BF16, values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()),
            (Stored::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ];
        for (stored, mut bytes) in stored {
            // A file's tensors need not begin where their numbers could.
            bytes.insert(0, 0);
            for dtype in [DType::F16, DType::BF16, DType::F32] {
                let tensor = tensor(&bytes[1..], stored, &[count], dtype).expect("a tensor");
                assert_eq!(tensor.dtype(), dtype);
                let found = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.to_vec1::<f32>()).expect("numbers");
                assert!(found == values, "{stored:?} to {dtype:?}");
            }
        }
    }

    /// With no more of a mantissa than bf16 has.
    fn halve_mantissa(value: f32) -> f32 {
        bf16::from_f32(value).to_f32()
    }

    #[test]
    fn what_is_of_the_type_already_keeps_every_bit() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let kept = tensor(&bytes, Stored::F16, &[bits.len()], DType::F16).expect("a tensor");
        assert_eq!(kept.to_vec1::<f16>().expect("f16").reinterpret_cast(), bits);
        let kept = tensor(&bytes, Stored::BF16, &[bits.len()], DType::BF16).expect("a tensor");
        assert_eq!(kept.to_vec1::<bf16>().expect("bf16").reinterpret_cast(), bits);
    }
}
