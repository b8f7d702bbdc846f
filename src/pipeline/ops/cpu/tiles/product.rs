//! Whole products: blocks of columns are packed, and all rows multiplied with them while they are in the cache.

use std::ops::Range;

use rayon::prelude::*;

use super::{
    super::{
        number::Number,
        shared::{Shared, Start},
    },
    Precision, STEP, TILE, Units,
    kernel::{Call, Tiles, multiply_bf16, multiply_exact, multiply_split},
    panel::{COLUMNS, Depth, Panel, Right},
    pieces::Pieces,
    units, vectors,
};

/// Pieces in a panel at most: 1.3 MB, which with the rows that pass by fits into the two megabytes of a core's second
/// cache.
const PANEL: usize = 2 * 1280 * WIDTH;
/// Columns of a panel at most.
const WIDTH: usize = 256;

/// Tiles of rows that take longer than to pack a panel.
const MANY_ROWS: usize = 256;

/// Up to sixteen rows of a product.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct RowTile {
    /// Where the first one begins in the left operand.
    pub(in super::super) left: usize,
    /// Which row of the target it is.
    pub(in super::super) target: usize,
    /// How many there are.
    pub(in super::super) rows: usize,
}

/// Tiles of so many rows, one after another in both operands.
pub(in super::super) fn row_tiles(count: usize, row_stride: usize) -> Vec<RowTile> {
    let tile = |first| RowTile { left: first * row_stride, target: first, rows: TILE.min(count - first) };
    (0..count).step_by(TILE).map(tile).collect()
}

/// How the depth lies in the left operand.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Segments {
    /// Parts of equal length, each of which is contiguous.
    pub(in super::super) count: usize,
    /// Numbers from the beginning of one to that of the next.
    pub(in super::super) stride: usize,
}

/// A product to calculate on all cores.
pub(in super::super) struct Product<'a, T> {
    pub(in super::super) left: &'a Pieces,
    pub(in super::super) rows: &'a [RowTile],
    pub(in super::super) segments: Segments,
    pub(in super::super) right: Right<'a, T>,
    pub(in super::super) start: Start<'a>,
}

impl<T: Number> Product<'_, T> {
    /// Appends the product's rows to `target`.
    pub(in super::super) fn append_to(&self, target: &mut Vec<f32>) {
        let mut count = 0;
        for row in self.rows {
            assert!(row.target == count, "rows of a product are to follow each other");
            count += row.rows;
        }
        assert!(!matches!(self.start, Start::Target), "there is nothing yet to start with");
        let columns = self.right.columns;
        self.write(Shared::after(target, count, columns));
        // SAFETY: `Shared::after` has made room for so many. The rows are 0..count, each in one tile; every panel's
        // part has all tiles between them, every column is in one panel, and each part is written from its first
        // segment on, which does not read the target.
        #[expect(unsafe_code)]
        unsafe {
            target.set_len(target.len() + count * columns);
        }
    }

    fn write(&self, target: Shared) {
        let columns = self.right.columns;
        let threads = rayon::current_num_threads();
        // As many panels as make equal work for all threads, or, where there are few columns, parts of the rows too. A
        // few columns of many rows are one panel, so that the rows, which are the larger operand, are read once.
        let panels = match columns.div_ceil(WIDTH) {
            1 if self.rows.len() >= MANY_ROWS => 1,
            panels => panels.next_multiple_of(threads).min(columns.div_ceil(COLUMNS)),
        };
        let width = columns.div_ceil(panels).next_multiple_of(COLUMNS);
        let panels = columns.div_ceil(width);
        let parts = if panels.is_multiple_of(threads) { 1 } else { threads };
        let part = self.rows.len().div_ceil(parts).next_multiple_of(2);
        (0..panels * parts).into_par_iter().for_each_init(
            || Panel::new(self.left.precision()),
            |panel, number| {
                let first = number / parts * width;
                let rows = self.rows.chunks(part).nth(number % parts).unwrap_or(&[]);
                self.write_panel(panel, rows, first..(first + width).min(columns), target);
            },
        );
    }

    fn write_panel(&self, panel: &mut Panel, rows: &[RowTile], columns: Range<usize>, target: Shared) {
        if rows.is_empty() {
            return;
        }
        let Segments { count, stride } = self.segments;
        let len = self.right.depth / count;
        let most = PANEL / panel.precision().pieces() / columns.len().next_multiple_of(COLUMNS);
        if count * len.next_multiple_of(STEP) <= most {
            // All of the depth at once: the sums stay in the tiles from the first number to the last.
            panel.pack(&self.right, Depth { start: 0, len, segments: count }, columns);
            return accumulate_shared(self.left, rows, (0, stride), panel, self.start, target);
        }
        let mut start = self.start;
        for segment in 0..count {
            for part in parts_of(len, most) {
                let left = segment * stride + part.start;
                let depth = segment * len + part.start..segment * len + part.end;
                panel.pack(&self.right, Depth::whole(depth), columns.clone());
                accumulate_shared(self.left, rows, (left, 0), panel, start, target);
                start = Start::Target;
            }
        }
    }
}

/// A segment's depth in parts of about the same length, none longer than `most`.
fn parts_of(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let part = len.div_ceil(len.div_ceil(most)).next_multiple_of(STEP);
    (0..len).step_by(part).map(move |first| first..(first + part).min(len))
}

/// Multiplies rows, from `left` numbers after their beginning, with a panel, in this thread. Rows of the target are as
/// long as `row_stride`.
pub(in super::super) fn accumulate(
    pieces: &Pieces,
    rows: &[RowTile],
    left: usize,
    panel: &Panel,
    start: Start<'_>,
    (target, row_stride): (&mut [f32], usize),
) {
    let target = Shared { values: target.as_mut_ptr(), len: target.len(), row_stride };
    accumulate_shared(pieces, rows, (left, 0), panel, start, target);
}

/// The panel's segments meet numbers of the left operand that are `stride` apart.
fn accumulate_shared(
    pieces: &Pieces,
    rows: &[RowTile],
    (left, stride): (usize, usize),
    panel: &Panel,
    start: Start<'_>,
    target: Shared,
) {
    assert!(pieces.precision() == panel.precision(), "operands of different precision");
    assert!(panel.depth.len > 0 && panel.depth.segments > 0, "a product without depth");
    let last = left + (panel.depth.segments - 1) * stride;
    for row in rows {
        assert!(
            (1..=TILE).contains(&row.rows)
                && pieces.holds(row.left + last, row.rows, panel.depth.len)
                && (row.target + row.rows - 1) * target.row_stride + panel.columns.end <= target.len
                && panel.columns.end <= target.row_stride,
            "a matrix is smaller than its product needs"
        );
    }
    let tiles = (units() == Some(Units::Tiles)).then(Tiles::configure);
    assert!(tiles.is_some() || super::pay(panel.precision()), "vectors take single pieces only");
    for pair in rows.chunks(2) {
        for number in 0..panel.columns.len().div_ceil(COLUMNS) {
            // SAFETY: the asserts above are what it demands of the operands. The target is there, and these rows of
            // these columns are this thread's: `accumulate` has borrowed all of it, and of `write`'s parts no two have
            // a number in common.
            #[expect(unsafe_code)]
            unsafe {
                multiply_block(tiles.as_ref(), pieces, (pair, left, stride), (panel, number), start, target);
            }
        }
    }
}

/// One or two tiles of rows times one block of columns.
///
/// # Safety
/// The panel has depth, and columns of this number. Of each row tile, `pieces` hold sixteen rows of the panel's depth
/// in every segment ([`Pieces::holds`]), and `target` its rows up to the panel's last column, which nobody else touches
/// meanwhile and which have been written to if the sums begin with them. Without tiles, the processor multiplies bf16
/// numbers in vectors, and the precision is that of single pieces.
#[expect(unsafe_code, reason = "the innermost loop takes pointers")]
unsafe fn multiply_block(
    tiles: Option<&Tiles>,
    pieces: &Pieces,
    (pair, left, stride): (&[RowTile], usize, usize),
    (panel, number): (&Panel, usize),
    start: Start<'_>,
    target: Shared,
) {
    const ZEROS: &[f32; COLUMNS] = &[0.0; COLUMNS];
    let column = panel.columns.start + number * COLUMNS;
    let width = COLUMNS.min(panel.columns.end - column);
    let (first, second) = (pair[0], pair[pair.len() - 1]);
    // SAFETY: the row's number at `column`, which is less than the panel's last column, is within the target.
    let place = |row: RowTile| unsafe { target.values.add(row.target * target.row_stride + column) };
    let (upper_left, lower_left) = (pieces.from(first.left + left), pieces.from(second.left + left));
    let steps = panel.depth.steps();
    let mut call = Call {
        left: std::array::from_fn(|piece| [upper_left[piece], lower_left[piece]]),
        left_stride: pieces.row_stride() * size_of::<u16>(),
        left_skip: (stride as isize - (steps * STEP) as isize) * size_of::<u16>() as isize,
        right: panel.block(number),
        steps,
        segments: panel.depth.segments,
        start: [ZEROS.as_ptr(); 2],
        start_stride: 0,
        sums: [place(first), place(second)],
        sums_stride: target.row_stride * size_of::<f32>(),
    };
    // SAFETY: the call's `steps` and `segments` are at least 1. Its left rows are the sixteen of each tile that
    // `pieces` hold, its right tiles all of the panel's block, whose steps and pieces are as many. What it begins with
    // and writes to are, as set below, 32 rows of 32 numbers of the target or of `block`, or rows of 32 zeros or of the
    // bias. Tiles are configured where they are given, and where not, the processor has the vectors' instructions.
    let multiply = |call: &mut Call| unsafe {
        match (tiles, panel.precision()) {
            (Some(tiles), Precision::Exact) => multiply_exact(tiles, call),
            (Some(tiles), Precision::Split) => multiply_split(tiles, call),
            (Some(tiles), Precision::Bf16) => multiply_bf16(tiles, call),
            (None, _) => vectors::multiply_bf16(call),
        }
    };
    if pair.len() == 2 && first.rows == TILE && second.rows == TILE && width == COLUMNS {
        // All 32 rows and columns are in the target.
        match start {
            Start::Zero => {}
            Start::Bias(bias) => call.start = [bias[column..][..COLUMNS].as_ptr(); 2],
            Start::Target => {
                (call.start, call.start_stride) = (call.sums.map(<*mut f32>::cast_const), call.sums_stride)
            }
        }
        multiply(&mut call);
        return;
    }
    // At an edge: in a block of its own, of which only what is asked for is copied.
    let mut block = [[0.0f32; COLUMNS]; 2 * TILE];
    let edge_rows = || {
        pair.iter().enumerate().flat_map(|(half, row)| (0..row.rows).map(move |i| (half * TILE + i, row.target + i)))
    };
    for (inner, outer) in edge_rows() {
        let row = &mut block[inner][..width];
        match start {
            Start::Zero => {}
            Start::Bias(bias) => row.copy_from_slice(&bias[column..][..width]),
            // SAFETY: `outer` is one of the tile's rows in the target, and column + width is not beyond the panel's
            // last column. `row` is `width` numbers of `block`, which is no part of the target.
            Start::Target => unsafe {
                let from = target.values.add(outer * target.row_stride + column);
                from.copy_to_nonoverlapping(row.as_mut_ptr(), width);
            },
        }
    }
    let upper = block.as_mut_ptr().cast::<f32>();
    // SAFETY: `block` is two times TILE rows of COLUMNS numbers.
    let halves = [upper, unsafe { upper.add(TILE * COLUMNS) }];
    (call.sums, call.sums_stride) = (halves, COLUMNS * size_of::<f32>());
    (call.start, call.start_stride) = (halves.map(<*mut f32>::cast_const), call.sums_stride);
    multiply(&mut call);
    for (inner, outer) in edge_rows() {
        // SAFETY: as for what was copied from there.
        unsafe {
            let to = target.values.add(outer * target.row_stride + column);
            block[inner].as_ptr().copy_to_nonoverlapping(to, width);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::{super::Order, *};

    #[test]
    fn a_product_without_depth_is_refused_since_the_innermost_loop_would_not_end() {
        if !super::super::pay(Precision::Bf16) {
            return;
        }
        let product = || {
            let mut panel = Panel::new(Precision::Bf16);
            let right =
                Right { values: &[0.0_f32; 0], order: Order::Outputs, row_stride: 0, columns: COLUMNS, depth: 0 };
            panel.pack(&right, Depth::whole(0..0), 0..COLUMNS);
            let left = Pieces::of(&[1.0; TILE * STEP], STEP, Precision::Bf16);
            let mut target = [0.0; TILE * COLUMNS];
            accumulate(&left, &row_tiles(TILE, STEP), 0, &panel, Start::Zero, (&mut target, COLUMNS));
        };
        assert!(catch_unwind(product).is_err());
    }
}
