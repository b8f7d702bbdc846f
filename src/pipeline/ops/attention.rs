//! Scaled dot-product attention with several heads.

use candle_core::{Result, Tensor};

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
/// Heads lie side by side in the channels, where the projections left them. The full score matrix of a large picture
/// would be gigabytes, so queries are taken in blocks.
pub fn attention(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize, mask: Mask) -> Result<Tensor> {
    if has_cpu_version(query) {
        cpu::attention(query, key, value, heads, mask)
    } else {
        reference::attention(query, key, value, heads, mask)
    }
}
