//! Products by cuBLASLt, which adds a linear layer's bias before it writes one, where candle's own writes it and goes
//! over it again, and which multiplies f32 as TF32.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use candle_core::{
    CudaDevice, CudaStorage, D, DType, Error, Result, Shape, Tensor,
    backend::BackendStorage as _,
    cuda_backend::{
        DeviceId,
        cudarc::cublaslt::{CudaBlasLT, Matmul, MatmulConfig},
    },
};

use super::{
    contiguous,
    launch::{Number, Operand, in_vectors, operation, result, room, view},
};

/// Inputs and outputs at least.
const FEWEST: usize = 16;

thread_local! {
    /// Each has room for what a product is divided into, which one stream may use for one product after the other.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<CudaBlasLT>>> = RefCell::default();
}

/// Whether it applies to these, whose weight was asked for in `precision`: numbers of 16 bits, or f32 of which no more
/// is asked, since cudarc has it round f32 to TF32. Rows are whole vectors, and places in memory what it takes them
/// for, multiples of 256 bytes.
pub(in super::super) fn adds_bias(x: &Tensor, weight: &Tensor, bias: &Tensor, precision: DType) -> bool {
    let is_aligned = |x: &Tensor| !x.is_contiguous() || x.layout().start_offset() == 0;
    (x.dtype() != DType::F32 || precision != DType::F32)
        && [weight, bias].into_iter().all(|tensor| tensor.dtype() == x.dtype())
        && [x, weight, bias].into_iter().all(is_aligned)
        && in_vectors(&[x, weight, bias])
        // Smaller ones are as fast any way, and not every algorithm takes them.
        && weight.dims().iter().all(|&size| size >= FEWEST)
}

/// As [`super::super::Linear::forward`], of a layer with a bias.
pub(in super::super) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    contiguous(x)?.apply_op3_no_bwd(&contiguous(weight)?, &contiguous(bias)?, &LinearOp)
}

/// The product of `(m, k)` with the transposed `(n, k)`, which begin at multiples of 256 bytes and whose rows are whole
/// vectors.
pub(super) fn product(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    contiguous(left)?.apply_op2_no_bwd(&contiguous(right)?, &ProductOp)
}

struct LinearOp;

impl LinearOp {
    fn run<T: Number>(&self, [x, weight, bias]: [Operand<'_>; 3]) -> Result<(CudaStorage, Shape)>
    where
        CudaBlasLT: Matmul<T>,
    {
        multiply::<T>(x, weight, Some(bias))
    }
}

struct ProductOp;

impl ProductOp {
    fn run<T: Number>(&self, [left, right]: [Operand<'_>; 2]) -> Result<(CudaStorage, Shape)>
    where
        CudaBlasLT: Matmul<T>,
    {
        multiply::<T>(left, right, None)
    }
}

fn multiply<T: Number>(x: Operand<'_>, weight: Operand<'_>, bias: Option<Operand<'_>>) -> Result<(CudaStorage, Shape)>
where
    CudaBlasLT: Matmul<T>,
{
    let (outputs, inputs) = weight.1.shape().dims2()?;
    let count = x.1.shape().elem_count();
    let fits = bias.is_none_or(|bias| bias.1.dims() == [outputs]);
    if x.1.shape().dim(D::Minus1)? != inputs || !fits || count * outputs == 0 {
        candle_core::bail!("a linear layer {:?} does not fit {:?}", weight.1.shape(), x.1.shape());
    }
    let rows = count / inputs;
    let device = x.0.device();
    let mut y = room::<T>(device, rows * outputs)?;
    let (x_view, weight, bias) = (view::<T>(x)?, view::<T>(weight)?, bias.map(view::<T>).transpose()?);
    // Its matrices have their columns in a row, so that every one of ours is its own transposed: y^T = W x^T.
    let product = MatmulConfig {
        transa: true,
        transb: false,
        transc: false,
        m: outputs as u64,
        n: rows as u64,
        k: inputs as u64,
        alpha: 1.0,
        lda: inputs as i64,
        ldb: inputs as i64,
        beta: 0.0,
        ldc: outputs as i64,
        stride_a: None,
        stride_b: None,
        stride_c: None,
        stride_bias: None,
        batch_size: None,
    };
    let handle = handle(device)?;
    // SAFETY: the weight is (outputs, inputs) and contiguous, x is `rows` contiguous rows of `inputs`, the bias has
    // `outputs` numbers, and `y` room for rows * outputs, all without gaps, as the leading dimensions say.
    #[expect(unsafe_code)]
    unsafe {
        handle.matmul(product, &weight, &x_view, &mut y, bias.as_ref(), None).map_err(Error::wrap)?;
    }
    let mut dims = x.1.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    Ok(result(y, x.0, dims))
}

fn handle(device: &CudaDevice) -> Result<Arc<CudaBlasLT>> {
    if let Some(handle) = HANDLES.with_borrow(|handles| handles.get(&device.id()).cloned()) {
        return Ok(handle);
    }
    let handle = Arc::new(CudaBlasLT::new(device.cuda_stream()).map_err(Error::wrap)?);
    HANDLES.with_borrow_mut(|handles| handles.insert(device.id(), Arc::clone(&handle)));
    Ok(handle)
}

operation!(LinearOp, "linear", on 3);
operation!(ProductOp, "product", on 2);
