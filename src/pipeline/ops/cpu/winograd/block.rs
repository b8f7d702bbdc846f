//! One core's share: some tiles of the input to some channels of the output.

use std::{marker::PhantomData, ops::Range};

use pulp::{Simd, WithSimd};

use super::{
    super::{
        convolution::Geometry,
        lanes::{self, Place, Rows, load, store},
        shared::{Shared, Start},
    },
    Problem,
    blocking::{Layout, apart},
    kernel,
    transforms::Transforms,
};

/// Memory that a core uses again and again.
#[derive(Default)]
pub(super) struct Scratch {
    /// `(places, parts of the inputs, tiles, inputs)`, places [`apart`]: what a product takes of it lies together.
    input: Vec<f32>,
    /// A piece of the transformed weight, where none was transformed ahead.
    kernel: Vec<f32>,
    /// `(places, tiles, outputs)`, an odd number of rows for each place.
    products: Vec<f32>,
    /// Pixels outside of the picture.
    zeros: Vec<f32>,
}

/// What [`Block::with_simd`] calculates, by which transforms.
pub(super) struct Block<'a, F, const TILE: usize, const OUTPUTS: usize> {
    pub(super) transforms: PhantomData<F>,
    pub(super) problem: &'a Problem<'a>,
    pub(super) layout: Layout,
    /// All of the weight, if it was transformed ahead.
    pub(super) ahead: Option<&'a [f32]>,
    /// Tiles, counted row by row and picture by picture.
    pub(super) tiles: Range<usize>,
    /// Output channels; all of them, if the weight was transformed ahead.
    pub(super) columns: Range<usize>,
    pub(super) scratch: &'a mut Scratch,
    /// All of the output, of which these channels of these tiles are nobody else's.
    pub(super) target: Shared,
}

impl<F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize> WithSimd for Block<'_, F, TILE, OUTPUTS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { problem, layout, ahead, tiles, columns, scratch, target, .. } = self;
        if tiles.is_empty() || columns.is_empty() {
            return;
        }
        let tiles = Tiles { transforms: PhantomData::<F>, problem, layout, range: tiles };
        tiles.transform(simd, scratch);
        let Scratch { input, kernel, products, .. } = scratch;
        kernel.resize(if ahead.is_none() { layout.piece() } else { 0 }, 0.0);
        for (group, first) in columns.clone().step_by(layout.outputs).enumerate() {
            let columns = first..(first + layout.outputs).min(columns.end);
            for part in 0..layout.parts {
                let kernel = match ahead {
                    Some(ahead) => &ahead[(group * layout.parts + part) * layout.piece()..][..layout.piece()],
                    None => {
                        let channels = (layout.inputs_of(part), columns.clone());
                        kernel::transform::<S, F, TILE, OUTPUTS>(simd, problem, layout, channels, kernel);
                        &kernel[..]
                    }
                };
                tiles.multiply(simd, part, columns.len(), input, kernel, products);
            }
            tiles.write(simd, columns, products, target);
        }
    }
}

/// Some tiles, and how their channels are divided.
struct Tiles<'a, F, const TILE: usize, const OUTPUTS: usize> {
    transforms: PhantomData<F>,
    problem: &'a Problem<'a>,
    layout: Layout,
    range: Range<usize>,
}

impl<F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize> Tiles<'_, F, TILE, OUTPUTS> {
    /// Row and column of a tile's first output, the row counted through all pictures, and where its picture begins and
    /// ends.
    fn position(&self, tile: usize) -> (usize, usize, Range<usize>) {
        let (rows, columns) = self.problem.grid(OUTPUTS);
        let (picture, tile) = (tile / (rows * columns), tile % (rows * columns));
        let start = picture * self.problem.geometry.height;
        (start + OUTPUTS * (tile / columns), OUTPUTS * (tile % columns), start..start + self.problem.geometry.height)
    }

    /// The pixels that a tile sees; outside of the picture, `zeros`.
    fn pixels<'b>(&'b self, tile: usize, zeros: &'b [f32]) -> [[&'b [f32]; TILE]; TILE] {
        let Problem { x, upsampled, geometry: &Geometry { width, in_channels, .. }, .. } = *self.problem;
        let (first_row, first_column, rows) = self.position(tile);
        // One before the first output.
        let (rows, columns) = (rows.start + 1..rows.end + 1, 1..width + 1);
        let shift = u32::from(upsampled);
        std::array::from_fn(|i| {
            std::array::from_fn(|j| {
                let (row, column) = (first_row + i, first_column + j);
                if !rows.contains(&row) || !columns.contains(&column) {
                    return zeros;
                }
                let pixel = ((row - 1) >> shift) * (width >> shift) + ((column - 1) >> shift);
                &x[pixel * in_channels..][..in_channels]
            })
        })
    }

    /// Where a tile's numbers of one place and one part are.
    fn offset(&self, place: usize, part: usize, tile: usize) -> usize {
        let Layout { parts, inputs, .. } = self.layout;
        place * apart(parts * self.range.len() * inputs) + (part * self.range.len() + tile) * inputs
    }

    /// Rows of products from one place to the next: an odd number, for the reason of [`apart`].
    fn rows_apart(&self) -> usize {
        self.range.len() | 1
    }

    #[inline(always)]
    fn transform<S: Simd>(&self, simd: S, Scratch { input, zeros, .. }: &mut Scratch) {
        let channels = self.problem.geometry.in_channels;
        input.resize(self.offset(F::PLACES, 0, 0), 0.0);
        zeros.resize(channels, 0.0);
        for tile in 0..self.range.len() {
            let pixels = self.pixels(self.range.start + tile, zeros);
            for part in 0..self.layout.parts {
                let inputs = self.layout.inputs_of(part);
                let first = inputs.start;
                for channel in inputs.step_by(S::F32_LANES) {
                    let mut numbers = [[simd.splat_f32s(0.0); TILE]; TILE];
                    for (number, pixel) in numbers.as_flattened_mut().iter_mut().zip(pixels.as_flattened()) {
                        *number = load::<S>(pixel, channel);
                    }
                    for (i, row) in F::input(simd, numbers).into_iter().enumerate() {
                        for (j, value) in row.into_iter().enumerate() {
                            if self.problem.counts(i, j) {
                                store::<S>(input, self.offset(TILE * i + j, part, tile) + channel - first, value);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Adds one part's products, with a piece of the transformed weight, to those of the parts before.
    #[inline(always)]
    fn multiply<S: Simd>(
        &self,
        simd: S,
        part: usize,
        columns: usize,
        input: &[f32],
        kernel: &[f32],
        products: &mut Vec<f32>,
    ) {
        let (panel, depth) = (lanes::columns::<S>(), self.layout.inputs_of(part).len());
        let tiles = self.range.len();
        let rows = self.rows_apart();
        products.resize(F::PLACES * rows * self.layout.outputs, 0.0);
        let matrix = Shared::of(products, self.layout.outputs);
        for place in (0..F::PLACES).filter(|place| self.problem.counts(place / TILE, place % TILE)) {
            let kernel = &kernel[place * self.layout.place()..][..depth * columns];
            // A few tiles meet all columns while they are in the first cache.
            for first in (0..tiles).step_by(lanes::rows::<S>()) {
                let count = lanes::rows::<S>().min(tiles - first);
                let left = Rows { values: &input[self.offset(place, part, first)..], stride: self.layout.inputs };
                let start = if part > 0 { Start::Target } else { Start::Zero };
                for (number, right) in kernel.chunks_exact(depth * panel).enumerate() {
                    let target = Place { matrix, row: place * rows + first, column: number * panel };
                    // SAFETY: the products are borrowed, and touched by nobody else until this returns. All are numbers
                    // from the beginning.
                    #[expect(unsafe_code)]
                    unsafe {
                        lanes::multiply(simd, count, left, right, start, target);
                    }
                }
            }
        }
    }

    /// The products' sums with what is added to them, to where they belong.
    #[inline(always)]
    fn write<S: Simd>(&self, simd: S, columns: Range<usize>, products: &[f32], target: Shared) {
        let tiles = self.range.len();
        for tile in 0..tiles {
            let (first_row, first_column, rows) = self.position(self.range.start + tile);
            for column in (0..columns.len()).step_by(S::F32_LANES) {
                let mut sums = [[simd.splat_f32s(0.0); TILE]; TILE];
                for (place, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                    if self.problem.counts(place / TILE, place % TILE) {
                        *sum = load::<S>(products, (place * self.rows_apart() + tile) * self.layout.outputs + column);
                    }
                }
                let bias = load::<S>(self.problem.added.bias, columns.start + column);
                for (i, outputs) in F::output(simd, sums).into_iter().enumerate() {
                    for (j, output) in outputs.into_iter().enumerate() {
                        let (row, pixel) = (first_row + i, first_column + j);
                        // A tile may reach over the edge.
                        if row < rows.end && pixel < self.problem.geometry.width {
                            let (pixel, channel) = (row * self.problem.geometry.width + pixel, columns.start + column);
                            let mut sum = simd.add_f32s(output, bias);
                            if let Some(residual) = self.problem.added.residual {
                                let residual = load::<S>(residual, pixel * target.row_stride + channel);
                                sum = simd.add_f32s(sum, residual);
                            }
                            // SAFETY: whoever made the target keeps it until all blocks are done, and these channels of
                            // this pixel are this block's alone: tiles' outputs do not overlap.
                            #[expect(unsafe_code)]
                            unsafe {
                                target.write(pixel, channel, sum);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{slice::HalfFloatSliceExt, vec::HalfFloatVecExt};
    use pulp::Scalar;

    use super::{
        super::{
            super::convolution::Added,
            blocking::Blocking,
            transforms::{Four, KERNEL, Two},
        },
        *,
    };
    use crate::pipeline::{ops::Padding, weights::Numbers};

    const SIZE: (usize, usize) = (5, 6);
    const INPUTS: usize = 80;
    const CHANNELS: usize = 96;
    /// Two parts of the inputs, and two groups of the outputs, the second of either smaller than the first.
    const BLOCKING: Blocking = Blocking { tiles: 0, outputs: 64, inputs: 64 };

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|number| ((number * 7919 + seed * 104_729) % 1000) as f32 / 500.0 - 1.0).collect()
    }

    fn convolved<S, F, const TILE: usize, const OUTPUTS: usize>(
        simd: S,
        problem: &Problem<'_>,
        is_ahead: bool,
    ) -> Vec<f32>
    where
        S: Simd,
        F: Transforms<TILE, OUTPUTS>,
    {
        let (rows, columns) = problem.grid(OUTPUTS);
        let mut y = vec![0.0; SIZE.0 * SIZE.1 * CHANNELS];
        let target = Shared::of(&mut y, CHANNELS);
        let (tiles, scratch) = (0..rows * columns, &mut Scratch::default());
        let (transforms, layout) = (PhantomData::<F>, Layout::new(problem.geometry, BLOCKING, F::PLACES));
        let mut ahead = vec![f32::NAN; if is_ahead { layout.pieces() * layout.piece() } else { 0 }];
        for (number, kernel) in ahead.chunks_exact_mut(layout.piece()).enumerate() {
            kernel::Piece { transforms, problem, layout, number, kernel }.with_simd(simd);
        }
        let ahead = is_ahead.then_some(&ahead[..]);
        Block { transforms, problem, layout, ahead, tiles, columns: 0..CHANNELS, scratch, target }.with_simd(simd);
        y
    }

    /// By vectors of every width, with weights transformed by the block and ahead.
    fn all_convolved<F, const TILE: usize, const OUTPUTS: usize>(problem: &Problem<'_>) -> Vec<(&'static str, Vec<f32>)>
    where
        F: Transforms<TILE, OUTPUTS>,
    {
        let mut found = Vec::new();
        for is_ahead in [false, true] {
            found.push(("scalar", convolved::<_, F, TILE, OUTPUTS>(Scalar, problem, is_ahead)));
            #[cfg(target_arch = "x86_64")]
            {
                let by_avx2 = |simd| ("AVX2", convolved::<_, F, TILE, OUTPUTS>(simd, problem, is_ahead));
                found.extend(pulp::x86::V3::try_new().map(by_avx2));
                let by_avx512 = |simd| ("AVX-512", convolved::<_, F, TILE, OUTPUTS>(simd, problem, is_ahead));
                found.extend(pulp::x86::V4::try_new().map(by_avx512));
            }
        }
        found
    }

    /// As the definition of a convolution has it, in f64.
    fn plainly(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        for place in 0..SIZE.0 * SIZE.1 * CHANNELS {
            let (row, column, output) = (place / CHANNELS / SIZE.1, place / CHANNELS % SIZE.1, place % CHANNELS);
            let mut sum = f64::from(bias[output]);
            for tap in 0..KERNEL * KERNEL {
                let (row, column) = ((row + tap / KERNEL).wrapping_sub(1), (column + tap % KERNEL).wrapping_sub(1));
                if row < SIZE.0 && column < SIZE.1 {
                    let pixel = &x[(row * SIZE.1 + column) * INPUTS..][..INPUTS];
                    let kernel = weight[tap * INPUTS * CHANNELS + output..].iter().step_by(CHANNELS);
                    sum += pixel.iter().zip(kernel).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>();
                }
            }
            y.push(sum as f32);
        }
        y
    }

    #[test]
    fn tiles_and_vectors_of_every_width_convolve_alike() {
        let (x, bias) = (numbers(SIZE.0 * SIZE.1 * INPUTS, 1), numbers(CHANNELS, 3));
        let residual = numbers(SIZE.0 * SIZE.1 * CHANNELS, 4);
        let numbers = numbers(KERNEL * KERNEL * INPUTS * CHANNELS, 2);
        let (f16s, bf16s) = (Vec::from_f32_slice(&numbers), Vec::from_f32_slice(&numbers));
        for weight in [Numbers::F32(&numbers), Numbers::F16(&f16s), Numbers::BF16(&bf16s)] {
            let problem = Problem {
                x: &x,
                upsampled: false,
                weight,
                added: Added { bias: &bias, residual: Some(&residual) },
                geometry: &Geometry {
                    height: SIZE.0,
                    width: SIZE.1,
                    in_channels: INPUTS,
                    out_height: SIZE.0,
                    out_width: SIZE.1,
                    out_channels: CHANNELS,
                    kernel: KERNEL,
                    stride: 1,
                    padding: Padding::same(1),
                },
            };
            let (kept, numbers) = match weight {
                Numbers::F32(numbers) => ("f32", numbers.to_vec()),
                Numbers::F16(numbers) => ("f16", numbers.to_f32_vec()),
                Numbers::BF16(numbers) => ("bf16", numbers.to_f32_vec()),
            };
            let mut expected = plainly(&x, &numbers, &bias);
            expected.iter_mut().zip(&residual).for_each(|(sum, residual)| *sum += residual);
            let largest = expected.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
            let ways = [
                ("2 x 2", all_convolved::<Two, 4, 2>(&problem), 20),
                ("4 x 4", all_convolved::<Four, 6, 4>(&problem), 16),
            ];
            for (way, found, bits) in ways {
                let tolerance = largest / (1 << bits) as f32;
                for (vectors, found) in found {
                    for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        let off = (found - expected).abs();
                        assert!(off < tolerance, "{way}, {vectors}, {kept}, at {place}: {found} for {expected}");
                    }
                }
            }
        }
    }
}
