//! Attention in blocks of queries and keys: the scores of no more than one block are there at a time.

mod on_lanes;
#[cfg(target_arch = "x86_64")]
mod on_tiles;
mod softmax;

use candle_core::DType;

#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::{super::Mask, lanes::Rows};

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

/// Attends. Of all four a token's row is `heads * head_dim` long, and pictures follow each other.
pub(super) fn attend(query: Rows<'_>, key: Rows<'_>, value: Rows<'_>, geometry: &Geometry) -> Vec<f32> {
    let Geometry { batch, queries, keys, heads, head_dim, .. } = *geometry;
    let fits = |x: Rows<'_>, tokens| x.values.len() + x.stride == batch * tokens * x.stride + heads * head_dim;
    assert!(fits(query, queries) && fits(key, keys) && fits(value, keys), "an attention of other sizes");
    #[cfg(target_arch = "x86_64")]
    if geometry.mask == Mask::None
        && geometry.queries >= tiles::FEWEST_ROWS
        && let Some(precision) = on_tiles::precision(geometry.precision)
    {
        return on_tiles::attend(query, key, value, geometry, precision);
    }
    on_lanes::attend(query, key, value, geometry)
}
