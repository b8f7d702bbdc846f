//! The weight's transform, into a core's cache.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use pulp::Simd;

use super::{
    super::{
        convolution::Geometry,
        lanes::{self, load, store},
    },
    Problem,
    block::{DEPTH, WIDTH},
    transforms::{self, KERNEL, PLACES, TILE},
};
use crate::pipeline::weights::Numbers;

/// These inputs of these outputs of the weight to what tiles are multiplied with, `(places, panels, depth, columns)`. `taps` is
/// memory for a row of each tap in f32.
#[inline(always)]
pub(super) fn transform<S: Simd>(
    simd: S,
    problem: &Problem<'_>,
    inputs: Range<usize>,
    outputs: Range<usize>,
    (kernel, taps): (&mut Vec<f32>, &mut Vec<f32>),
) {
    let Geometry { in_channels, out_channels, .. } = *problem.geometry;
    let (lanes, panel) = (S::F32_LANES, lanes::columns::<S>());
    let (depth, width) = (inputs.len(), outputs.len());
    kernel.resize(PLACES * DEPTH * WIDTH, 0.0);
    taps.resize(KERNEL * KERNEL * WIDTH, 0.0);
    for (number, input) in inputs.enumerate() {
        let place = |tap: usize| (tap * in_channels + input) * out_channels + outputs.start;
        let rows = rows_of_taps(problem.weight, place, width, taps);
        for column in (0..width).step_by(lanes) {
            let mut taps = [[simd.splat_f32s(0.0); KERNEL]; KERNEL];
            for (tap, row) in taps.as_flattened_mut().iter_mut().zip(rows) {
                *tap = load::<S>(row, column);
            }
            let offset = (column / panel * depth + number) * panel + column % panel;
            for (i, row) in transforms::kernel(simd, taps).into_iter().enumerate() {
                for (j, value) in row.into_iter().enumerate() {
                    if problem.counts(i, j) {
                        store::<S>(kernel, (TILE * i + j) * DEPTH * WIDTH + offset, value);
                    }
                }
            }
        }
    }
}

/// `width` numbers of each tap, where they are or converted into `taps`.
#[inline(always)]
fn rows_of_taps<'a>(
    weight: Numbers<'a>,
    place: impl Fn(usize) -> usize,
    width: usize,
    taps: &'a mut [f32],
) -> [&'a [f32]; KERNEL * KERNEL] {
    let wide = taps.chunks_exact_mut(WIDTH).map(|row| &mut row[..width]).enumerate();
    match weight {
        Numbers::F32(weight) => return std::array::from_fn(|tap| &weight[place(tap)..][..width]),
        Numbers::F16(weight) => wide.for_each(|(tap, row)| weight[place(tap)..][..width].convert_to_f32_slice(row)),
        Numbers::BF16(weight) => wide.for_each(|(tap, row)| weight[place(tap)..][..width].convert_to_f32_slice(row)),
    }
    std::array::from_fn(|tap| &taps[tap * WIDTH..][..width])
}
