//! The left operand: f32 numbers as bf16 pieces, where they were.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_castsi512_ps, _mm512_castsi512_si256, _mm512_cvtepu16_epi32, _mm512_cvtne2ps_pbh,
    _mm512_extracti64x4_epi64, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_storeu_si512, _mm512_sub_ps,
};

use rayon::prelude::*;

use super::{
    super::lanes::Rows,
    MOST_PIECES, Precision, STEP, TILE,
    aligned::{Aligned, Bits, NONE},
};

/// Numbers a core takes at a time.
const CHUNK: usize = 1 << 14;

/// Rows of numbers in pieces. Rows may lie any distance apart and even overlap, since a tile is loaded row by row.
pub(in super::super) struct Pieces {
    /// The first pieces of all numbers, then the second ones, and so on; empty where fewer do.
    planes: [Aligned; MOST_PIECES],
    precision: Precision,
    row_stride: usize,
    /// Numbers that are there; behind them are zeros for tiles that reach over the end.
    len: usize,
}

/// One part of every plane.
type Parts<'a> = [&'a mut [Bits]; MOST_PIECES];

impl Pieces {
    /// Splits all of `x`, whose rows are `row_stride` apart.
    pub(in super::super) fn of(x: &[f32], row_stride: usize, precision: Precision) -> Self {
        let mut pieces = Self::with_room(x.len(), row_stride, precision);
        pieces.parts(CHUNK).into_par_iter().zip(x.par_chunks(CHUNK)).for_each(|(mut parts, x)| {
            split(x, &mut parts, precision);
        });
        pieces
    }

    /// Splits rows of a picture into one with room around it: each of `x`, of `row` numbers, goes to `left` numbers
    /// into a row of `padded_row`, below as many rows of zeros as `above`.
    pub(in super::super) fn padded(
        x: Rows<'_>,
        row: usize,
        (rows, padded_row): (usize, usize),
        (above, left): (usize, usize),
        (row_stride, precision): (usize, Precision),
    ) -> Self {
        let mut pieces = Self::with_room(rows * padded_row, row_stride, precision);
        let mut parts = pieces.parts(padded_row);
        parts.truncate(rows);
        let written = above..above + x.values.len().div_ceil(x.stride);
        parts.into_par_iter().with_min_len(8).enumerate().for_each(|(number, mut parts)| {
            if written.contains(&number) {
                let x = &x.values[(number - above) * x.stride..][..row];
                parts.iter_mut().filter(|part| !part.is_empty()).for_each(|part| {
                    part[..left].fill(NONE);
                    part[left + row..].fill(NONE);
                });
                split(x, &mut parts.map(|part| part.get_mut(left..).unwrap_or_default()), precision);
            } else {
                parts.iter_mut().for_each(|part| part.fill(NONE));
            }
        });
        pieces
    }

    /// Room for numbers that have yet to be split. All of it is zero: a tile reads whole, also where fewer rows were
    /// filled.
    pub(in super::super) fn with_room(len: usize, row_stride: usize, precision: Precision) -> Self {
        let room = len + TILE * row_stride + STEP;
        let plane = |number| {
            let mut plane = Aligned::with_room(if number < precision.pieces() { room } else { 0 });
            plane.fill(NONE);
            plane
        };
        Self { planes: std::array::from_fn(plane), precision, row_stride, len }
    }

    /// Splits `x` into the first places.
    pub(in super::super) fn fill(&mut self, x: &[f32]) {
        let precision = self.precision;
        split(x, &mut self.planes.each_mut().map(|plane| &mut plane[..]), precision);
    }

    /// The planes in parts of `len` numbers.
    fn parts(&mut self, len: usize) -> Vec<Parts<'_>> {
        let count = self.planes[0].len().div_ceil(len);
        let mut planes = self.planes.each_mut().map(|plane| plane.chunks_mut(len));
        (0..count).map(|_| planes.each_mut().map(|parts| parts.next().unwrap_or_default())).collect()
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn row_stride(&self) -> usize {
        self.row_stride
    }

    /// Whether a tile's `rows` rows of `depth` numbers from `offset` are there, in whole tiles and steps.
    pub(super) fn holds(&self, offset: usize, rows: usize, depth: usize) -> bool {
        offset + (rows - 1) * self.row_stride + depth <= self.len
            && offset + (TILE - 1) * self.row_stride + depth.next_multiple_of(STEP) <= self.planes[0].len()
    }

    /// Each plane from `offset` on; the first one's in the place of those that are not there.
    pub(super) fn from(&self, offset: usize) -> [*const u16; MOST_PIECES] {
        let first = self.planes[0][offset..].as_ptr().cast();
        self.planes.each_ref().map(|plane| plane.get(offset..).map_or(first, |plane| plane.as_ptr().cast()))
    }
}

/// Writes the pieces of `x` to the beginnings of the parts, as many as `precision` has.
fn split(x: &[f32], parts: &mut Parts<'_>, precision: Precision) {
    assert!(super::units().is_some() && parts.iter().take(precision.pieces()).all(|part| part.len() >= x.len()));
    // SAFETY: where `units` finds any, the processor has AVX-512's F, BW, VL and BF16.
    #[expect(unsafe_code)]
    unsafe {
        match precision {
            Precision::Exact => split_vectors::<3>(x, parts),
            Precision::Split => split_vectors::<2>(x, parts),
            Precision::Bf16 => split_vectors::<1>(x, parts),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn split_vectors<const N: usize>(x: &[f32], parts: &mut Parts<'_>) {
    let (vectors, rest) = x.as_chunks::<STEP>();
    let mut targets = parts.each_mut().map(|part| part.chunks_mut(STEP));
    for x in vectors {
        let pieces: [_; N] = pieces_of(load(x));
        for (piece, target) in pieces.into_iter().zip(&mut targets) {
            if let Some(target) = target.next().and_then(|target| target.as_mut_array()) {
                store(piece, target);
            }
        }
    }
    if !rest.is_empty() {
        let mut last = [0.0; STEP];
        last[..rest.len()].copy_from_slice(rest);
        let pieces: [_; N] = pieces_of(load(&last));
        for (piece, target) in pieces.into_iter().zip(&mut targets) {
            let mut numbers = [NONE; STEP];
            store(piece, &mut numbers);
            if let Some(target) = target.next() {
                target[..rest.len()].copy_from_slice(&numbers[..rest.len()]);
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn load(x: &[f32; STEP]) -> [__m512; 2] {
    // SAFETY: the array is 32 times four bytes, two times the 64 that are read.
    #[expect(unsafe_code)]
    unsafe {
        [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(STEP / 2))]
    }
}

#[target_feature(enable = "avx512f")]
fn store(pieces: __m512i, to: &mut [Bits; STEP]) {
    // SAFETY: the array is 32 times two bytes, the 64 that are written.
    #[expect(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(to.as_mut_ptr().cast(), pieces);
    }
}

/// The first `N` pieces of these numbers: each the bf16 numbers nearest to what the ones before it left.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn pieces_of<const N: usize>([mut first, mut second]: [__m512; 2]) -> [__m512i; N] {
    let widened = |half| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)));
    let mut pieces = [_mm512_setzero_si512(); N];
    for (number, piece) in pieces.iter_mut().enumerate() {
        *piece = round(first, second);
        if number + 1 < N {
            first = _mm512_sub_ps(first, widened(_mm512_castsi512_si256(*piece)));
            second = _mm512_sub_ps(second, widened(_mm512_extracti64x4_epi64::<1>(*piece)));
        }
    }
    pieces
}

/// The nearest bf16 numbers, of `first` and then of `second`.
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(first: __m512, second: __m512) -> __m512i {
    let pieces: __m512bh = _mm512_cvtne2ps_pbh(second, first);
    // SAFETY: both are 64 bytes, of any bits.
    #[expect(unsafe_code)]
    unsafe {
        std::mem::transmute::<__m512bh, __m512i>(pieces)
    }
}

/// No numbers.
#[target_feature(enable = "avx512f")]
pub(super) fn zeros() -> __m512 {
    _mm512_setzero_ps()
}
