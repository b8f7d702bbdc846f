//! Matrix products of eight-bit integers (AVX512-VNNI: Intel since Ice Lake, AMD since Zen 4): four times as many a second as
//! in f32, of a quarter of the memory.
//!
//! A weight's every output has a scale of its own, found when it is loaded; so has every row of what it is multiplied with,
//! found each time. Sums are exact. The instruction takes unsigned numbers from the left, so 128 is added to them, and what
//! that adds to a sum, 128 times that of the weight's numbers, is taken off again.

use std::{
    arch::x86_64::{
        __m128i, __m512, __m512i, _mm_storeu_si128, _mm512_add_epi32, _mm512_add_ps, _mm512_cvtepi32_epi8,
        _mm512_cvtepi32_ps, _mm512_cvtps_epi32, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
        _mm512_storeu_ps, _mm512_sub_epi32,
    },
    mem::MaybeUninit,
};

use rayon::prelude::*;

use super::shared::written;

/// Outputs whose sums are calculated at once: two vectors.
const COLUMNS: usize = 2 * LANES;
/// Numbers of 32 bits in a vector.
const LANES: usize = 16;
/// Rows whose sums are in registers at once, two vectors each.
const ROWS: usize = 8;
/// Numbers of depth that one instruction sums up.
const QUAD: usize = 4;
/// Bytes of rows that stay in a core's second cache while the weight passes by.
const RESIDENT: usize = 1 << 19;
/// Greatest magnitude of a number.
const MOST: f32 = 127.0;

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni")
}

/// Four numbers of depth of each of sixteen outputs.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([i8; LANES * QUAD]);

/// A linear layer's weight, packed in the order in which it is multiplied.
pub(in super::super) struct Weight {
    /// For each block of outputs, for each four numbers of depth, two lines.
    lines: Vec<Line>,
    /// What a number of each output stands for; as many as there are columns.
    scales: Vec<f32>,
    /// 128 times the sum of each output's numbers.
    offsets: Vec<i32>,
    inputs: usize,
    outputs: usize,
}

impl Weight {
    /// From rows of `inputs` numbers, one for each output. `row` gives one in f32.
    pub(super) fn new(inputs: usize, outputs: usize, row: impl Fn(usize) -> Vec<f32> + Sync) -> Self {
        assert!(inputs > 0 && outputs > 0, "a weight without numbers");
        let (quads, columns) = (inputs.div_ceil(QUAD), outputs.next_multiple_of(COLUMNS));
        let mut lines = vec![Line([0; LANES * QUAD]); columns / COLUMNS * quads * 2];
        let (mut scales, mut offsets) = (vec![0.0; columns], vec![0; columns]);
        let blocks = lines.par_chunks_mut(2 * quads).zip(scales.par_chunks_mut(COLUMNS));
        blocks.zip(offsets.par_chunks_mut(COLUMNS)).enumerate().for_each(|(block, ((lines, scales), offsets))| {
            for column in 0..COLUMNS.min(outputs - block * COLUMNS) {
                let row = row(block * COLUMNS + column);
                let largest = row.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
                scales[column] = largest / MOST;
                let inverse = if largest > 0.0 { MOST / largest } else { 0.0 };
                for (depth, number) in row.iter().enumerate() {
                    let number = (number * inverse).round_ties_even() as i8;
                    let line = &mut lines[depth / QUAD * 2 + column / LANES];
                    line.0[column % LANES * QUAD + depth % QUAD] = number;
                    offsets[column] += 128 * i32::from(number);
                }
            }
        });
        Self { lines, scales, offsets, inputs, outputs }
    }

    /// `(inputs, outputs)`.
    pub(in super::super) fn sizes(&self) -> (usize, usize) {
        (self.inputs, self.outputs)
    }

    /// `x W^T + b` for rows of `inputs` numbers.
    pub(super) fn multiply(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        assert!(available(), "the processor has not these instructions");
        let rows = Rows::of(x, self.inputs);
        let mut padded_bias = vec![0.0; self.scales.len()];
        if let Some(bias) = bias {
            padded_bias[..self.outputs].copy_from_slice(bias);
        }
        let share = rows.count.div_ceil(rayon::current_num_threads());
        let chunk = (RESIDENT / rows.stride).min(share).next_multiple_of(ROWS);
        let multiply = |y: &mut [MaybeUninit<f32>]| {
            y.par_chunks_mut(chunk * self.outputs).enumerate().for_each(|(number, y)| {
                for block in 0..self.scales.len() / COLUMNS {
                    for (group, y) in y.chunks_mut(ROWS * self.outputs).enumerate() {
                        let first = number * chunk + group * ROWS;
                        let mut sums = [[0.0; COLUMNS]; ROWS];
                        #[expect(unsafe_code, reason = "the processor has these instructions, as was asked above")]
                        unsafe {
                            self.multiply_block(&rows, first, block, &padded_bias, &mut sums);
                        }
                        let columns = block * COLUMNS..((block + 1) * COLUMNS).min(self.outputs);
                        for (y, sums) in y.chunks_mut(self.outputs).zip(&sums) {
                            y[columns.clone()].write_copy_of_slice(&sums[..columns.len()]);
                        }
                    }
                }
            });
        };
        #[expect(unsafe_code, reason = "every block of every row's outputs is written")]
        unsafe {
            written(rows.count * self.outputs, multiply)
        }
    }

    /// Eight rows from `first` on times a block of outputs.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn multiply_block(
        &self,
        rows: &Rows,
        first: usize,
        block: usize,
        bias: &[f32],
        target: &mut [[f32; COLUMNS]; ROWS],
    ) {
        let quads = self.inputs.div_ceil(QUAD);
        let lines = &self.lines[block * 2 * quads..][..2 * quads];
        let left: [&[u8]; ROWS] =
            std::array::from_fn(|row| &rows.numbers[(first + row) * rows.stride..][..rows.stride]);
        let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
        for (quad, lines) in lines.as_chunks::<2>().0.iter().enumerate() {
            let columns = [load(&lines[0]), load(&lines[1])];
            for (left, sums) in left.iter().zip(&mut sums) {
                #[expect(unsafe_code, reason = "every row is `quads` times four bytes long, or longer")]
                let four = unsafe { left.as_ptr().cast::<i32>().add(quad).read_unaligned() };
                let four = _mm512_set1_epi32(four);
                sums[0] = _mm512_dpbusd_epi32(sums[0], four, columns[0]);
                sums[1] = _mm512_dpbusd_epi32(sums[1], four, columns[1]);
            }
        }
        for half in 0..2 {
            let column = block * COLUMNS + half * LANES;
            let (scales, bias) = (vector(&self.scales[column..]), vector(&bias[column..]));
            let offsets = integers(&self.offsets[column..]);
            for (row, (sums, target)) in sums.iter().zip(target.iter_mut()).enumerate() {
                let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[half], offsets));
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(rows.scales[first + row]));
                let value = _mm512_add_ps(_mm512_mul_ps(exact, scale), bias);
                store(value, &mut target[half * LANES..]);
            }
        }
    }
}

/// What a weight is multiplied with: rows of numbers and 128, in a multiple of eight.
struct Rows {
    numbers: Vec<u8>,
    stride: usize,
    /// What a number of each row stands for.
    scales: Vec<f32>,
    /// Those that were asked for.
    count: usize,
}

impl Rows {
    fn of(x: &[f32], inputs: usize) -> Self {
        let (count, stride) = (x.len() / inputs, inputs.next_multiple_of(LANES));
        let padded = count.next_multiple_of(ROWS);
        let (mut numbers, mut scales) = (vec![0; padded * stride], vec![0.0; padded]);
        let rows = numbers.par_chunks_mut(stride).zip(&mut scales).zip(x.par_chunks(inputs)).with_min_len(16);
        rows.for_each(|((numbers, scale), x)| {
            #[expect(unsafe_code, reason = "whoever multiplies has asked for these instructions")]
            unsafe {
                *scale = quantize(x, numbers);
            }
        });
        Self { numbers, stride, scales, count }
    }
}

/// A row's numbers, 128 added; returns what one of them stands for.
#[target_feature(enable = "avx512f,avx512bw")]
fn quantize(x: &[f32], numbers: &mut [u8]) -> f32 {
    let (lanes, rest) = x.as_chunks::<LANES>();
    let mut largest = [0.0f32; LANES];
    lanes.iter().for_each(|lane| largest.iter_mut().zip(lane).for_each(|(most, x)| *most = most.max(x.abs())));
    let largest = largest.iter().copied().chain(rest.iter().map(|x| x.abs())).fold(0.0, f32::max);
    let inverse = if largest > 0.0 { MOST / largest } else { 0.0 };
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&last);
    for (lane, numbers) in lanes.iter().chain(last).zip(numbers.chunks_exact_mut(LANES)) {
        let scaled = _mm512_mul_ps(vector(lane), _mm512_set1_ps(inverse));
        let raised = _mm512_add_epi32(_mm512_cvtps_epi32(scaled), _mm512_set1_epi32(128));
        let bytes: __m128i = _mm512_cvtepi32_epi8(raised);
        #[expect(unsafe_code, reason = "the chunk is as long as the vector")]
        unsafe {
            _mm_storeu_si128(numbers.as_mut_ptr().cast(), bytes);
        }
    }
    // A row with a number that is not one has no scale either, and makes none of its results one.
    if x.iter().all(|x| x.is_finite()) { largest / MOST } else { f32::NAN }
}

#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    #[expect(unsafe_code, reason = "a line is as long as the vector, and aligned as it")]
    unsafe {
        _mm512_load_si512((&raw const *line).cast())
    }
}

#[target_feature(enable = "avx512f")]
fn vector(values: &[f32]) -> __m512 {
    let Some(values) = values.first_chunk::<LANES>() else { return _mm512_setzero_ps() };
    #[expect(unsafe_code, reason = "the array is as long as the vector")]
    unsafe {
        _mm512_loadu_ps(values.as_ptr())
    }
}

#[target_feature(enable = "avx512f")]
fn integers(values: &[i32]) -> __m512i {
    let Some(values) = values.first_chunk::<LANES>() else { return _mm512_setzero_si512() };
    #[expect(unsafe_code, reason = "the array is as long as the vector")]
    unsafe {
        _mm512_loadu_si512(values.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
fn store(values: __m512, target: &mut [f32]) {
    let Some(target) = target.first_chunk_mut::<LANES>() else { return };
    #[expect(unsafe_code, reason = "the array is as long as the vector")]
    unsafe {
        _mm512_storeu_ps(target.as_mut_ptr(), values);
    }
}
