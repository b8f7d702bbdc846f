//! Scaled dot-product attention with several heads.

use candle_core::{DType, Layout, Result, Tensor};

#[cfg(feature = "cuda")]
use super::cuda;
use super::{cpu, has_cpu_version, reference};

/// Which keys a query may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those of its own position and before.
    Causal,
}

/// Attention of `query` `(b, m, heads * d)` over `key` and `value` `(b, n, heads * d)`, scaled by `1 / sqrt(d)`.
///
/// Heads lie side by side in the channels, where the projections left them; rows may be further apart than they are
/// long. The full score matrix of a large picture would be gigabytes, so queries are taken in blocks, and keys as well
/// but for the plain version. `precision` is the type that the weights around it were asked for in: the result need not
/// be more exact than what they make of it.
pub fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    (heads, mask): (usize, Mask),
    precision: DType,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda::has(cuda::Operation::Attention, query) && cuda::attends(query, key, value, heads) {
        return cuda::attention(query, key, value, heads, mask);
    }
    #[cfg(feature = "cuda")]
    if cuda::has(cuda::Operation::AttentionOfOneHead, query)
        && cuda::attends_by_scores(query, key, (heads, mask), precision)
    {
        return cuda::attention_of_one_head(query, key, value);
    }
    if has_cpu_version(query) {
        cpu::attention(query, key, value, (heads, mask), precision)
    } else {
        reference::attention(query, key, value, heads, mask)
    }
}

/// Numbers from one row of `(b, rows, columns)` to the next, if all rows are equally far apart, through all of the
/// batch.
pub(super) fn row_stride(layout: &Layout) -> Option<usize> {
    let (&[batch, rows, columns], &[of_batch, stride, 1]) = (layout.dims(), layout.stride()) else { return None };
    // What has no next has a stride that means nothing.
    let stride = match (batch, rows) {
        (1, 1) => columns,
        (_, 1) => of_batch,
        _ => stride,
    };
    (stride >= columns && (batch == 1 || of_batch == rows * stride)).then_some(stride)
}
