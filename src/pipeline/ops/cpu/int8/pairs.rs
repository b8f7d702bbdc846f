//! With AVX2, which has no instruction for eight-bit numbers whose sums cannot overflow, but one that multiplies
//! sixteen numbers of sixteen bits and adds them up in pairs. So the weight is widened, eight outputs at a time, into a
//! core's cache. Four numbers of depth of an output are two pairs, whose sums are added at the end.

use std::{
    arch::x86_64::{
        __m256, __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_add_ps, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps,
        _mm256_cvtps_epi32, _mm256_hadd_epi32, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps,
        _mm256_packs_epi32, _mm256_permute4x64_epi64, _mm256_set1_epi64x, _mm256_set1_ps, _mm256_setzero_si256,
        _mm256_storeu_ps, _mm256_storeu_si256,
    },
    ops::Range,
};

use super::{COLUMNS, EIGHT, Factors, Kernel, LANES, Line, QUAD, scale_of};

/// Rows whose sums are in registers at once, two vectors each.
const ROWS: usize = 6;
/// Numbers of a vector.
const WIDE: usize = 16;
/// Of each 64 bits: the first, the third, the second, the fourth.
const INNER_SWAPPED: i32 = 0b11_01_10_00;

pub(super) struct Pairs;

#[expect(unsafe_code, reason = "the trait's way to need instructions")]
impl Kernel for Pairs {
    type Number = i16;

    // They come from the third cache, once for each block of outputs; of fewer rows the weight would be widened more
    // often.
    const RESIDENT: usize = 1 << 20;
    const ROWS: usize = ROWS;

    /// Four numbers of the first row, four of the second, and so on.
    unsafe fn quantize(x: &[f32], inputs: usize, numbers: &mut [i16], scales: &mut [f32]) {
        let numbers = numbers.as_chunks_mut::<QUAD>().0;
        for (row, (x, scale)) in x.chunks_exact(inputs).zip(scales).enumerate() {
            // SAFETY: the caller says that the processor has AVX2.
            *scale = unsafe { quantize(x, &mut numbers[row..]) };
        }
    }

    unsafe fn multiply(
        factors: &Factors<'_, i16>,
        rows: Range<usize>,
        block: usize,
        memory: &mut Vec<i16>,
        write: impl Fn(usize, &[[f32; COLUMNS]]),
    ) {
        let quads = factors.weight.inputs.div_ceil(QUAD);
        memory.resize(COLUMNS * QUAD * quads, 0);
        // SAFETY: the caller says that the processor has AVX2, here and below.
        unsafe { widen(&factors.weight.lines[block * 2 * quads..][..2 * quads], memory) };
        let mut results = [[0.0; COLUMNS]; ROWS];
        for first in rows.clone().step_by(ROWS) {
            for (part, panel) in memory.chunks_exact(EIGHT * QUAD * quads).enumerate() {
                // SAFETY: as above.
                unsafe { multiply(factors, first, panel, (block, part), &mut results) };
            }
            write(first, &results[..ROWS.min(rows.end - first)]);
        }
    }
}

/// A block's lines to four panels, of eight outputs each: for each four numbers of depth, two vectors.
#[target_feature(enable = "avx2")]
fn widen(lines: &[Line], panels: &mut [i16]) {
    let panel = panels.len() / (COLUMNS / EIGHT);
    for (part, panel) in panels.chunks_exact_mut(panel).enumerate() {
        let (half, first) = (part * EIGHT / LANES, part * EIGHT % LANES * QUAD);
        for (lines, panel) in lines.as_chunks::<2>().0.iter().zip(panel.as_chunks_mut::<{ 2 * WIDE }>().0) {
            let bytes = &lines[half].0[first..][..2 * WIDE];
            for (bytes, numbers) in bytes.as_chunks::<WIDE>().0.iter().zip(panel.as_chunks_mut::<WIDE>().0) {
                // SAFETY: the arrays are sixteen bytes, which are read, and sixteen times two, the 32 that are written.
                #[expect(unsafe_code)]
                unsafe {
                    let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes.as_ptr().cast()));
                    _mm256_storeu_si256(numbers.as_mut_ptr().cast(), wide);
                }
            }
        }
    }
}

/// Six rows from `first` on times eight outputs, a part of a block's.
#[target_feature(enable = "avx2")]
fn multiply(
    &Factors { rows, weight, bias }: &Factors<'_, i16>,
    first: usize,
    panel: &[i16],
    (block, part): (usize, usize),
    results: &mut [[f32; COLUMNS]; ROWS],
) {
    let left = rows.numbers[first * rows.stride..][..ROWS * rows.stride].as_chunks::<{ ROWS * QUAD }>().0;
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    for (left, columns) in left.iter().zip(panel.as_chunks::<{ 2 * WIDE }>().0) {
        let columns = [integers(&columns[..WIDE]), integers(&columns[WIDE..])];
        for (left, sums) in left.as_chunks::<QUAD>().0.iter().zip(&mut sums) {
            let four = _mm256_set1_epi64x(bytemuck::cast(*left));
            sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(four, columns[0]));
            sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(four, columns[1]));
        }
    }
    let column = block * COLUMNS + part * EIGHT;
    let (scales, bias) = (vector(&weight.scales[column..]), vector(&bias[column..]));
    for (row, (sums, results)) in sums.iter().zip(results.iter_mut()).enumerate() {
        // Of each half of both vectors, outputs 0, 1, 4, 5 and 2, 3, 6, 7.
        let exact = _mm256_permute4x64_epi64::<INNER_SWAPPED>(_mm256_hadd_epi32(sums[0], sums[1]));
        let scale = _mm256_mul_ps(scales, _mm256_set1_ps(rows.scales[first + row]));
        let value = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(exact), scale), bias);
        let target = &mut results[part * EIGHT..][..EIGHT];
        // SAFETY: the slice is eight times four bytes, the 32 that are written.
        #[expect(unsafe_code)]
        unsafe {
            _mm256_storeu_ps(target.as_mut_ptr(), value);
        }
    }
}

/// A row's numbers, each four of them to every sixth place; returns what one of them stands for.
#[target_feature(enable = "avx2")]
fn quantize(x: &[f32], numbers: &mut [[i16; QUAD]]) -> f32 {
    let (scale, inverse) = scale_of(x);
    let (lanes, rest) = x.as_chunks::<WIDE>();
    let mut last = [0.0; WIDE];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&last);
    let mut numbers = numbers.iter_mut().step_by(ROWS);
    for lane in lanes.iter().chain(last) {
        let scaled =
            |half: usize| _mm256_cvtps_epi32(_mm256_mul_ps(vector(&lane[half * EIGHT..]), _mm256_set1_ps(inverse)));
        let narrow = _mm256_permute4x64_epi64::<INNER_SWAPPED>(_mm256_packs_epi32(scaled(0), scaled(1)));
        let mut sixteen = [[0; QUAD]; WIDE / QUAD];
        // SAFETY: the array is sixteen times two bytes, the 32 that are written.
        #[expect(unsafe_code)]
        unsafe {
            _mm256_storeu_si256(sixteen.as_mut_ptr().cast(), narrow);
        }
        sixteen.into_iter().zip(numbers.by_ref()).for_each(|(four, numbers)| *numbers = four);
    }
    scale
}

#[target_feature(enable = "avx2")]
pub(super) fn vector(values: &[f32]) -> __m256 {
    let values = &values[..EIGHT];
    // SAFETY: the slice is eight times four bytes, the 32 that are read.
    #[expect(unsafe_code)]
    unsafe {
        _mm256_loadu_ps(values.as_ptr())
    }
}

#[target_feature(enable = "avx2")]
fn integers(values: &[i16]) -> __m256i {
    let values = &values[..WIDE];
    // SAFETY: the slice is sixteen times two bytes, the 32 that are read.
    #[expect(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(values.as_ptr().cast())
    }
}
