//! Squares of numbers of 32 bits, turned in registers.

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_T0, _mm_prefetch, _mm256_permute2x128_si256, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::lanes::{EIGHT, MOST_LANES};

/// The transpose of 16 x 16 numbers of 32 bits: pairs of rows, then of pairs, within and then across quarters.
#[target_feature(enable = "avx512f")]
pub(super) fn sixteen(rows: [__m512i; MOST_LANES]) -> [__m512i; MOST_LANES] {
    let mut pairs = rows;
    for i in (0..MOST_LANES).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Of each four rows: columns 0, 1, 2 and 3 of every quarter.
    let mut fours = pairs;
    for i in (0..MOST_LANES).step_by(4) {
        fours[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    let mut transposed = fours;
    for column in 0..4 {
        let (a, b, c, d) = (fours[column], fours[4 + column], fours[8 + column], fours[12 + column]);
        let (even_ab, odd_ab) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (even_cd, odd_cd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
        transposed[column] = _mm512_shuffle_i32x4::<0x88>(even_ab, even_cd);
        transposed[8 + column] = _mm512_shuffle_i32x4::<0xdd>(even_ab, even_cd);
        transposed[4 + column] = _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd);
        transposed[12 + column] = _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd);
    }
    transposed
}

/// The transpose of 8 x 8 numbers of 32 bits: pairs of rows, then of pairs, then of halves.
#[target_feature(enable = "avx2")]
pub(super) fn eight(rows: [__m256i; EIGHT]) -> [__m256i; EIGHT] {
    let mut pairs = rows;
    for i in (0..EIGHT).step_by(2) {
        pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // Of each four rows: columns 0, 1, 2 and 3 of both halves.
    let mut fours = pairs;
    for i in (0..EIGHT).step_by(4) {
        fours[i] = _mm256_unpacklo_epi64(pairs[i], pairs[i + 2]);
        fours[i + 1] = _mm256_unpackhi_epi64(pairs[i], pairs[i + 2]);
        fours[i + 2] = _mm256_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        fours[i + 3] = _mm256_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    let mut transposed = fours;
    for column in 0..4 {
        transposed[column] = _mm256_permute2x128_si256::<0x20>(fours[column], fours[4 + column]);
        transposed[4 + column] = _mm256_permute2x128_si256::<0x31>(fours[column], fours[4 + column]);
    }
    transposed
}

/// Asks for the cache line of this number. The rows of a square are more at once than a processor foresees by itself.
#[inline(always)]
pub(super) fn prefetch<T>(values: &[T], number: usize) {
    // SAFETY: a hint reads nothing, and may name any address.
    #[expect(unsafe_code)]
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(number).cast());
    }
}
