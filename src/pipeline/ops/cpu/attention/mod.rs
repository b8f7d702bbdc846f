//! Attention in blocks of queries: scores of one block and one head exist at a time.

#[cfg(target_arch = "x86_64")]
mod on_tiles;

use candle_core::DType;
use gemm::Parallelism;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::{
    super::Mask,
    elementwise::exp,
    matrix::{Matrix, Target, multiply},
    vectors::vectorized,
};

/// Queries in a block.
const BLOCK: usize = 128;

/// Sizes of one attention.
pub(super) struct Geometry {
    pub(super) batch: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) mask: Mask,
    /// The type that the weights around it were asked for in: more exact it need not be.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "all is multiplied in f32"))]
    pub(super) precision: DType,
}

/// Attends; all four arrays are `(batch, tokens, heads * head_dim)`.
pub(super) fn attend(query: &[f32], key: &[f32], value: &[f32], geometry: &Geometry) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if geometry.mask == Mask::None
        && geometry.queries >= tiles::FEWEST_ROWS
        && let Some(precision) = on_tiles::precision(geometry.precision)
    {
        return on_tiles::attend(query, key, value, geometry, precision);
    }
    let channels = geometry.heads * geometry.head_dim;
    let mut y = vec![0.0; query.len()];
    let block = BLOCK.min(geometry.queries.div_ceil(rayon::current_num_threads())).max(1);
    for batch in 0..geometry.batch {
        let of_batch = |tokens: usize| batch * tokens * channels..(batch + 1) * tokens * channels;
        let query = &query[of_batch(geometry.queries)];
        let (key, value) = (&key[of_batch(geometry.keys)], &value[of_batch(geometry.keys)]);
        y[of_batch(geometry.queries)].par_chunks_mut(block * channels).enumerate().for_each(|(number, y)| {
            attend_block(&query[number * block * channels..][..y.len()], key, value, geometry, (number * block, y));
        });
    }
    y
}

/// All heads of the queries from `first` on.
fn attend_block(query: &[f32], key: &[f32], value: &[f32], geometry: &Geometry, (first, y): (usize, &mut [f32])) {
    let Geometry { keys, heads, head_dim, .. } = *geometry;
    let channels = heads * head_dim;
    let queries = query.len() / channels;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let mut scores = vec![0.0; queries * keys];
    for head in 0..heads {
        let of_head = |x| Matrix::rows(x, channels);
        let offset = head * head_dim;
        multiply(
            Target { values: &mut scores, row_stride: keys, accumulate: false },
            of_head(&query[offset..]),
            of_head(&key[offset..]).transposed(),
            (queries, head_dim, keys),
            Parallelism::None,
        );
        for (number, row) in scores.chunks_mut(keys).enumerate() {
            let visible = match geometry.mask {
                Mask::None => keys,
                Mask::Causal => (first + number + 1).min(keys),
            };
            let (seen, hidden) = row.split_at_mut(visible);
            vectorized(|| softmax(seen, scale));
            hidden.fill(0.0);
        }
        multiply(
            Target { values: &mut y[offset..], row_stride: channels, accumulate: false },
            Matrix::rows(&scores, keys),
            of_head(&value[offset..]),
            (queries, keys, head_dim),
            Parallelism::None,
        );
    }
}

/// `softmax(scale * row)` in place.
#[inline(always)]
fn softmax(row: &mut [f32], scale: f32) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = exp(scale * (*x - largest)));
    // Eight partial sums keep both the precision and the vector units.
    let (lanes, rest) = row.as_chunks::<8>();
    let mut sums = [0.0f32; 8];
    lanes.iter().for_each(|lane| sums.iter_mut().zip(lane).for_each(|(sum, x)| *sum += x));
    let inverse = 1.0 / (sums.iter().sum::<f32>() + rest.iter().sum::<f32>());
    row.iter_mut().for_each(|x| *x *= inverse);
}
