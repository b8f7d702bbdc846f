//! What CLIP is given of a picture.
//!
//! transformers: `models/clip/image_processing_pil_clip.py`, `CLIPImageProcessorPil` with the values of every published
//! checker's `feature_extractor`.

use image::{RgbImage, imageops::crop_imm};

use super::super::image::{Filter, resize_with};

/// `OPENAI_CLIP_MEAN`.
const MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
/// `OPENAI_CLIP_STD`.
const STD: [f32; 3] = [0.26862954, 0.261_302_6, 0.275_777_1];

/// The middle of the picture, of `side` pixels after its shorter side became as long; channels last.
pub(super) fn prepare(image: &RgbImage, side: usize) -> Vec<f32> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    // `get_resize_output_image_size`: the longer side is rounded down.
    let shorter = width.min(height).max(1);
    let longer = |length: usize| if length == shorter { side } else { side * length / shorter };
    let resized = resize_with(Filter::Bicubic, image, longer(width), longer(height));
    let (left, top) = ((resized.width() - side as u32) / 2, (resized.height() - side as u32) / 2);
    let middle = crop_imm(&resized, left, top, side as u32, side as u32).to_image();
    let normalized = |(number, &byte): (usize, &u8)| {
        let channel = number % 3;
        (f32::from(byte) / 255.0 - MEAN[channel]) / STD[channel]
    };
    middle.as_raw().iter().enumerate().map(normalized).collect()
}
