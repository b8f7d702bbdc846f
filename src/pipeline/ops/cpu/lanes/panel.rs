//! Weights whose inputs lie in a row, to panels whose outputs do.

use std::{
    arch::x86_64::{
        _MM_HINT_T0, _mm_prefetch, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_setzero_si512, _mm512_storeu_ps,
    },
    ops::Range,
};

use super::super::{
    number::Number,
    tiles::{TILE, transposed},
};

/// How many numbers of a row are asked for before they are needed.
const AHEAD: usize = 8 * TILE;

/// Outputs of a panel.
pub(super) const COLUMNS: usize = 2 * TILE;

/// Packs these inputs of these outputs of a weight `(out, in)`: for each 32 outputs one input of all of them after the other.
/// Both ranges are multiples of 16 long, that of outputs of 32.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn pack<T: Number>(
    weight: &[T],
    inputs_of_all: usize,
    outputs: Range<usize>,
    inputs: Range<usize>,
    panels: &mut [f32],
) {
    let depth = inputs.len();
    for (first, panel) in outputs.step_by(COLUMNS).zip(panels.chunks_exact_mut(depth * COLUMNS)) {
        for (input, panel) in inputs.clone().step_by(TILE).zip(panel.chunks_exact_mut(TILE * COLUMNS)) {
            for half in 0..2 {
                let mut rows = [_mm512_setzero_si512(); TILE];
                for (number, row) in rows.iter_mut().enumerate() {
                    let start = (first + half * TILE + number) * inputs_of_all + input;
                    let Some(numbers) = weight[start..].first_chunk::<TILE>() else { unreachable!("a row ends here") };
                    #[expect(
                        unsafe_code,
                        reason = "this function needs the same instructions; a hint may name any address"
                    )]
                    unsafe {
                        // Sixteen rows at once are more than the processor foresees by itself.
                        _mm_prefetch::<_MM_HINT_T0>(weight.as_ptr().wrapping_add(start + AHEAD).cast());
                        *row = _mm512_castps_si512(T::widened(numbers));
                    }
                }
                for (row, target) in transposed(rows).into_iter().zip(panel.chunks_exact_mut(COLUMNS)) {
                    let target = &mut target[half * TILE..][..TILE];
                    #[expect(unsafe_code, reason = "the slice is as long as the vector")]
                    unsafe {
                        _mm512_storeu_ps(target.as_mut_ptr(), _mm512_castsi512_ps(row));
                    }
                }
            }
        }
    }
}
