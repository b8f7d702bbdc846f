//! Convolution with kernels of 3 x 3 by Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2016, section 4): F(2 x 2, 3 x 3) takes 16 multiplications for each channel of four outputs, instead of 36, and
//! F(4 x 4, 3 x 3) takes 36 for each of sixteen, instead of 144.
//!
//! The picture is cut into tiles that overlap by two. Tiles and kernels are transformed by sums and differences; each place of a
//! tile is then a matrix product over the channels, and sums of these products are the outputs. The smaller tiles lose next to
//! nothing in f32; the larger ones lose six bits or seven, which those do not miss who asked for weights of sixteen.
//!
//! Each core takes blocks of tiles, transforms them, and multiplies them with one part of the weight after the other,
//! transformed into its cache. So weights take no more memory than they do in their files, in whichever type they are kept.
//!
//! A picture that is upsampled twice by repeating its pixels needs not be there: of neighbours in a tile, two and two are then
//! the same, one row and one column of the transformed tile are zero, and 7 of 16 products with them, or 11 of 36.

mod block;
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
use transforms::{Four, Transforms, Two};

/// What output channels are a multiple of: two of the widest vectors. Input channels are of one.
const CHANNELS: usize = 2 * MOST_LANES;

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
    let Geometry { height, width, out_channels, .. } = *problem.geometry;
    let pixels = height * width;
    let (rows, columns) = problem.grid(OUTPUTS);
    let tiles = batch * rows * columns;
    let threads = rayon::current_num_threads();
    // The same number of blocks for each core; where there are not enough, some of the columns of each.
    let (blocks, parts) = match tiles.div_ceil(F::BLOCK).max(1) {
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
        with_lanes(block::Block { transforms: PhantomData::<F>, problem, tiles, columns, scratch, target });
    });
    #[expect(unsafe_code, reason = "the blocks and parts have written every channel of every pixel")]
    unsafe {
        y.set_len(batch * pixels * out_channels);
    }
    y
}
