//! Resizing with Pillow's filters, to the last bit: what diffusers does to an image before the VAE sees it, and
//! transformers before CLIP does.
//!
//! Pillow (`src/libImaging/Resample.c`) convolves rows, rounds to bytes, and convolves columns, with weights in fixed
//! point. When an image shrinks the filter widens with it, so that every pixel counts.

use std::f64::consts::PI;

use image::RgbImage;
use rayon::prelude::*;

/// Pillow's filters, by its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Filter {
    /// What the VAE is given.
    Lanczos,
    /// What CLIP is given.
    Bicubic,
}

/// Binary places of a weight: a sum of weighted bytes, which may overshoot by half its range, fits an `i32`.
const WEIGHT_BITS: u32 = 22;
const CHANNELS: usize = 3;

/// The image at another size. The proportions are the caller's concern.
pub fn resize(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    resize_with(Filter::Lanczos, image, width, height)
}

/// The image at another size, by this filter.
pub(in super::super) fn resize_with(filter: Filter, image: &RgbImage, width: usize, height: usize) -> RgbImage {
    let (from_width, from_height) = (image.width() as usize, image.height() as usize);
    let mut pixels = image.as_raw().clone();
    if width != from_width {
        pixels = resize_rows(&pixels, &windows(filter, from_width, width), from_width, width);
    }
    if height != from_height {
        pixels = resize_columns(&pixels, &windows(filter, from_height, height), width);
    }
    let mut resized = RgbImage::new(width as u32, height as u32);
    resized.copy_from_slice(&pixels);
    resized
}

/// The pixels that make one pixel of the result, and how much each counts.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

fn resize_rows(pixels: &[u8], windows: &[Window], from: usize, to: usize) -> Vec<u8> {
    let mut resized = vec![0; pixels.len() / from * to];
    let rows = resized.par_chunks_exact_mut(to * CHANNELS).zip(pixels.par_chunks_exact(from * CHANNELS));
    rows.for_each(|(row, source)| {
        for (pixel, window) in row.chunks_exact_mut(CHANNELS).zip(windows) {
            let mut sums = [HALF; CHANNELS];
            let sources = source[window.first * CHANNELS..].chunks_exact(CHANNELS);
            for (source, weight) in sources.zip(&window.weights) {
                for (sum, &byte) in sums.iter_mut().zip(source) {
                    *sum += i32::from(byte) * weight;
                }
            }
            pixel.copy_from_slice(&sums.map(to_byte));
        }
    });
    resized
}

fn resize_columns(pixels: &[u8], windows: &[Window], width: usize) -> Vec<u8> {
    let row_length = width * CHANNELS;
    let mut resized = vec![0; row_length * windows.len()];
    resized.par_chunks_exact_mut(row_length).zip(windows).for_each(|(row, window)| {
        let mut sums = vec![HALF; row_length];
        let sources = pixels[window.first * row_length..].chunks_exact(row_length);
        for (source, weight) in sources.zip(&window.weights) {
            for (sum, &byte) in sums.iter_mut().zip(source) {
                *sum += i32::from(byte) * weight;
            }
        }
        for (byte, sum) in row.iter_mut().zip(sums) {
            *byte = to_byte(sum);
        }
    });
    resized
}

/// Where sums begin, so that cutting their fraction off rounds.
const HALF: i32 = 1 << (WEIGHT_BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// `precompute_coeffs` and `normalize_coeffs_8bpc`.
fn windows(filter: Filter, from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let filter_scale = scale.max(1.0);
    let inverse = 1.0 / filter_scale;
    let support = filter.support() * filter_scale;
    let window = |pixel: usize| {
        let center = (pixel as f64 + 0.5) * scale;
        // A float below 0 becomes 0.
        let first = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weights: Vec<f64> = (first..end).map(|i| filter.at((i as f64 - center + 0.5) * inverse)).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (weight / total * f64::from(1 << WEIGHT_BITS)).round() as i32;
        Window { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

impl Filter {
    /// Half its width, in pixels of the smaller image.
    const fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    /// `lanczos_filter`, `bicubic_filter`.
    fn at(self, x: f64) -> f64 {
        let support = self.support();
        match (self, x.abs()) {
            (Self::Lanczos, _) if !(-support..support).contains(&x) => 0.0,
            (Self::Lanczos, _) => sinc(x) * sinc(x / support),
            (Self::Bicubic, x) if x < 1.0 => ((BICUBIC + 2.0) * x - (BICUBIC + 3.0)) * x * x + 1.0,
            (Self::Bicubic, x) if x < support => (((x - 5.0) * x + 8.0) * x - 4.0) * BICUBIC,
            (Self::Bicubic, _) => 0.0,
        }
    }
}

/// How far a bicubic curve overshoots; Pillow's choice.
const BICUBIC: f64 = -0.5;

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn one_color_stays_that_color_at_any_size() {
        let color = Rgb([255, 0, 77]);
        let image = RgbImage::from_pixel(13, 5, color);
        for (width, height) in [(1, 1), (13, 5), (200, 3), (8, 64)] {
            let resized = resize(&image, width, height);
            assert_eq!((resized.width() as usize, resized.height() as usize), (width, height));
            assert!(resized.pixels().all(|pixel| *pixel == color), "{width}x{height}");
        }
    }
}
