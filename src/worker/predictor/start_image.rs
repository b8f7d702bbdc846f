//! What any predictor is given to start from.

use image::RgbImage;

use crate::{
    picture::{self, Unreadable},
    pipeline,
};

/// The picture in a file, at the size to draw. Takes long enough for large ones to be kept off the device's thread.
pub(in crate::worker) fn start_image(file: &[u8], width: u32, height: u32) -> Result<RgbImage, Unreadable> {
    Ok(pipeline::image::resize(&picture::read(file)?, width as usize, height as usize))
}
