//! What goes number by number, in one pass, and by whole vectors where candle divides to find each.

use candle_core::{CudaStorage, D, Result, Shape, Tensor, backend::BackendStorage as _};

use super::{
    contiguous,
    launch::{
        ELEMENTWISE, Kernel, Number, Operand, VECTOR, blocks_for, in_vectors, launch, on_gpu, operation, result, room,
        view,
    },
};

/// Whether there is a kernel for this activation: both halves of its rows are whole vectors.
pub(in super::super) fn gates(x: &Tensor) -> bool {
    let bytes = x.dim(D::Minus1).unwrap_or(0) * x.dtype().size_in_bytes();
    in_vectors(&[x]) && bytes.is_multiple_of(2 * VECTOR)
}

pub(in super::super) fn geglu(x: &Tensor) -> Result<Tensor> {
    contiguous(x)?.apply_op1_no_bwd(&GegluOp)
}

/// Whether there is a kernel for these.
pub(in super::super) fn adds_channels(x: &Tensor, channels: &Tensor, residual: Option<&Tensor>) -> bool {
    in_vectors(&[x, channels]) && residual.is_none_or(|residual| in_vectors(&[residual]))
}

/// Adds `channels` `(b, c)` or `(1, c)` to every pixel of `x` `(b, h, w, c)` and, where there is one, a residual of the
/// same shape.
pub(in super::super) fn add_channels(x: &Tensor, channels: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let op = AddChannelsOp { residual: residual.map(contiguous).transpose()? };
    contiguous(x)?.apply_op2_no_bwd(&contiguous(channels)?, &op)
}

/// Whether there is a kernel for this activation.
pub(in super::super) fn upsamples(x: &Tensor, height: usize, width: usize) -> bool {
    let larger = x.dims4().map_or(0, |(batch, _, _, channels)| batch * height * width * channels);
    in_vectors(&[x]) && u32::try_from(larger).is_ok()
}

/// As [`super::super::upsample_nearest`].
pub(in super::super) fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    contiguous(x)?.apply_op1_no_bwd(&UpsampleNearestOp { height, width })
}

struct GegluOp;

impl GegluOp {
    fn run<T: Number>(&self, [x]: [Operand<'_>; 1]) -> Result<(CudaStorage, Shape)> {
        let mut dims = x.1.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last > 0 && *last % (2 * T::OF_VECTOR) == 0 => *last /= 2,
            _ => candle_core::bail!("the last dimension of {:?} has no halves of whole vectors", x.1.shape()),
        }
        let count = dims.iter().product::<usize>();
        let [vectors, inner] = [count, dims[dims.len() - 1]].map(|numbers| (numbers / T::OF_VECTOR) as u32);
        let (y, x_view) = (room::<T>(x.0.device(), count)?, view::<T>(x)?);
        let kernel = Kernel::new::<T>(&ELEMENTWISE, x.0.device(), "geglu")?;
        launch!(kernel, blocks_for(vectors), &x_view, &y, &vectors, &inner);
        Ok(result(y, x.0, dims))
    }
}

struct AddChannelsOp {
    residual: Option<Tensor>,
}

impl AddChannelsOp {
    fn run<T: Number>(&self, [x, channels]: [Operand<'_>; 2]) -> Result<(CudaStorage, Shape)> {
        let (device, shape) = (x.0.device(), x.1.shape());
        let (batch, _, _, width) = shape.dims4()?;
        let (of_batch, of_width) = channels.1.shape().dims2()?;
        if of_width != width || (of_batch != batch && of_batch != 1) || width % T::OF_VECTOR != 0 {
            candle_core::bail!("{:?} are no channels of {shape:?}", channels.1.shape());
        }
        let count = shape.elem_count();
        let (y, x_view, channels) = (room::<T>(device, count)?, view::<T>(x)?, view::<T>(channels)?);
        let sizes = [count, width, count / of_batch.max(1)];
        let [count, width, picture] = sizes.map(|numbers| (numbers / T::OF_VECTOR) as u32);
        let grid = blocks_for(count);
        match self.residual.as_ref().map(Tensor::storage_and_layout) {
            Some((storage, layout)) => {
                if layout.shape() != shape {
                    candle_core::bail!("a residual of {:?} for {shape:?}", layout.shape());
                }
                let residual = view::<T>((on_gpu(&storage)?, layout))?;
                let kernel = Kernel::new::<T>(&ELEMENTWISE, device, "add_channels_and_residual")?;
                launch!(kernel, grid, &x_view, &channels, &residual, &y, &count, &width, &picture);
            }
            None => {
                let kernel = Kernel::new::<T>(&ELEMENTWISE, device, "add_channels")?;
                launch!(kernel, grid, &x_view, &channels, &y, &count, &width, &picture);
            }
        }
        Ok(result(y, x.0, shape.clone()))
    }
}

struct UpsampleNearestOp {
    height: usize,
    width: usize,
}

impl UpsampleNearestOp {
    fn run<T: Number>(&self, [x]: [Operand<'_>; 1]) -> Result<(CudaStorage, Shape)> {
        let (batch, height, width, channels) = x.1.shape().dims4()?;
        let count = batch * self.height * self.width * channels;
        if channels % T::OF_VECTOR != 0 || height * width == 0 {
            candle_core::bail!("pixels of {:?} are no whole vectors", x.1.shape());
        }
        let (y, x_view) = (room::<T>(x.0.device(), count)?, view::<T>(x)?);
        let (scale_y, scale_x) = (height as f32 / self.height as f32, width as f32 / self.width as f32);
        let [vectors, pixel] = [count, channels].map(|numbers| (numbers / T::OF_VECTOR) as u32);
        let sizes = [height, width, self.height, self.width].map(|size| size as u32);
        let [height, width, to_height, to_width] = &sizes;
        let (kernel, grid) = (Kernel::new::<T>(&ELEMENTWISE, x.0.device(), "upsample_nearest")?, blocks_for(vectors));
        launch!(kernel, grid, &x_view, &y, &vectors, &pixel, height, width, to_height, to_width, &scale_y, &scale_x);
        Ok(result(y, x.0, (batch, self.height, self.width, channels)))
    }
}

operation!(GegluOp, "geglu", on 1);
operation!(AddChannelsOp, "add_channels", on 2);
operation!(UpsampleNearestOp, "upsample_nearest", on 1);
