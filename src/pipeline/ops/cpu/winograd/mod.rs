//! Convolution with kernels of 3 x 3 by Winograd's minimal filtering, F(2 x 2, 3 x 3): 16 multiplications for each channel
//! of four outputs, instead of 36 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.1).
//!
//! The picture is cut into tiles of 4 x 4 that overlap by two. Tiles and kernels are transformed by sums and differences; each
//! of the 16 places of a tile is then a matrix product over the channels, and sums of these products are the outputs. The
//! factors are 1 and 1/2, so that next to nothing is lost in f32.
//!
//! Each core takes blocks of tiles, transforms them, and multiplies them with one part of the weight after the other,
//! transformed into its cache. So weights take no more memory than they do in their files, in whichever type they are kept.
//!
//! A picture that is upsampled twice by repeating its pixels needs not be there: the third of four neighbours in a tile is then
//! the same as the second, their difference is zero, and 7 of the 16 products with it.

mod block;
mod kernel;
mod transforms;

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

/// Tiles of a block: enough that to transform the weight is a small part of the work (about a twentieth), and few enough
/// that a block's products stay in a core's cache.
const BLOCK: usize = 196;
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
    /// Tiles below and beside each other in a picture.
    fn grid(&self) -> (usize, usize) {
        (self.geometry.height.div_ceil(transforms::OUTPUTS), self.geometry.width.div_ceil(transforms::OUTPUTS))
    }

    /// Whether a place's products are anything but zero.
    fn counts(&self, row: usize, column: usize) -> bool {
        // Of an upsampled picture, the third row of a transformed tile is the difference of two rows that are the same.
        !self.upsampled || (row != 2 && column != 2)
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
    let Geometry { height, width, in_channels, out_channels, .. } = *geometry;
    let pixels = height * width;
    let batch = if upsampled { 4 * x.len() / (pixels * in_channels) } else { x.len() / (pixels * in_channels) };
    let problem = Problem { x, upsampled, weight: weight.numbers(), added, geometry };
    let (rows, columns) = problem.grid();
    let tiles = batch * rows * columns;
    let threads = rayon::current_num_threads();
    // The same number of blocks for each core; where there are not enough, some of the columns of each.
    let (blocks, parts) = match tiles.div_ceil(BLOCK).max(1) {
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
        with_lanes(block::Block { problem: &problem, tiles, columns, scratch, target });
    });
    #[expect(unsafe_code, reason = "the blocks and parts have written every channel of every pixel")]
    unsafe {
        y.set_len(batch * pixels * out_channels);
    }
    y
}
