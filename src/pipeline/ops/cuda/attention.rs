//! Attention on tensor cores, which keeps no scores.

use candle_core::{
    CudaStorage, DType, Result, Shape, Tensor,
    backend::BackendStorage as _,
    cuda_backend::cudarc::driver::{CudaView, LaunchConfig},
};

use super::{
    super::{Mask, attention::row_stride},
    launch::{ATTENTION, Kernel, Number, Operand, launch, operation, result, room},
};

/// Numbers that a thread reads at once: heads begin and end with such a group.
const GROUP: usize = 8;

/// A kernel, with the sizes that `attention.cu` made it for.
struct Variant {
    name: &'static str,
    width: usize,
    /// Queries of a block.
    queries: usize,
}

const WARPS: usize = 4;
const VARIANTS: [Variant; 2] = [
    Variant { name: "attention_64", width: 64, queries: WARPS * 2 * 16 },
    Variant { name: "attention_128", width: 128, queries: WARPS * 16 },
];

/// Whether there is a kernel for these: numbers of 16 bits, and heads neither too wide nor of an odd width.
pub(in super::super) fn attends(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize) -> bool {
    let width = query.dim(2).unwrap_or(0) / heads.max(1);
    let is_aligned = |x: &Tensor| match row_stride(x.layout()) {
        Some(stride) => x.layout().start_offset().is_multiple_of(GROUP) && stride % GROUP == 0,
        // Then it is copied.
        None => true,
    };
    matches!(query.dtype(), DType::F16 | DType::BF16)
        && width.is_multiple_of(GROUP)
        && variant(width).is_some()
        && [query, key, value].into_iter().all(is_aligned)
}

fn variant(width: usize) -> Option<&'static Variant> {
    VARIANTS.iter().find(|variant| width > 0 && width <= variant.width)
}

/// Rows that are equally far apart, which those of most already are.
fn in_rows(x: &Tensor) -> Result<Tensor> {
    if row_stride(x.layout()).is_some() { Ok(x.clone()) } else { x.contiguous() }
}

/// The numbers from the first row on, and how far apart rows are.
fn view_of_rows<'a, T: Number>((storage, layout): Operand<'a>) -> Result<(CudaView<'a, T>, u32)> {
    let Some(stride) = row_stride(layout) else {
        candle_core::bail!("rows of {layout:?} are not equally far apart");
    };
    Ok((storage.as_cuda_slice::<T>()?.slice(layout.start_offset()..), stride as u32))
}

/// As [`super::super::attention()`].
pub(in super::super) fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    mask: Mask,
) -> Result<Tensor> {
    in_rows(query)?.apply_op3_no_bwd(&in_rows(key)?, &in_rows(value)?, &AttentionOp { heads, mask })
}

struct AttentionOp {
    heads: usize,
    mask: Mask,
}

impl AttentionOp {
    fn run<T: Number>(&self, [query, key, value]: [Operand<'_>; 3]) -> Result<(CudaStorage, Shape)> {
        let (batch, queries, channels) = query.1.shape().dims3()?;
        let (key_batch, keys, key_channels) = key.1.shape().dims3()?;
        let width = channels / self.heads;
        let Some(variant) = variant(width).filter(|_| width * self.heads == channels && width.is_multiple_of(GROUP))
        else {
            candle_core::bail!("there is no kernel for {} heads in {channels} channels", self.heads);
        };
        if (key_batch, key_channels) != (batch, channels) || value.1.shape() != key.1.shape() || queries * keys == 0 {
            let (query, key, value) = (query.1.shape(), key.1.shape(), value.1.shape());
            candle_core::bail!("the queries {query:?} do not fit the keys {key:?} and values {value:?}");
        }
        let device = query.0.device();
        let y = room::<T>(device, batch * queries * channels)?;
        let kernel = Kernel::new::<T>(&ATTENTION, device, variant.name)?;
        let (query_view, query_stride) = view_of_rows::<T>(query)?;
        let ((key, key_stride), (value, value_stride)) = (view_of_rows::<T>(key)?, view_of_rows::<T>(value)?);
        // Exponentials are powers of two there.
        let scale = std::f32::consts::LOG2_E / (width as f32).sqrt();
        let causal = i32::from(self.mask == Mask::Causal);
        let grid = LaunchConfig {
            grid_dim: (queries.div_ceil(variant.queries) as u32, self.heads as u32, batch as u32),
            block_dim: (WARPS as u32 * 32, 1, 1),
            shared_mem_bytes: 0,
        };
        let sizes = [queries, keys, width].map(|size| size as u32);
        let [queries, keys, width] = &sizes;
        launch!(
            kernel,
            grid,
            &query_view,
            &key,
            &value,
            &y,
            queries,
            keys,
            width,
            &query_stride,
            &key_stride,
            &value_stride,
            &scale,
            &causal
        );
        Ok(result(y, query.0, query.1.shape().clone()))
    }
}

operation!(AttentionOp, "attention", on 3);
