//! Attention by matrix units: blocks of queries over blocks of keys, so that the scores stay in the cache however many keys
//! there are.
//!
//! The softmax goes along: with each block of keys come a new largest score and a new sum, and what was summed up before is
//! scaled to them (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).

use candle_core::DType;
use rayon::prelude::*;

use super::{
    super::{
        elementwise::exp,
        shared::Start,
        tiles::{Depth, Order, Panel, Pieces, Precision, Right, Units, accumulate, pay, row_tiles, units},
        vectors::vectorized,
    },
    Geometry,
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
pub(super) fn attend(query: &[f32], key: &[f32], value: &[f32], geometry: &Geometry, precision: Precision) -> Vec<f32> {
    let Geometry { batch, queries, keys, heads, head_dim, .. } = *geometry;
    let channels = heads * head_dim;
    let mut y = vec![0.0; query.len()];
    for batch in 0..batch {
        let of_batch = |tokens: usize| batch * tokens * channels..(batch + 1) * tokens * channels;
        let (key, value) = (&key[of_batch(keys)], &value[of_batch(keys)]);
        let heads: Vec<Vec<Block>> =
            (0..heads).into_par_iter().map(|head| blocks(key, value, geometry, (head * head_dim, precision))).collect();
        let query = Pieces::of(&query[of_batch(queries)], channels, precision);
        y[of_batch(queries)].par_chunks_mut(QUERIES * channels).enumerate().for_each(|(number, y)| {
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
fn blocks(key: &[f32], value: &[f32], geometry: &Geometry, (offset, precision): (usize, Precision)) -> Vec<Block> {
    let channels = geometry.heads * geometry.head_dim;
    let block = |first: usize| {
        let count = KEYS.min(geometry.keys - first);
        let mut block = Block { keys: Panel::new(precision), values: Panel::new(precision), count };
        let from = first * channels + offset;
        let (width, row_stride) = (geometry.head_dim, channels);
        let keys = Right { values: &key[from..], order: Order::Outputs, row_stride, columns: count, depth: width };
        block.keys.pack(&keys, Depth::whole(0..width), 0..count);
        let values = Right { values: &value[from..], order: Order::Depths, row_stride, columns: width, depth: count };
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
        let mut rows = vec![Row { largest: f32::NEG_INFINITY, total: 0.0 }; queries];
        for (number, block) in blocks.iter().enumerate() {
            accumulate(query, &of_queries, first, &block.keys, Start::Zero, (scores, KEYS));
            vectorized(|| {
                for ((row, scores), sums) in rows.iter_mut().zip(scores.chunks_mut(KEYS)).zip(sums.chunks_mut(head_dim))
                {
                    let shrinks = row.take(&mut scores[..block.count], scale);
                    if number > 0 {
                        sums.iter_mut().for_each(|sum| *sum *= shrinks);
                    }
                }
            });
            self.weights.fill(scores);
            let start = if number == 0 { Start::Zero } else { Start::Target };
            accumulate(&self.weights, &of_weights, 0, &block.values, start, (sums, head_dim));
        }
        for (row, sums) in rows.iter().zip(sums.chunks_mut(head_dim)) {
            let inverse = 1.0 / row.total;
            sums.iter_mut().for_each(|sum| *sum *= inverse);
        }
        sums
    }
}

/// The softmax of one query so far.
#[derive(Clone, Copy)]
struct Row {
    largest: f32,
    total: f32,
}

impl Row {
    /// Makes weights of a block's scores and returns what earlier sums are to be multiplied with.
    #[inline(always)]
    fn take(&mut self, scores: &mut [f32], scale: f32) -> f32 {
        let (lanes, rest) = scores.as_chunks::<16>();
        let mut largest = [self.largest; 16];
        lanes.iter().for_each(|lane| largest.iter_mut().zip(lane).for_each(|(largest, x)| *largest = largest.max(*x)));
        let largest = largest.iter().chain(rest).copied().fold(self.largest, f32::max);
        let shrinks = exp(scale * (self.largest - largest));
        let (lanes, rest) = scores.as_chunks_mut::<16>();
        let mut totals = [0.0f32; 16];
        for lane in lanes {
            for (x, total) in lane.iter_mut().zip(&mut totals) {
                *x = exp(scale * (*x - largest));
                *total += *x;
            }
        }
        let mut total = totals.iter().sum::<f32>();
        for x in rest {
            *x = exp(scale * (*x - largest));
            total += *x;
        }
        self.total = self.total * shrinks + total;
        self.largest = largest;
        shrinks
    }
}
