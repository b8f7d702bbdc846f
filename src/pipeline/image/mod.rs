//! Pixels: from bytes to the VAE's numbers and back, and to another size.

mod resize;

use candle_core::{DType, Device, Tensor};
use image::RgbImage;

use super::error::Error;
pub use resize::resize;
pub(super) use resize::{Filter, resize_with};

/// An image as the VAE's input `(1, h, w, 3)` in [-1, 1], in f32 on the host.
///
/// diffusers: `image_processor.py`, `VaeImageProcessor.pil_to_numpy` and `normalize`.
pub fn to_tensor(image: &RgbImage) -> Result<Tensor, Error> {
    let values: Vec<f32> = image.as_raw().iter().map(|&byte| 2.0 * (f32::from(byte) / 255.0) - 1.0).collect();
    Ok(Tensor::from_vec(values, (1, image.height() as usize, image.width() as usize, 3), &Device::Cpu)?)
}

/// The VAE's output `(1, h, w, 3)` in [-1, 1] as pixels.
///
/// diffusers: `image_processor.py`, `VaeImageProcessor.postprocess`: `(x / 2 + 0.5).clamp(0, 1)`, then
/// `(255 x).round()`, which rounds halves to even.
pub fn from_tensor(pixels: &Tensor) -> Result<RgbImage, Error> {
    let pixels = pixels.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    let (_, height, width, _) = pixels.dims4()?;
    let values: Vec<f32> = pixels.flatten_all()?.to_vec1()?;
    if !values.iter().all(|value| value.is_finite()) {
        return Err(Error::NotFinite { stage: "the VAE" });
    }
    let bytes = values.into_iter().map(|x| (255.0 * (x / 2.0 + 0.5).clamp(0.0, 1.0)).round_ties_even() as u8).collect();
    RgbImage::from_raw(width as u32, height as u32, bytes)
        .ok_or_else(|| Error::Image("the VAE gave another number of channels than 3".into()))
}
