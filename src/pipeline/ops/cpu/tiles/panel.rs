//! The right operand: a block of a weight as tiles, in the order in which the innermost loop takes them.

use std::{
    arch::x86_64::{
        __m512, __m512i, _mm512_loadu_si512, _mm512_permutexvar_epi16, _mm512_setzero_si512, _mm512_storeu_si512,
    },
    ops::Range,
};

use super::{
    super::{
        number::Number,
        transpose::{self, prefetch},
    },
    Precision, STEP, TILE,
    aligned::{Aligned, Bits},
    pieces::{pieces_of, zeros},
};

/// Columns that the innermost loop takes at once.
pub(super) const COLUMNS: usize = 2 * TILE;
/// How many numbers of a row are asked for before they are needed.
const AHEAD: usize = 4 * STEP;
/// Numbers in a tile.
const TILE_NUMBERS: usize = TILE * STEP;

/// How a right operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Order {
    /// Row after row of outputs, each with its depth in a row: a linear layer's weight, or keys.
    Outputs,
    /// Row after row of depth, each with its outputs in a row: a convolution's weight, or values.
    Depths,
}

/// A matrix to multiply with from the right.
#[derive(Clone, Copy)]
pub(in super::super) struct Right<'a, T> {
    pub(in super::super) values: &'a [T],
    pub(in super::super) order: Order,
    /// Numbers from one row to the next.
    pub(in super::super) row_stride: usize,
    /// Outputs there are.
    pub(in super::super) columns: usize,
    /// Numbers that are summed up.
    pub(in super::super) depth: usize,
}

/// Some depth of a right operand: segments of one length that follow each other.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Depth {
    pub(in super::super) start: usize,
    /// Numbers of each segment.
    pub(in super::super) len: usize,
    pub(in super::super) segments: usize,
}

impl Depth {
    /// A single segment.
    pub(in super::super) fn whole(depth: Range<usize>) -> Self {
        Self { start: depth.start, len: depth.len(), segments: 1 }
    }

    /// Steps of one segment.
    pub(super) fn steps(&self) -> usize {
        self.len.div_ceil(STEP)
    }

    fn end(&self) -> usize {
        self.start + self.segments * self.len
    }
}

/// Some depth of some columns of a right operand, packed.
pub(in super::super) struct Panel {
    tiles: Aligned,
    precision: Precision,
    pub(super) depth: Depth,
    pub(super) columns: Range<usize>,
}

impl Panel {
    /// An empty one, whose memory later packing uses again.
    pub(in super::super) fn new(precision: Precision) -> Self {
        Self { tiles: Aligned::with_room(0), precision, depth: Depth::whole(0..0), columns: 0..0 }
    }

    /// Packs this part of `right`. What is missing to whole tiles is zero.
    pub(in super::super) fn pack<T: Number>(&mut self, right: &Right<'_, T>, depth: Depth, columns: Range<usize>) {
        assert!(super::units().is_some() && depth.end() <= right.depth && columns.end <= right.columns);
        (self.depth, self.columns) = (depth, columns);
        self.tiles.resize(self.columns.len().div_ceil(COLUMNS) * self.block_numbers());
        // SAFETY: where `units` finds any, the processor has AVX-512's F, BW, VL and BF16.
        #[expect(unsafe_code)]
        unsafe {
            match self.precision {
                Precision::Exact => self.pack_vectors::<T, 3>(right),
                Precision::Split => self.pack_vectors::<T, 2>(right),
                Precision::Bf16 => self.pack_vectors::<T, 1>(right),
            }
        }
    }

    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// The tiles of the block of columns of this number: for each step two of first pieces, two of second ones, and so
    /// on.
    pub(super) fn block(&self, number: usize) -> *const u16 {
        self.tiles[number * self.block_numbers()..][..self.block_numbers()].as_ptr().cast()
    }

    /// Numbers of a block of columns.
    fn block_numbers(&self) -> usize {
        self.depth.segments * self.depth.steps() * self.precision.pieces() * 2 * TILE_NUMBERS
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn pack_vectors<T: Number, const N: usize>(&mut self, right: &Right<'_, T>) {
        let Depth { start, len, segments } = self.depth;
        let steps = self.depth.steps();
        let (blocks, steps_of_all) = (self.columns.len().div_ceil(COLUMNS), steps * segments);
        let size = N * 2 * TILE_NUMBERS;
        for number in 0..blocks * steps_of_all {
            // As the numbers lie in memory.
            let (block, step) = match right.order {
                Order::Outputs => (number / steps_of_all, number % steps_of_all),
                Order::Depths => (number % blocks, number / blocks),
            };
            let target = &mut self.tiles[(block * steps_of_all + step) * size..][..size];
            let (depth, step) = (start + step / steps * len, step % steps);
            for half in 0..2 {
                let column = self.columns.start + block * COLUMNS + half * TILE;
                let place =
                    Place { depth: depth + step * STEP, depth_end: depth + len, column, column_end: self.columns.end };
                let pieces: [Rows; N] = match right.order {
                    Order::Outputs => from_outputs(right, &place),
                    Order::Depths => from_depths(right, &place),
                };
                for (piece, target) in pieces.iter().zip(target.chunks_exact_mut(TILE_NUMBERS).skip(half).step_by(2)) {
                    store(piece, target);
                }
            }
        }
    }
}

/// Where a tile's numbers begin, and where there are no more.
struct Place {
    depth: usize,
    depth_end: usize,
    column: usize,
    column_end: usize,
}

/// A tile's sixteen rows.
type Rows = [__m512i; TILE];

/// Each column's depth lies in a row: rows of pairs, transposed.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn from_outputs<T: Number, const N: usize>(right: &Right<'_, T>, place: &Place) -> [Rows; N] {
    let mut rows = [[_mm512_setzero_si512(); TILE]; N];
    let there = place.depth_end.saturating_sub(place.depth).min(STEP);
    for number in 0..TILE.min(place.column_end.saturating_sub(place.column)) {
        let start = (place.column + number) * right.row_stride + place.depth;
        let row = &right.values[start..][..there];
        prefetch(right.values, start + AHEAD);
        prefetch(right.values, start + AHEAD + STEP / 2);
        let pieces: [_; N] = pieces_of(match row.as_chunks::<TILE>() {
            ([first, second], []) => [widened(first), widened(second)],
            _ => {
                let mut numbers = [T::ZERO; STEP];
                numbers[..there].copy_from_slice(row);
                let (halves, _) = numbers.as_chunks::<TILE>();
                [widened(&halves[0]), widened(&halves[1])]
            }
        });
        for (rows, piece) in rows.iter_mut().zip(pieces) {
            rows[number] = piece;
        }
    }
    rows.map(|rows| transpose::sixteen(rows))
}

/// Each depth's columns lie in a row: two rows, interleaved.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn from_depths<T: Number, const N: usize>(right: &Right<'_, T>, place: &Place) -> [Rows; N] {
    /// The first of one row, the first of the other, and so on.
    const INTERLEAVED: [u16; STEP] = {
        let mut order = [0; STEP];
        let mut number = 0;
        while number < STEP {
            order[number] = (number / 2 + number % 2 * TILE) as u16;
            number += 1;
        }
        order
    };
    let mut rows = [[_mm512_setzero_si512(); TILE]; N];
    let there = place.column_end.saturating_sub(place.column).min(TILE);
    let row = |depth: usize| {
        if depth >= place.depth_end {
            return zeros();
        }
        let row = &right.values[depth * right.row_stride + place.column..][..there];
        match row.as_array::<TILE>() {
            Some(row) => widened(row),
            None => {
                let mut numbers = [T::ZERO; TILE];
                numbers[..there].copy_from_slice(row);
                widened(&numbers)
            }
        }
    };
    // SAFETY: the array is 32 times two bytes, the 64 that are read.
    #[expect(unsafe_code)]
    let order = unsafe { _mm512_loadu_si512(INTERLEAVED.as_ptr().cast()) };
    if there > 0 {
        for number in 0..TILE {
            let pieces: [_; N] = pieces_of([row(place.depth + 2 * number), row(place.depth + 2 * number + 1)]);
            for (rows, piece) in rows.iter_mut().zip(pieces) {
                rows[number] = _mm512_permutexvar_epi16(order, piece);
            }
        }
    }
    rows
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widened<T: Number>(numbers: &[T; TILE]) -> __m512 {
    // SAFETY: this function needs the same instructions, so whoever calls it has made sure of them.
    #[expect(unsafe_code)]
    unsafe {
        T::widened(numbers)
    }
}

#[target_feature(enable = "avx512f")]
fn store(rows: &Rows, tile: &mut [Bits]) {
    for (row, target) in rows.iter().zip(tile.chunks_exact_mut(STEP)) {
        // SAFETY: the chunk is 32 times two bytes, the 64 that are written.
        #[expect(unsafe_code)]
        unsafe {
            _mm512_storeu_si512(target.as_mut_ptr().cast(), *row);
        }
    }
}
