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

/// Pieces in a panel at most: 1.3 MB, which with the rows that pass by fits into the two megabytes of a core's second cache.
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
        #[expect(unsafe_code, reason = "every column of every row was written, before anything of it was read")]
        unsafe {
            target.set_len(target.len() + count * columns);
        }
    }

    fn write(&self, target: Shared) {
        let columns = self.right.columns;
        let threads = rayon::current_num_threads();
        // As many panels as make equal work for all threads, or, where there are few columns, parts of the rows too. A few
        // columns of many rows are one panel, so that the rows, which are the larger operand, are read once.
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
    let last = left + (panel.depth.segments - 1) * stride;
    assert!(pieces.precision() == panel.precision(), "operands of different precision");
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
            #[expect(unsafe_code, reason = "the asserts above keep every access within the operands")]
            unsafe {
                multiply_block(tiles.as_ref(), pieces, (pair, left, stride), (panel, number), start, target);
            }
        }
    }
}

/// One or two tiles of rows times one block of columns.
///
/// # Safety
/// The rows and columns are within the operands.
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
    let multiply = |call: &mut Call| unsafe {
        match (tiles, panel.precision()) {
            (Some(tiles), Precision::Exact) => multiply_exact(tiles, call),
            (Some(tiles), Precision::Split) => multiply_split(tiles, call),
            (Some(tiles), Precision::Bf16) => multiply_bf16(tiles, call),
            (None, _) => vectors::multiply_bf16(call),
        }
    };
    if pair.len() == 2 && first.rows == TILE && second.rows == TILE && width == COLUMNS {
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
            Start::Target => unsafe {
                let from = target.values.add(outer * target.row_stride + column);
                from.copy_to_nonoverlapping(row.as_mut_ptr(), width);
            },
        }
    }
    let upper = block.as_mut_ptr().cast::<f32>();
    let halves = [upper, unsafe { upper.add(TILE * COLUMNS) }];
    (call.sums, call.sums_stride) = (halves, COLUMNS * size_of::<f32>());
    (call.start, call.start_stride) = (halves.map(<*mut f32>::cast_const), call.sums_stride);
    multiply(&mut call);
    for (inner, outer) in edge_rows() {
        unsafe {
            let to = target.values.add(outer * target.row_stride + column);
            block[inner].as_ptr().copy_to_nonoverlapping(to, width);
        }
    }
}
