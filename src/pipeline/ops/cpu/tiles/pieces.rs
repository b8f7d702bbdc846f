//! The left operand: f32 numbers as bf16 pieces, where they were.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
    _mm512_extracti64x4_epi64, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_si512,
    _mm512_sub_ps,
};

use rayon::prelude::*;

use super::{Precision, STEP, TILE, aligned::Aligned};

/// Numbers a core takes at a time.
const CHUNK: usize = 1 << 14;

/// Rows of numbers in pieces. Rows may lie any distance apart and even overlap, since a tile is loaded row by row.
pub(in super::super) struct Pieces {
    high: Aligned,
    /// Empty where one piece does.
    low: Aligned,
    row_stride: usize,
    /// Numbers that are there; behind them are zeros for tiles that reach over the end.
    len: usize,
}

impl Pieces {
    /// Splits all of `x`, whose rows are `row_stride` apart.
    pub(in super::super) fn of(x: &[f32], row_stride: usize, precision: Precision) -> Self {
        let mut pieces = Self::with_room(x.len(), row_stride, precision);
        let Self { high, low, .. } = &mut pieces;
        if precision == Precision::Split {
            high.par_chunks_mut(CHUNK)
                .zip(low.par_chunks_mut(CHUNK))
                .zip(x.par_chunks(CHUNK))
                .for_each(|((high, low), x)| split(x, &mut high[..x.len()], &mut low[..x.len()]));
        } else {
            high.par_chunks_mut(CHUNK)
                .zip(x.par_chunks(CHUNK))
                .for_each(|(high, x)| split(x, &mut high[..x.len()], &mut []));
        }
        pieces
    }

    /// Splits rows of a picture into one with room around it: each `row` of `x` goes to `padded.1` numbers into a row of
    /// `padded.0`, below as many rows of zeros as `above`.
    pub(in super::super) fn padded(
        x: &[f32],
        row: usize,
        (rows, padded_row): (usize, usize),
        (above, left): (usize, usize),
        (row_stride, precision): (usize, Precision),
    ) -> Self {
        let mut pieces = Self::with_room(rows * padded_row, row_stride, precision);
        let high = pieces.high[above * padded_row..].par_chunks_mut(padded_row).zip(x.par_chunks(row));
        if precision == Precision::Split {
            let low = pieces.low[above * padded_row..].par_chunks_mut(padded_row);
            high.zip(low).with_min_len(8).for_each(|((high, x), low)| {
                split(x, &mut high[left..][..row], &mut low[left..][..row]);
            });
        } else {
            high.with_min_len(8).for_each(|(high, x)| split(x, &mut high[left..][..row], &mut []));
        }
        pieces
    }

    /// Room for numbers that are split later, by one thread again and again.
    pub(in super::super) fn with_room(len: usize, row_stride: usize, precision: Precision) -> Self {
        let room = len + TILE * row_stride + STEP;
        let low = Aligned::zeros(if precision == Precision::Split { room } else { 0 });
        Self { high: Aligned::zeros(room), low, row_stride, len }
    }

    /// Splits `x` into the first places.
    pub(in super::super) fn fill(&mut self, x: &[f32]) {
        let low = if self.low.is_empty() { &mut [][..] } else { &mut self.low[..x.len()] };
        split(x, &mut self.high[..x.len()], low);
    }

    pub(super) fn precision(&self) -> Precision {
        if self.low.is_empty() { Precision::Bf16 } else { Precision::Split }
    }

    pub(super) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Whether a tile's `rows` rows of `depth` numbers from `offset` are there, in whole tiles and steps.
    pub(super) fn holds(&self, offset: usize, rows: usize, depth: usize) -> bool {
        offset + (rows - 1) * self.row_stride + depth <= self.len
            && offset + (TILE - 1) * self.row_stride + depth.next_multiple_of(STEP) <= self.high.len()
    }

    pub(super) fn high_from(&self, offset: usize) -> *const u16 {
        self.high[offset..].as_ptr()
    }

    pub(super) fn low_from(&self, offset: usize) -> *const u16 {
        if self.low.is_empty() { self.high_from(offset) } else { self.low[offset..].as_ptr() }
    }
}

/// The pieces of `x`; no low ones where there is no room for them.
fn split(x: &[f32], high: &mut [u16], low: &mut [u16]) {
    assert!(super::available() && high.len() == x.len() && (low.is_empty() || low.len() == x.len()));
    #[expect(unsafe_code, reason = "the processor has these instructions, as was asked above")]
    unsafe {
        split_vectors(x, high, low);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn split_vectors(x: &[f32], high: &mut [u16], low: &mut [u16]) {
    let (vectors, rest) = x.as_chunks::<STEP>();
    let (high_vectors, high_rest) = high.as_chunks_mut::<STEP>();
    let mut low = low.chunks_mut(STEP);
    for (x, high) in vectors.iter().zip(high_vectors) {
        let (first, second) = load(x);
        let pieces = round(first, second);
        store(pieces, high);
        if let Some(low) = low.next()
            && let Ok(low) = low.try_into()
        {
            store(rest_of(first, second, pieces), low);
        }
    }
    if !rest.is_empty() {
        let (mut x, mut pieces) = ([0.0; STEP], [0; STEP]);
        x[..rest.len()].copy_from_slice(rest);
        let (first, second) = load(&x);
        let rounded = round(first, second);
        store(rounded, &mut pieces);
        high_rest.copy_from_slice(&pieces[..rest.len()]);
        if let Some(low) = low.next() {
            store(rest_of(first, second, rounded), &mut pieces);
            low.copy_from_slice(&pieces[..rest.len()]);
        }
    }
}

#[target_feature(enable = "avx512f")]
fn load(x: &[f32; STEP]) -> (__m512, __m512) {
    #[expect(unsafe_code, reason = "both halves are within the array")]
    unsafe {
        (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(STEP / 2)))
    }
}

#[target_feature(enable = "avx512f")]
fn store(pieces: __m512i, to: &mut [u16; STEP]) {
    #[expect(unsafe_code, reason = "the array is as long as the vector")]
    unsafe {
        _mm512_storeu_si512(to.as_mut_ptr().cast(), pieces);
    }
}

/// The nearest bf16 numbers, of `first` and then of `second`.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn round(first: __m512, second: __m512) -> __m512i {
    let pieces: __m512bh = _mm512_cvtne2ps_pbh(second, first);
    #[expect(unsafe_code, reason = "two names for 64 bytes")]
    unsafe {
        std::mem::transmute::<__m512bh, __m512i>(pieces)
    }
}

/// What rounding left of `first` and `second`, rounded.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn rest_of(first: __m512, second: __m512, rounded: __m512i) -> __m512i {
    let widened = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
    let first = _mm512_sub_ps(first, widened(_mm512_castsi512_si256(rounded)));
    let second = _mm512_sub_ps(second, widened(_mm512_extracti64x4_epi64::<1>(rounded)));
    round(first, second)
}

/// No numbers.
#[target_feature(enable = "avx512f")]
pub(super) fn zeros() -> __m512 {
    _mm512_setzero_ps()
}
