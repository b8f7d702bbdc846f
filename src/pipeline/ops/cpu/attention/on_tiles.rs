//! Attention by matrix units: blocks of queries over blocks of keys, so that the scores stay in the cache however many
//! keys there are.

use std::ops::Range;

use candle_core::DType;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    super::{
        lanes::Rows,
        shared::Start,
        tiles::{Depth, Order, Panel, Pieces, Precision, Right, Units, accumulate, pay, row_tiles, units},
        vectors::with_lanes,
    },
    Geometry,
    softmax::Softmax,
};

/// Queries and keys in a block.
const QUERIES: usize = 128;
const KEYS: usize = 512;

/// A block of keys and their values, packed.
struct Block {
    keys: Panel,
    values: Panel,
    count: usize,
}

/// As [`super::attend`], without a mask.
pub(super) fn attend(
    query: Rows<'_>,
    key: Rows<'_>,
    value: Rows<'_>,
    geometry: &Geometry,
    precision: Precision,
) -> Vec<f32> {
    let Geometry { batch, queries, keys, heads, head_dim, .. } = *geometry;
    let channels = heads * head_dim;
    let mut y = vec![0.0; batch * queries * channels];
    for (batch, y) in y.chunks_mut(queries * channels).enumerate() {
        let of_batch = |tokens| batch * tokens..(batch + 1) * tokens;
        let (key, value) = (part(key, of_batch(keys), channels), part(value, of_batch(keys), channels));
        let heads: Vec<Vec<Block>> =
            (0..heads).into_par_iter().map(|head| blocks(key, value, geometry, (head * head_dim, precision))).collect();
        let query = part(query, of_batch(queries), channels);
        let query = Pieces::padded(query, channels, (queries, channels), (0, 0), (channels, precision));
        y.par_chunks_mut(QUERIES * channels).enumerate().for_each(|(number, y)| {
            let mut space = Space::new(head_dim, precision);
            for (head, blocks) in heads.iter().enumerate() {
                let first = number * QUERIES * channels + head * head_dim;
                let attended = space.attend(&query, (first, y.len() / channels), channels, blocks);
                for (y, attended) in y.chunks_mut(channels).zip(attended.chunks(head_dim)) {
                    y[head * head_dim..][..head_dim].copy_from_slice(attended);
                }
            }
        });
    }
    y
}

/// Some rows of which so many numbers count.
fn part(x: Rows<'_>, rows: Range<usize>, row: usize) -> Rows<'_> {
    Rows { values: &x.values[rows.start * x.stride..(rows.end - 1) * x.stride + row], ..x }
}

/// How exactly to multiply among weights that were asked for in this type, if that pays here. Where it costs little,
/// bf16's sums are taken of more than it asks for: scores go through an exponential.
pub(super) fn precision(asked: DType) -> Option<Precision> {
    let wanted = match asked {
        DType::F32 => Precision::Exact,
        DType::BF16 if units() == Some(Units::Vectors) => Precision::Bf16,
        _ => Precision::Split,
    };
    Some(wanted).filter(|precision| pay(*precision))
}

/// A head's keys and values, which are `offset` numbers from the beginning of each token.
fn blocks<'a>(
    key: Rows<'a>,
    value: Rows<'a>,
    geometry: &Geometry,
    (offset, precision): (usize, Precision),
) -> Vec<Block> {
    let block = |first: usize| {
        let count = KEYS.min(geometry.keys - first);
        let mut block = Block { keys: Panel::new(precision), values: Panel::new(precision), count };
        let width = geometry.head_dim;
        let from = |x: Rows<'a>| (&x.values[first * x.stride + offset..], x.stride);
        let (values, row_stride) = from(key);
        let keys = Right { values, order: Order::Outputs, row_stride, columns: count, depth: width };
        block.keys.pack(&keys, Depth::whole(0..width), 0..count);
        let (values, row_stride) = from(value);
        let values = Right { values, order: Order::Depths, row_stride, columns: width, depth: count };
        block.values.pack(&values, Depth::whole(0..count), 0..width);
        block
    };
    (0..geometry.keys).step_by(KEYS).map(block).collect()
}

/// What a thread needs for one block of queries and one head, used again for the next.
struct Space {
    scores: Vec<f32>,
    weights: Pieces,
    sums: Vec<f32>,
    head_dim: usize,
}

impl Space {
    fn new(head_dim: usize, precision: Precision) -> Self {
        Self {
            scores: vec![0.0; QUERIES * KEYS],
            weights: Pieces::with_room(QUERIES * KEYS, KEYS, precision),
            sums: vec![0.0; QUERIES * head_dim],
            head_dim,
        }
    }

    /// One head of `queries` queries, the first of which begins at `first`.
    fn attend(
        &mut self,
        query: &Pieces,
        (first, queries): (usize, usize),
        channels: usize,
        blocks: &[Block],
    ) -> &[f32] {
        let head_dim = self.head_dim;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let of_queries = row_tiles(queries, channels);
        let of_weights = row_tiles(queries, KEYS);
        let scores = &mut self.scores[..queries * KEYS];
        let sums = &mut self.sums[..queries * head_dim];
        let mut rows = vec![Softmax::EMPTY; queries];
        for (number, block) in blocks.iter().enumerate() {
            accumulate(query, &of_queries, first, &block.keys, Start::Zero, (scores, KEYS));
            with_lanes(Weigh { softmax: &mut rows, scores, visible: block.count, scale, sums });
            self.weights.fill(scores);
            let start = if number == 0 { Start::Zero } else { Start::Target };
            accumulate(&self.weights, &of_weights, 0, &block.values, start, (sums, head_dim));
        }
        for (row, sums) in rows.iter().zip(sums.chunks_mut(head_dim)) {
            let inverse = row.inverse();
            sums.iter_mut().for_each(|sum| *sum *= inverse);
        }
        sums
    }
}

/// Makes weights of some queries' scores with a block of keys.
struct Weigh<'a> {
    softmax: &'a mut [Softmax],
    /// `(queries, KEYS)`.
    scores: &'a mut [f32],
    visible: usize,
    scale: f32,
    /// What there is of earlier blocks, which shrinks; what there is before the first one does not count.
    sums: &'a mut [f32],
}

impl WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { softmax, scores, visible, scale, sums } = self;
        let width = sums.len() / softmax.len();
        let rows = scores.chunks_mut(KEYS).zip(sums.chunks_mut(width));
        for (softmax, (scores, sums)) in softmax.iter_mut().zip(rows) {
            let shrinks = softmax.take(simd, scores, visible, scale);
            sums.iter_mut().for_each(|sum| *sum *= shrinks);
        }
    }
}
