//! Convolution as few, large matrix products.
//!
//! In a zero-padded channels-last picture the pixels under one row of the kernel are contiguous, so that row's share of
//! every output is one product of a matrix whose rows overlap: nothing is copied into columns first. Whole bands of
//! the picture go into one product; the few outputs that straddle two rows are computed and thrown away.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::Padding,
    matrix::{Matrix, Order, Target, multiply, multiply_by_weight},
    values::Weight,
    winograd,
};
#[cfg(target_arch = "x86_64")]
use super::{lanes::Rows, number::Number, shared::Start, tiles};
#[cfg(target_arch = "x86_64")]
use crate::pipeline::weights::Numbers;

/// Positions up to which a picture is one product that all cores share, so that a large weight is packed once.
const WHOLE: usize = 4096;
/// Pixels from which on Winograd's way is faster than vectors of bf16 numbers.
#[cfg(target_arch = "x86_64")]
const LARGE: usize = 64 * 64;
/// Numbers that a core adds a residual to at a time.
#[cfg(target_arch = "x86_64")]
const CHUNK: usize = 1 << 14;
/// Positions a band has at least, so that packing the weight is a small part of its work.
const BAND: usize = 768;

/// Sizes of one convolution.
pub(super) struct Geometry {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) in_channels: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) out_channels: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: Padding,
}

impl Geometry {
    fn padded_width(&self) -> usize {
        self.width + self.padding.before + self.padding.after
    }

    /// Where the weights of one row of the kernel are: `(kernel * in, out)`.
    fn weights_of(&self, kernel_row: usize) -> Range<usize> {
        let len = self.kernel * self.in_channels * self.out_channels;
        kernel_row * len..(kernel_row + 1) * len
    }

    fn padded_height(&self) -> usize {
        self.height + self.padding.before + self.padding.after
    }
}

/// What is added to the sums.
#[derive(Clone, Copy)]
pub(super) struct Added<'a> {
    /// A number for each channel.
    pub(super) bias: &'a [f32],
    /// A number for each of the result.
    pub(super) residual: Option<&'a [f32]>,
}

impl Added<'_> {
    /// What is added to some numbers of the result.
    fn to(self, numbers: Range<usize>) -> Self {
        Self { residual: self.residual.map(|residual| &residual[numbers]), ..self }
    }

    /// Adds it to whole pixels.
    fn add(self, y: &mut [f32]) {
        for pixel in y.chunks_mut(self.bias.len()) {
            pixel.iter_mut().zip(self.bias).for_each(|(value, bias)| *value += bias);
        }
        self.add_residual(y);
    }

    /// Adds what is not the bias.
    fn add_residual(self, y: &mut [f32]) {
        let residual = self.residual.unwrap_or_default();
        y.iter_mut().zip(residual).for_each(|(value, residual)| *value += residual);
    }
}

/// Whether the arithmetic of `winograd`, which is f32's, is the fastest that is exact enough for the weight.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "nothing else multiplies in less than f32"))]
pub(super) fn goes_by_winograd(weight: &Weight<'_>, geometry: &Geometry, upsampled: bool) -> bool {
    #[cfg(target_arch = "x86_64")]
    if !weight.is_exact() && tiles::pay(weight.precision()) {
        // Matrix units multiply what is asked for in less than f32 faster than it saves; vectors do where it has to
        // transform the weight for few pixels, and where none of its products is zero.
        let saves = upsampled || geometry.out_height * geometry.out_width >= LARGE;
        return saves && tiles::units() == Some(tiles::Units::Vectors) && winograd::fits(geometry);
    }
    winograd::fits(geometry)
}

/// Convolves each picture of a batch, in whichever way is the fastest. The weight is `(kernel, kernel, in, out)`.
pub(super) fn convolve(x: &[f32], weight: &Weight<'_>, added: Added<'_>, geometry: &Geometry) -> Vec<f32> {
    if goes_by_winograd(weight, geometry, false) {
        return winograd::convolve(x, weight, added, geometry, false);
    }
    #[cfg(target_arch = "x86_64")]
    if tiles::pay(weight.precision()) {
        let precision = weight.precision();
        return match weight.numbers() {
            Numbers::F32(weight) => convolve_on_tiles(x, (weight, precision), added, geometry),
            Numbers::F16(weight) => convolve_on_tiles(x, (weight, precision), added, geometry),
            Numbers::BF16(weight) => convolve_on_tiles(x, (weight, precision), added, geometry),
        };
    }
    convolve_by_gemm(x, weight, added, geometry)
}

/// In f32: a picture is one product that all cores share, or bands of it are a core's each.
fn convolve_by_gemm(x: &[f32], weight: &Weight<'_>, added: Added<'_>, geometry: &Geometry) -> Vec<f32> {
    let picture = geometry.height * geometry.width * geometry.in_channels;
    let row = geometry.out_width * geometry.out_channels;
    let of_result = geometry.out_height * row;
    let mut y = vec![0.0; x.len() / picture * of_result];
    let pictures = x.chunks(picture).zip(y.chunks_mut(of_result)).enumerate();
    let pictures = pictures.map(|(number, (x, y))| (x, y, added.to(number * of_result..(number + 1) * of_result)));
    if geometry.out_height * geometry.padded_width() <= WHOLE {
        let multiply = |kernel_row, target: Target<'_>, left: Matrix<'_>, sizes| {
            let numbers = weight.numbers();
            let part = numbers.part(geometry.weights_of(kernel_row));
            multiply_by_weight(target, left, (part, Order::Inputs), sizes);
        };
        pictures.for_each(|(x, y, added)| band(&pad(x, geometry), added, geometry, (0, y), multiply));
    } else {
        // All bands meet all of it.
        let weight = &*weight.to_f32();
        let multiply = |kernel_row, target: Target<'_>, left: Matrix<'_>, sizes| {
            let right = Matrix::rows(&weight[geometry.weights_of(kernel_row)], geometry.out_channels);
            multiply(target, left, right, sizes, Parallelism::None);
        };
        let rows = BAND.div_ceil(geometry.padded_width());
        for (x, y, added) in pictures {
            let padded = pad(x, geometry);
            y.par_chunks_mut(rows * row).enumerate().for_each(|(number, y)| {
                let first = number * rows * row;
                band(&padded, added.to(first..first + y.len()), geometry, (number * rows, y), multiply);
            });
        }
    }
    y
}

/// On matrix units, or in vectors of bf16 numbers: without padding in f32 and without outputs that are thrown away:
/// rows of tiles begin where rows of the picture do.
#[cfg(target_arch = "x86_64")]
fn convolve_on_tiles<T: Number>(
    x: &[f32],
    (weight, precision): (&[T], tiles::Precision),
    added: Added<'_>,
    geometry: &Geometry,
) -> Vec<f32> {
    let Geometry { in_channels, out_channels, out_height, out_width, kernel, stride, .. } = *geometry;
    let picture = geometry.height * geometry.width * in_channels;
    let padded_row = geometry.padded_width() * in_channels;
    let depth = kernel * in_channels;
    let mut rows = Vec::with_capacity(out_height * out_width.div_ceil(tiles::TILE));
    for row in 0..out_height {
        rows.extend(tiles::row_tiles(out_width, stride * in_channels).into_iter().map(|tile| tiles::RowTile {
            left: tile.left + row * stride * padded_row,
            target: tile.target + row * out_width,
            ..tile
        }));
    }
    let segments = tiles::Segments { count: kernel, stride: padded_row };
    let right = tiles::Right {
        values: weight,
        order: tiles::Order::Depths,
        row_stride: out_channels,
        columns: out_channels,
        depth: kernel * depth,
    };
    let before = geometry.padding.before;
    let mut y = Vec::with_capacity(x.len() / picture * out_height * out_width * out_channels);
    for x in x.chunks(picture) {
        let row = geometry.width * in_channels;
        let left = tiles::Pieces::padded(
            Rows { values: x, stride: row },
            row,
            (geometry.padded_height(), padded_row),
            (before, before * in_channels),
            (stride * in_channels, precision),
        );
        let start = Start::Bias(added.bias);
        tiles::Product { left: &left, rows: &rows, segments, right, start }.append_to(&mut y);
    }
    if added.residual.is_some() {
        y.par_chunks_mut(CHUNK).enumerate().for_each(|(number, y)| {
            added.to(number * CHUNK..number * CHUNK + y.len()).add_residual(y);
        });
    }
    y
}

fn pad(x: &[f32], geometry: &Geometry) -> Vec<f32> {
    let row = geometry.width * geometry.in_channels;
    let padded_row = geometry.padded_width() * geometry.in_channels;
    let before = geometry.padding.before;
    let mut padded = vec![0.0; geometry.padded_height() * padded_row];
    padded.par_chunks_mut(padded_row).skip(before).zip(x.par_chunks(row)).with_min_len(16).for_each(
        |(target, source)| {
            target[before * geometry.in_channels..][..row].copy_from_slice(source);
        },
    );
    padded
}

/// The output rows from `first` on that fit into `y`. `multiply` makes the product with a row of the kernel.
fn band(
    padded: &[f32],
    added: Added<'_>,
    geometry: &Geometry,
    (first, y): (usize, &mut [f32]),
    multiply: impl Fn(usize, Target<'_>, Matrix<'_>, (usize, usize, usize)),
) {
    let Geometry { in_channels, out_channels, kernel, stride, out_width, .. } = *geometry;
    let row = out_width * out_channels;
    let padded_row = geometry.padded_width() * in_channels;
    let depth = kernel * in_channels;
    let product = |target: &mut [f32], from_row: usize, positions: usize| {
        for kernel_row in 0..kernel {
            multiply(
                kernel_row,
                Target { values: target, row_stride: out_channels, accumulate: kernel_row > 0 },
                Matrix::rows(&padded[(from_row + kernel_row) * padded_row..], stride * in_channels),
                (positions, depth, out_channels),
            );
        }
    };
    if stride == 1 {
        let rows = y.len() / row;
        let positions = (rows - 1) * geometry.padded_width() + out_width;
        let mut target = vec![0.0; positions * out_channels];
        product(&mut target, first, positions);
        for (y, target) in y.chunks_mut(row).zip(target.chunks(geometry.padded_width() * out_channels)) {
            y.copy_from_slice(&target[..row]);
        }
    } else {
        // With a stride, outputs below each other are not equally far apart in the input: row by row, then.
        for (number, y) in y.chunks_mut(row).enumerate() {
            product(y, (first + number) * stride, out_width);
        }
    }
    added.add(y);
}
