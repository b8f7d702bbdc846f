//! Convolution with kernels of 3 x 3 by Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for
//! Convolutional Neural Networks", 2016, section 4): F(2 x 2, 3 x 3) takes 16 multiplications for each channel of four
//! outputs, instead of 36, and F(4 x 4, 3 x 3) takes 36 for each of sixteen, instead of 144.
//!
//! The picture is cut into tiles that overlap by two. Tiles and kernels are transformed by sums and differences; each
//! place of a tile is then a matrix product over the channels, and sums of these products are the outputs. The smaller
//! tiles lose next to nothing in f32; the larger ones lose six bits or seven, which those do not miss who asked for
//! weights of sixteen.
//!
//! Each core takes blocks of tiles, transforms them, and multiplies them with one part of the weight after the other.
//! Weights are kept as they are in their files, in whichever type. Where there are many tiles they are transformed
//! ahead, once for the call; where there are few, each core transforms what it needs into its cache, which is sooner
//! done than fetched from memory.
//!
//! A picture that is upsampled twice by repeating its pixels needs not be there: of neighbours in a tile, two and two
//! are then the same, one row and one column of the transformed tile are zero, and 7 of 16 products with them, or 11 of
//! 36.

mod block;
mod blocking;
mod kernel;
mod transforms;

use std::marker::PhantomData;

use super::{
    super::Padding,
    convolution::{Added, Geometry},
    lanes::MOST_LANES,
    shared::Shared,
    turns::in_turns,
    values::Weight,
    vectors::with_lanes,
};
use crate::pipeline::weights::Numbers;
use blocking::Layout;
use transforms::{Four, Transforms, Two};

/// What output channels are a multiple of: two of the widest vectors. Input channels are of one.
const CHANNELS: usize = 2 * MOST_LANES;
/// Tiles of each core with which a weight is transformed ahead, at least.
const MANY: usize = 256;
/// Numbers of a weight that is transformed ahead, at most: 64 MiB. Larger ones would be fetched for each block from the
/// slowest memory there is.
const MOST_AHEAD: usize = 1 << 24;

/// A convolution to calculate.
struct Problem<'a> {
    /// `(b, height, width, in)`, or half as high and wide if it is to be upsampled.
    x: &'a [f32],
    upsampled: bool,
    /// `(3, 3, in, out)`.
    weight: Numbers<'a>,
    added: Added<'a>,
    geometry: &'a Geometry,
}

impl Problem<'_> {
    /// Tiles of so many outputs below and beside each other in a picture.
    fn grid(&self, outputs: usize) -> (usize, usize) {
        (self.geometry.height.div_ceil(outputs), self.geometry.width.div_ceil(outputs))
    }

    /// Multiplications by tiles of so many outputs, of each picture and pair of channels.
    fn multiplications(&self, outputs: usize) -> usize {
        let ((rows, columns), tile) = (self.grid(outputs), outputs + transforms::KERNEL - 1);
        rows * columns * (tile - usize::from(self.upsampled)).pow(2)
    }

    /// Whether a place's products are anything but zero.
    fn counts(&self, row: usize, column: usize) -> bool {
        !self.upsampled || (row != transforms::OF_PAIRS && column != transforms::OF_PAIRS)
    }
}

/// Whether this way is open to a convolution.
pub(super) fn fits(geometry: &Geometry) -> bool {
    geometry.kernel == transforms::KERNEL
        && geometry.stride == 1
        && geometry.padding == Padding::same(1)
        && geometry.in_channels.is_multiple_of(MOST_LANES)
        && geometry.out_channels.is_multiple_of(CHANNELS)
}

/// Convolves each picture of a batch, or each one upsampled twice, to the size in `geometry`. The weight is
/// `(3, 3, in, out)`.
pub(super) fn convolve(
    x: &[f32],
    weight: &Weight<'_>,
    added: Added<'_>,
    geometry: &Geometry,
    upsampled: bool,
) -> Vec<f32> {
    assert!(fits(geometry), "a convolution of another kind");
    let Geometry { height, width, in_channels, .. } = *geometry;
    let pixels = height * width;
    let batch = if upsampled { 4 * x.len() / (pixels * in_channels) } else { x.len() / (pixels * in_channels) };
    let problem = Problem { x, upsampled, weight: weight.numbers(), added, geometry };
    if !weight.is_exact() && problem.multiplications(4) < problem.multiplications(2) {
        convolve_by::<Four, 6, 4>(&problem, batch)
    } else {
        convolve_by::<Two, 4, 2>(&problem, batch)
    }
}

fn convolve_by<F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize>(
    problem: &Problem<'_>,
    batch: usize,
) -> Vec<f32> {
    let Geometry { height, width, in_channels, out_channels, .. } = *problem.geometry;
    let pixels = height * width;
    let (rows, columns) = problem.grid(OUTPUTS);
    let tiles = batch * rows * columns;
    let threads = rayon::current_num_threads();
    let is_ahead = tiles >= MANY * threads && F::PLACES * in_channels * out_channels <= MOST_AHEAD;
    let blocking = if is_ahead { F::AHEAD } else { F::FOR_EACH_BLOCK };
    let layout = Layout::new(problem.geometry, blocking, F::PLACES);
    let ahead = is_ahead.then(|| kernel::ahead::<F, TILE, OUTPUTS>(problem, layout));
    // The same number of blocks for each core; where there are not enough, some of the columns of each.
    let (blocks, parts) = match tiles.div_ceil(blocking.tiles).max(1) {
        few if few < threads => (few, threads.div_ceil(few).min(out_channels / CHANNELS)),
        many => (many.next_multiple_of(threads), 1),
    };
    let (block, part) = (tiles.div_ceil(blocks), (out_channels / CHANNELS).div_ceil(parts) * CHANNELS);
    let mut y = Vec::new();
    let target = Shared::after(&mut y, batch * pixels, out_channels);
    in_turns(blocks * parts, block::Scratch::default, |scratch, number| {
        let (first, column) = (number / parts * block, number % parts * part);
        let tiles = first.min(tiles)..(first + block).min(tiles);
        let columns = column.min(out_channels)..(column + part).min(out_channels);
        let (transforms, ahead) = (PhantomData::<F>, ahead.as_deref());
        with_lanes(block::Block { transforms, problem, layout, ahead, tiles, columns, scratch, target });
    });
    // SAFETY: `Shared::after` has made room for so many. `blocks` times `block` are no fewer than the tiles, which
    // cover every pixel of every picture, and `parts` times `part` no fewer than the channels, a multiple of whole
    // vectors.
    #[expect(unsafe_code)]
    unsafe {
        y.set_len(batch * pixels * out_channels);
    }
    y
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    #[test]
    fn few_cores_with_the_weight_ahead_convolve_like_many_without() {
        // Tiles enough for one core, and too few for sixty-four.
        let geometry = Geometry {
            height: 64,
            width: 66,
            in_channels: 32,
            out_height: 64,
            out_width: 66,
            out_channels: 64,
            kernel: 3,
            stride: 1,
            padding: Padding::same(1),
        };
        let random = |count| {
            let numbers = Tensor::rand(-1.0_f32, 1.0, count, &Device::Cpu).expect("numbers");
            numbers.to_vec1::<f32>().expect("a vector")
        };
        let (x, bias) = (random(64 * 66 * 32), random(64));
        let weight = Tensor::new(random(9 * 32 * 64), &Device::Cpu).expect("a weight");
        for (precision, tolerance) in [(DType::F32, 1e-4), (DType::F16, 1e-2)] {
            let weight = Weight::of(&weight, precision).expect("f32 on the CPU");
            let [alone, together] = [1, 64].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| convolve(&x, &weight, Added { bias: &bias, residual: None }, &geometry, false))
            });
            for (place, (alone, together)) in alone.iter().zip(&together).enumerate() {
                assert!((alone - together).abs() < tolerance, "{precision:?} at {place}: {alone}, {together}");
            }
        }
    }
}
