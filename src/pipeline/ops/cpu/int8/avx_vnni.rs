//! With AVX-VNNI: AVX512-VNNI's instruction for vectors of eight sums, in sixteen registers (Intel's processors without
//! AVX-512 since Alder Lake).

use std::{
    arch::x86_64::{
        __m256, __m256i, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_load_si256,
        _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_ps,
        _mm256_sub_epi32,
    },
    ops::Range,
};

use super::{COLUMNS, EIGHT, Factors, Kernel, LANES, Line, QUAD, pairs::vector, quantize_raised};

/// Rows whose sums are in registers at once, two vectors each.
const ROWS: usize = 6;

pub(super) struct AvxVnni;

#[expect(unsafe_code, reason = "the trait's way to need instructions")]
impl Kernel for AvxVnni {
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
            for half in 0..COLUMNS / LANES {
                // SAFETY: the caller says that the processor has AVX-VNNI, and AVX2 with it.
                unsafe { multiply(factors, first, (block, half), &mut results) };
            }
            write(first, &results[..ROWS.min(rows.end - first)]);
        }
    }
}

/// Six rows from `first` on times sixteen outputs, a half of a block's.
#[target_feature(enable = "avx2,avxvnni")]
fn multiply(
    &Factors { rows, weight, bias }: &Factors<'_, u8>,
    first: usize,
    (block, half): (usize, usize),
    results: &mut [[f32; COLUMNS]; ROWS],
) {
    let quads = weight.inputs.div_ceil(QUAD);
    let lines = &weight.lines[block * 2 * quads..][..2 * quads];
    let left: [&[u8]; ROWS] = std::array::from_fn(|row| &rows.numbers[(first + row) * rows.stride..][..rows.stride]);
    let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
    for (quad, lines) in lines.as_chunks::<2>().0.iter().enumerate() {
        let columns = load(&lines[half]);
        for (left, sums) in left.iter().zip(&mut sums) {
            // SAFETY: a row's stride is the inputs rounded up to a multiple of sixteen, so no fewer than `quads` times
            // four bytes, and quad < quads.
            #[expect(unsafe_code)]
            let four = unsafe { left.as_ptr().cast::<i32>().add(quad).read_unaligned() };
            let four = _mm256_set1_epi32(four);
            sums[0] = _mm256_dpbusd_avx_epi32(sums[0], four, columns[0]);
            sums[1] = _mm256_dpbusd_avx_epi32(sums[1], four, columns[1]);
        }
    }
    for part in 0..2 {
        let place = half * LANES + part * EIGHT;
        let column = block * COLUMNS + place;
        let (scales, bias) = (vector(&weight.scales[column..]), vector(&bias[column..]));
        let offsets = integers(&weight.offsets[column..]);
        for (row, (sums, results)) in sums.iter().zip(results.iter_mut()).enumerate() {
            let exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums[part], offsets));
            let scale = _mm256_mul_ps(scales, _mm256_set1_ps(rows.scales[first + row]));
            store(_mm256_add_ps(_mm256_mul_ps(exact, scale), bias), &mut results[place..]);
        }
    }
}

/// Sixteen outputs' numbers, in two vectors.
#[target_feature(enable = "avx2")]
fn load(line: &Line) -> [__m256i; 2] {
    let halves: *const __m256i = (&raw const *line).cast();
    // SAFETY: a line is 64 bytes, two times the 32 that are read, and aligned to 64.
    #[expect(unsafe_code)]
    unsafe {
        [_mm256_load_si256(halves), _mm256_load_si256(halves.add(1))]
    }
}

#[target_feature(enable = "avx2")]
fn integers(values: &[i32]) -> __m256i {
    let values = &values[..EIGHT];
    // SAFETY: the slice is eight times four bytes, the 32 that are read.
    #[expect(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn store(values: __m256, target: &mut [f32]) {
    let target = &mut target[..EIGHT];
    // SAFETY: the slice is eight times four bytes, the 32 that are written.
    #[expect(unsafe_code)]
    unsafe {
        _mm256_storeu_ps(target.as_mut_ptr(), values);
    }
}
