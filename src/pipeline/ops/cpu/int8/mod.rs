//! Matrix products of eight-bit integers, of a quarter of f32's memory. AVX512-VNNI (`vnni`) makes four times as many a
//! second as in f32, AVX-VNNI (`avx_vnni`) twice as many as AVX2 alone (`pairs`), and that half as many again as in f32
//! or more.
//!
//! A weight's every output has a scale of its own, found when it is loaded; so has every row of what it is multiplied
//! with, found each time. Sums are exact, so that it makes no difference which instructions calculate them.

mod avx_vnni;
mod pairs;
mod vnni;

use std::ops::Range;

use rayon::prelude::*;

use super::{
    lanes::EIGHT,
    processor::{Level, most},
    shared::Shared,
    turns::in_turns,
    vectors::{has_avx2, has_avx512, vectorized},
};

/// Outputs that a weight is packed for together, as many as there are in two lines.
const COLUMNS: usize = 2 * LANES;
/// Outputs of a line.
const LANES: usize = 16;
/// Numbers of depth that lie together.
const QUAD: usize = 4;
/// Greatest magnitude of a number.
const MOST: f32 = 127.0;

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

/// What a weight is multiplied with: rows of numbers, in a multiple of [`Kernel::ROWS`].
struct Rows<T> {
    /// For each [`Kernel::ROWS`] rows their numbers in the kernel's order.
    numbers: Vec<T>,
    /// Numbers of a row, and of what follows them to a multiple of sixteen.
    stride: usize,
    /// What a number of each row stands for.
    scales: Vec<f32>,
    /// Those that were asked for.
    count: usize,
}

/// Some instructions to multiply with.
trait Kernel {
    /// What a row's numbers are kept in.
    type Number: Copy + Default + Send + Sync;
    /// Rows whose sums are in registers at once.
    const ROWS: usize;
    /// Bytes of rows that meet all of the weight before the next ones do.
    const RESIDENT: usize;

    /// The numbers of [`Kernel::ROWS`] rows of so many values, or of fewer, in the order in which they are multiplied,
    /// and what one of each row's stands for. They have been zeros.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[expect(unsafe_code, reason = "a trait's way to have an implementation that needs instructions")]
    unsafe fn quantize(x: &[f32], inputs: usize, numbers: &mut [Self::Number], scales: &mut [f32]);

    /// All rows of a range times a block of outputs: hands each [`Kernel::ROWS`] rows' results, as many as there are,
    /// to `write`, and the first one's number. `memory` is a core's own.
    ///
    /// # Safety
    /// As above.
    #[expect(unsafe_code, reason = "as above")]
    unsafe fn multiply(
        factors: &Factors<'_, Self::Number>,
        rows: Range<usize>,
        block: usize,
        memory: &mut Vec<i16>,
        write: impl Fn(usize, &[[f32; COLUMNS]]),
    );
}

/// What a kernel multiplies.
struct Factors<'a, T> {
    rows: &'a Rows<T>,
    weight: &'a Weight,
    /// As long as the weight's scales.
    bias: &'a [f32],
}

/// Whether this processor has instructions for it.
pub(super) fn available() -> bool {
    has_avx2()
}

fn has_vnni() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512vnni")
}

fn has_avx_vnni() -> bool {
    has_avx2() && most() >= Level::AvxVnni && is_x86_feature_detected!("avxvnni")
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
                let mut numbers = vec![0; inputs];
                scales[column] = vectorized(|| {
                    let (scale, inverse) = scale_of(&row);
                    numbers.iter_mut().zip(&row).for_each(|(number, x)| *number = nearest(x * inverse));
                    scale
                });
                offsets[column] = 128 * numbers.iter().map(|number| i32::from(*number)).sum::<i32>();
                let lines = lines.iter_mut().skip(column / LANES).step_by(2);
                for (four, line) in numbers.chunks(QUAD).zip(lines) {
                    line.0[column % LANES * QUAD..][..four.len()].copy_from_slice(four);
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
        // SAFETY: the processor has the instructions of each kernel where this asks for it, and of the last by the
        // assert.
        #[expect(unsafe_code)]
        unsafe {
            if has_vnni() {
                self.multiply_by::<vnni::Vnni>(x, bias)
            } else if has_avx_vnni() {
                self.multiply_by::<avx_vnni::AvxVnni>(x, bias)
            } else {
                self.multiply_by::<pairs::Pairs>(x, bias)
            }
        }
    }

    /// # Safety
    /// The processor has the kernel's instructions.
    #[expect(unsafe_code, reason = "hands on what its caller has made sure of")]
    unsafe fn multiply_by<K: Kernel>(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        // SAFETY: the caller says that the processor has the kernel's instructions.
        let rows = unsafe { Rows::of::<K>(x, self.inputs) };
        let mut padded_bias = vec![0.0; self.scales.len()];
        if let Some(bias) = bias {
            padded_bias[..self.outputs].copy_from_slice(bias);
        }
        let factors = Factors { rows: &rows, weight: self, bias: &padded_bias };
        // Pieces of the result: some rows and all columns, or, where that makes no multiple of as many pieces as there
        // are cores, some of the columns.
        let (threads, blocks) = (rayon::current_num_threads(), self.scales.len() / COLUMNS);
        let resident = (K::RESIDENT / (rows.stride * size_of::<K::Number>())).max(K::ROWS);
        let row_parts = rows.count.div_ceil(resident).max(1);
        let column_parts = if row_parts.is_multiple_of(threads) { 1 } else { threads.min(blocks) };
        let part = rows.count.div_ceil(row_parts).next_multiple_of(K::ROWS);
        let mut y = Vec::new();
        let target = Shared::after(&mut y, rows.count, self.outputs);
        // Each writes its own.
        in_turns(row_parts * column_parts, Vec::new, |memory, number| {
            let first = number / column_parts * part;
            let some = first.min(rows.count)..(first + part).min(rows.count);
            let column = number % column_parts;
            for block in column * blocks / column_parts..(column + 1) * blocks / column_parts {
                let columns = block * COLUMNS..((block + 1) * COLUMNS).min(self.outputs);
                let write = |first: usize, results: &[[f32; COLUMNS]]| {
                    for (number, results) in results.iter().enumerate() {
                        let row = first + number;
                        // SAFETY: `y` is there until all pieces are done, and these columns of this row are this
                        // piece's alone.
                        unsafe {
                            if columns.len() == COLUMNS {
                                target.write(row, columns.start, *results);
                            } else {
                                target.copy(row, columns.start, &results[..columns.len()]);
                            }
                        }
                    }
                };
                // SAFETY: the caller says that the processor has the kernel's instructions.
                unsafe { K::multiply(&factors, some.clone(), block, memory, write) };
            }
        });
        // SAFETY: `Shared::after` has made room for so many. The pieces have all rows and all blocks of columns between
        // them, and a kernel hands over every row of each.
        unsafe {
            y.set_len(rows.count * self.outputs);
        }
        y
    }
}

impl<T: Copy + Default + Send + Sync> Rows<T> {
    /// # Safety
    /// The processor has the kernel's instructions.
    #[expect(unsafe_code, reason = "hands on what its caller has made sure of")]
    unsafe fn of<K: Kernel<Number = T>>(x: &[f32], inputs: usize) -> Self {
        let (count, stride) = (x.len() / inputs, inputs.next_multiple_of(LANES));
        let padded = count.next_multiple_of(K::ROWS);
        let (mut numbers, mut scales) = (vec![T::default(); padded * stride], vec![0.0; padded]);
        let groups = numbers.par_chunks_mut(K::ROWS * stride).zip(scales.par_chunks_mut(K::ROWS));
        let groups = groups.zip(x.par_chunks(K::ROWS * inputs)).with_min_len(2);
        // SAFETY: the caller says that the processor has the kernel's instructions.
        groups.for_each(|((numbers, scales), x)| unsafe { K::quantize(x, inputs, numbers, scales) });
        Self { numbers, stride, scales, count }
    }
}

/// What one of a row's numbers stands for, and by what its values are multiplied to become such numbers.
#[inline(always)]
fn scale_of(x: &[f32]) -> (f32, f32) {
    // Without their signs, values are in the order of their bits.
    let bits = |x: &f32| x.to_bits() & !(1 << 31);
    let (lanes, rest) = x.as_chunks::<LANES>();
    let mut most = [0; LANES];
    for lane in lanes {
        for (most, x) in most.iter_mut().zip(lane) {
            *most = bits(x).max(*most);
        }
    }
    let largest = f32::from_bits(most.into_iter().chain(rest.iter().map(bits)).fold(0, u32::max));
    // A row with a number that is not one has no scale either, and makes none of its results one.
    (if largest.is_finite() { largest / MOST } else { f32::NAN }, inverse_of(largest))
}

/// Rows' numbers, of each as many as there is room for, and what one of them stands for. VNNI's instructions take
/// unsigned numbers from the left, so 128 is added to them, and what that adds to a sum, [`Weight::offsets`], is taken
/// off again.
fn quantize_raised(x: &[f32], inputs: usize, numbers: &mut [u8], scales: &mut [f32]) {
    let stride = numbers.len() / scales.len();
    vectorized(|| {
        for ((x, numbers), scale) in x.chunks_exact(inputs).zip(numbers.chunks_exact_mut(stride)).zip(scales) {
            let (of_one, inverse) = scale_of(x);
            numbers.iter_mut().zip(x).for_each(|(number, x)| *number = nearest(x * inverse).cast_unsigned() ^ 128);
            *scale = of_one;
        }
    });
}

/// What is nearest to a small number of whole ones, of two the even one. Of what is not a number it makes any: that its
/// row is none, its scale says.
#[inline(always)]
fn nearest(x: f32) -> i8 {
    /// Adding it leaves that number in an f32's last bits.
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND).to_bits() as i8
}

/// By what values of which this is the largest become numbers. What is too small for it becomes zero.
fn inverse_of(largest: f32) -> f32 {
    let inverse = MOST / largest;
    if inverse.is_finite() { inverse } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `row` and `weight` have in common, as the kernels are meant to find it.
    fn plainly(weight: &Weight, x: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        for x in x.chunks(weight.inputs) {
            let (scale, inverse) = scale_of(x);
            for (output, bias) in bias.iter().enumerate() {
                let number = |depth: usize| {
                    let line = (output / COLUMNS * weight.inputs.div_ceil(QUAD) + depth / QUAD) * 2;
                    let line = weight.lines[line + output % COLUMNS / LANES];
                    i32::from(line.0[output % LANES * QUAD + depth % QUAD])
                };
                let terms =
                    x.iter().enumerate().map(|(depth, x)| (x * inverse).round_ties_even() as i32 * number(depth));
                y.push(terms.sum::<i32>() as f32 * (weight.scales[output] * scale) + bias);
            }
        }
        y
    }

    #[test]
    fn all_instructions_make_the_same_of_the_same_numbers_on_any_number_of_cores() {
        if !available() {
            return;
        }
        let number = |seed: usize| ((seed * 7919 + seed / 7 * 104_729) % 2003) as f32 / 500.0 - 2.0;
        // The last has rows for several parts.
        for (rows, inputs, outputs) in [(0, 5, 3), (1, 1, 1), (7, 33, 50), (61, 640, 100), (1100, 1040, 33)] {
            let row = |row: usize| (0..inputs).map(|place| number(row * inputs + place)).collect();
            let weight = Weight::new(inputs, outputs, row);
            let mut x: Vec<f32> = (0..rows * inputs).map(|place| number(place + 17)).collect();
            // Of nothing, and of what is too small for a scale.
            x.iter_mut().take(inputs).for_each(|x| *x = 0.0);
            x.iter_mut().skip(inputs).take(inputs).for_each(|x| *x *= 1e-39);
            let bias: Vec<f32> = (0..outputs).map(number).collect();
            let expected = plainly(&weight, &x, &bias);
            for threads in [1, 2, 3, 5, 64] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let name = format!("{rows} rows, {inputs} to {outputs}, {threads} threads");
                // SAFETY: the processor has AVX2, and of the other kernels' instructions those that it is asked for.
                #[expect(unsafe_code)]
                pool.install(|| unsafe {
                    assert_eq!(weight.multiply_by::<pairs::Pairs>(&x, Some(&bias)), expected, "{name}, AVX2");
                    if has_avx_vnni() {
                        let found = weight.multiply_by::<avx_vnni::AvxVnni>(&x, Some(&bias));
                        assert_eq!(found, expected, "{name}, AVX-VNNI");
                    }
                    if has_vnni() {
                        assert_eq!(weight.multiply_by::<vnni::Vnni>(&x, Some(&bias)), expected, "{name}, AVX512-VNNI");
                    }
                });
            }
        }
    }
}
