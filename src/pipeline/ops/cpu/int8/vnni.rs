//! With AVX512-VNNI (Intel since Ice Lake, AMD since Zen 4).

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_storeu_ps, _mm512_sub_epi32,
    },
    ops::Range,
};

use super::{COLUMNS, Factors, Kernel, LANES, Line, QUAD, quantize_raised};

/// Rows whose sums are in registers at once, two vectors each.
const ROWS: usize = 8;

pub(super) struct Vnni;

#[expect(unsafe_code, reason = "the trait's way to need instructions")]
impl Kernel for Vnni {
    /// Of a row's number and 128.
    type Number = u8;

    const RESIDENT: usize = 1 << 19;
    const ROWS: usize = ROWS;

    unsafe fn quantize(x: &[f32], inputs: usize, numbers: &mut [u8], scales: &mut [f32]) {
        quantize_raised(x, inputs, numbers, scales);
    }

    unsafe fn multiply(
        factors: &Factors<'_, u8>,
        rows: Range<usize>,
        block: usize,
        _: &mut Vec<i16>,
        write: impl Fn(usize, &[[f32; COLUMNS]]),
    ) {
        let mut results = [[0.0; COLUMNS]; ROWS];
        for first in rows.clone().step_by(ROWS) {
            // SAFETY: the caller says that the processor has AVX512-VNNI, and AVX-512's F and BW with it.
            unsafe { multiply(factors, first, block, &mut results) };
            write(first, &results[..ROWS.min(rows.end - first)]);
        }
    }
}

/// Eight rows from `first` on times a block of outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn multiply(
    &Factors { rows, weight, bias }: &Factors<'_, u8>,
    first: usize,
    block: usize,
    results: &mut [[f32; COLUMNS]; ROWS],
) {
    let quads = weight.inputs.div_ceil(QUAD);
    let lines = &weight.lines[block * 2 * quads..][..2 * quads];
    let left: [&[u8]; ROWS] = std::array::from_fn(|row| &rows.numbers[(first + row) * rows.stride..][..rows.stride]);
    let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
    for (quad, lines) in lines.as_chunks::<2>().0.iter().enumerate() {
        let columns = [load(&lines[0]), load(&lines[1])];
        for (left, sums) in left.iter().zip(&mut sums) {
            // SAFETY: a row's stride is the inputs rounded up to a multiple of sixteen, so no fewer than `quads` times
            // four bytes, and quad < quads.
            #[expect(unsafe_code)]
            let four = unsafe { left.as_ptr().cast::<i32>().add(quad).read_unaligned() };
            let four = _mm512_set1_epi32(four);
            sums[0] = _mm512_dpbusd_epi32(sums[0], four, columns[0]);
            sums[1] = _mm512_dpbusd_epi32(sums[1], four, columns[1]);
        }
    }
    for half in 0..2 {
        let column = block * COLUMNS + half * LANES;
        let (scales, bias) = (vector(&weight.scales[column..]), vector(&bias[column..]));
        let offsets = integers(&weight.offsets[column..]);
        for (row, (sums, results)) in sums.iter().zip(results.iter_mut()).enumerate() {
            let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[half], offsets));
            let scale = _mm512_mul_ps(scales, _mm512_set1_ps(rows.scales[first + row]));
            let value = _mm512_add_ps(_mm512_mul_ps(exact, scale), bias);
            store(value, &mut results[half * LANES..]);
        }
    }
}

#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes, which are read, and aligned to as many.
    #[expect(unsafe_code)]
    unsafe {
        _mm512_load_si512((&raw const *line).cast())
    }
}

#[target_feature(enable = "avx512f")]
fn vector(values: &[f32]) -> __m512 {
    let Some(values) = values.first_chunk::<LANES>() else { return _mm512_setzero_ps() };
    // SAFETY: the array is sixteen times four bytes, the 64 that are read.
    #[expect(unsafe_code)]
    unsafe {
        _mm512_loadu_ps(values.as_ptr())
    }
}

#[target_feature(enable = "avx512f")]
fn integers(values: &[i32]) -> __m512i {
    let Some(values) = values.first_chunk::<LANES>() else { return _mm512_setzero_si512() };
    // SAFETY: the array is sixteen times four bytes, the 64 that are read.
    #[expect(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
fn store(values: __m512, target: &mut [f32]) {
    let Some(target) = target.first_chunk_mut::<LANES>() else { return };
    // SAFETY: the array is sixteen times four bytes, the 64 that are written.
    #[expect(unsafe_code)]
    unsafe {
        _mm512_storeu_ps(target.as_mut_ptr(), values);
    }
}
