//! Weights whose inputs lie in a row, to panels whose outputs do.

use std::{
    any::TypeId,
    arch::x86_64::{
        _mm256_castps_si256, _mm256_setzero_si256, _mm256_storeu_si256, _mm512_castps_si512, _mm512_setzero_si512,
        _mm512_storeu_si512,
    },
    ops::Range,
};

use pulp::{Simd, x86::V3};

use super::{
    super::{
        number::{Number, is_avx512},
        transpose::{self, prefetch},
    },
    EIGHT, MOST_LANES, columns,
};

/// How many numbers of a row are asked for before they are needed.
const AHEAD: usize = 8 * MOST_LANES;

/// Packs these inputs of these outputs of a weight `(out, in)`: for each [`columns`] of the outputs one input of all of
/// them after the other. Both ranges are multiples of 16 long, that of outputs of `columns`, too.
///
/// # Safety
/// The processor has F16C, too, if the vectors are AVX2's.
#[inline(always)]
#[expect(unsafe_code, reason = "F16C is not among what the vectors' type says")]
pub(super) unsafe fn pack<S: Simd, T: Number>(
    _: S,
    weight: &[T],
    inputs_of_all: usize,
    outputs: Range<usize>,
    inputs: Range<usize>,
    panels: &mut [f32],
) {
    let (lanes, columns, depth) = (S::F32_LANES, columns::<S>(), inputs.len());
    for (first, panel) in outputs.step_by(columns).zip(panels.chunks_exact_mut(depth * columns)) {
        for (input, panel) in inputs.clone().step_by(lanes).zip(panel.chunks_exact_mut(lanes * columns)) {
            for half in 0..2 {
                let weight = &weight[(first + half * lanes) * inputs_of_all + input..];
                let panel = &mut panel[half * lanes..];
                if is_avx512::<S>() {
                    // SAFETY: a value of V4 is there only where the processor has AVX-512's F, BW and VL.
                    unsafe { turn_sixteen(weight, inputs_of_all, panel) }
                } else {
                    assert!(TypeId::of::<S>() == TypeId::of::<V3>(), "neither AVX2 nor AVX-512");
                    // SAFETY: a value of V3 is there only where the processor has AVX2, and the caller says that it has
                    // F16C.
                    unsafe { turn_eight(weight, inputs_of_all, panel) }
                }
            }
        }
    }
}

/// Sixteen rows, `stride` apart, to columns of a panel. A twin of what follows: which instructions a function needs
/// cannot be generic.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn turn_sixteen<T: Number>(weight: &[T], stride: usize, panel: &mut [f32]) {
    let mut rows = [_mm512_setzero_si512(); MOST_LANES];
    for (number, row) in rows.iter_mut().enumerate() {
        let start = number * stride;
        let Some(numbers) = weight[start..].first_chunk() else { unreachable!("a row ends here") };
        prefetch(weight, start + AHEAD);
        // SAFETY: this function needs the same instructions, so whoever calls it has made sure of them.
        #[expect(unsafe_code)]
        unsafe {
            *row = _mm512_castps_si512(T::widened(numbers));
        }
    }
    for (row, target) in transpose::sixteen(rows).into_iter().zip(panel.chunks_mut(2 * MOST_LANES)) {
        let target = &mut target[..MOST_LANES];
        // SAFETY: the slice is sixteen times four bytes, the 64 that are written.
        #[expect(unsafe_code)]
        unsafe {
            _mm512_storeu_si512(target.as_mut_ptr().cast(), row);
        }
    }
}

/// Eight rows, `stride` apart, to columns of a panel.
#[target_feature(enable = "avx2,f16c")]
fn turn_eight<T: Number>(weight: &[T], stride: usize, panel: &mut [f32]) {
    let mut rows = [_mm256_setzero_si256(); EIGHT];
    for (number, row) in rows.iter_mut().enumerate() {
        let start = number * stride;
        let Some(numbers) = weight[start..].first_chunk() else { unreachable!("a row ends here") };
        prefetch(weight, start + AHEAD);
        // SAFETY: this function needs the same instructions, so whoever calls it has made sure of them.
        #[expect(unsafe_code)]
        unsafe {
            *row = _mm256_castps_si256(T::eight_widened(numbers));
        }
    }
    for (row, target) in transpose::eight(rows).into_iter().zip(panel.chunks_mut(2 * EIGHT)) {
        let target = &mut target[..EIGHT];
        // SAFETY: the slice is eight times four bytes, the 32 that are written.
        #[expect(unsafe_code)]
        unsafe {
            _mm256_storeu_si256(target.as_mut_ptr().cast(), row);
        }
    }
}
