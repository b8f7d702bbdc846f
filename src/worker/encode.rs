//! From drawn pixels to the bytes of a file, off the device's thread.

use image::{
    ExtendedColorType, ImageEncoder, RgbImage,
    codecs::{
        jpeg::JpegEncoder,
        png::{CompressionType, FilterType, PngEncoder},
    },
};

/// A PNG with the fast compressor: about a tenth larger than the best, and twenty times as quick.
pub(super) fn png(image: &RgbImage) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive).write_image(
        image.as_raw(),
        image.width(),
        image.height(),
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

/// A JPEG for a glance: a few kilobytes at a preview's size.
pub(super) fn jpeg(image: &RgbImage) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 80).encode_image(image)?;
    Ok(bytes)
}
