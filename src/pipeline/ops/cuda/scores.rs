//! Attention of one head that is too wide for [`super::attention`], as the VAE has it: by way of a matrix of scores, in
//! f32, which tensor cores multiply as TF32.

use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor, backend::BackendStorage as _,
};

use super::{
    super::Mask,
    launch::{Kernel, NORMS, Number as _, blocks, in_vectors, launch, not_here, result, room, view},
    linear,
};

/// Queries whose scores there are at a time: 32 MiB of them at 1024 x 1024, so that most stay in the cache of a large
/// GPU.
const QUERIES: usize = 512;
/// Threads of a block, which takes a row of scores.
const THREADS: usize = 256;

/// Whether this way is open, for numbers of which no more than `precision` is asked.
pub(in super::super) fn attends_by_scores(
    query: &Tensor,
    key: &Tensor,
    (heads, mask): (usize, Mask),
    precision: DType,
) -> bool {
    let (queries, keys) = (query.dim(1).unwrap_or(0), key.dim(1).unwrap_or(0));
    // So that every picture's tokens, and every block of queries, begin at a multiple of 256 bytes of f32, as products
    // have it.
    let fits = |size: usize| size > 0 && size.is_multiple_of(8);
    heads == 1
        && mask == Mask::None
        && (query.dtype() != DType::F32 || precision != DType::F32)
        && in_vectors(&[query, key])
        && [queries, keys, query.dim(D::Minus1).unwrap_or(0)].into_iter().all(fits)
}

/// As [`super::super::attention()`], of one head.
pub(in super::super) fn attention_of_one_head(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    let scale = 1.0 / (query.dim(D::Minus1)? as f64).sqrt();
    let attend = |picture: usize| {
        let of = |x: &Tensor| x.get(picture)?.to_dtype(DType::F32)?.contiguous();
        let (query, key) = ((of(query)? * scale)?, of(key)?);
        let value = of(value)?.t()?.contiguous()?; // (channels, keys)
        let blocks = (0..query.dim(0)?).step_by(QUERIES).map(|first| {
            let count = QUERIES.min(query.dim(0)? - first);
            let scores = linear::product(&query.narrow(0, first, count)?, &key)?;
            linear::product(&scores.apply_op1_no_bwd(&SoftmaxOp)?, &value)
        });
        Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 0)
    };
    let pictures = (0..query.dim(0)?).map(attend).collect::<Result<Vec<_>>>()?;
    Tensor::stack(&pictures, 0)?.to_dtype(query.dtype())
}

/// Softmax of each row of f32.
struct SoftmaxOp;

impl CustomOp1 for SoftmaxOp {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here()
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (storage.device(), layout.shape());
        let columns = shape.dim(D::Minus1)?;
        if columns == 0 || !columns.is_multiple_of(f32::OF_VECTOR) {
            candle_core::bail!("rows of {shape:?} are no whole vectors");
        }
        let (y, x_view) = (room::<f32>(device, shape.elem_count())?, view::<f32>((storage, layout))?);
        let grid = blocks((shape.elem_count() / columns, 1), THREADS);
        let (kernel, columns) = (Kernel::new::<f32>(&NORMS, device, "softmax")?, columns as u32);
        launch!(kernel, grid, &x_view, &y, &columns);
        Ok(result(y, storage, shape.clone()))
    }
}
