//! The weight's transform, into a core's cache.

use std::ops::Range;

use pulp::Simd;

use super::{
    super::{
        convolution::Geometry,
        lanes::{self, load, store},
        number::{Number, widened, widens_in_registers},
    },
    Problem,
    block::{DEPTH, MOST_WIDTH, apart},
    transforms::{KERNEL, Transforms},
};
use crate::pipeline::weights::Numbers;

/// These inputs of these outputs of the weight to what tiles are multiplied with, `(places, panels, depth, columns)`.
#[inline(always)]
pub(super) fn transform<S: Simd, F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize>(
    simd: S,
    problem: &Problem<'_>,
    inputs: Range<usize>,
    outputs: Range<usize>,
    kernel: &mut Vec<f32>,
) {
    match problem.weight {
        Numbers::F32(weight) => {
            transform_from::<S, F, _, TILE, OUTPUTS>(simd, weight, problem, (inputs, outputs), kernel);
        }
        Numbers::F16(weight) => {
            transform_from::<S, F, _, TILE, OUTPUTS>(simd, weight, problem, (inputs, outputs), kernel);
        }
        Numbers::BF16(weight) => {
            transform_from::<S, F, _, TILE, OUTPUTS>(simd, weight, problem, (inputs, outputs), kernel);
        }
    }
}

#[inline(always)]
fn transform_from<S: Simd, F: Transforms<TILE, OUTPUTS>, T: Number, const TILE: usize, const OUTPUTS: usize>(
    simd: S,
    weight: &[T],
    problem: &Problem<'_>,
    (inputs, outputs): (Range<usize>, Range<usize>),
    kernel: &mut Vec<f32>,
) {
    let Geometry { in_channels, out_channels, .. } = *problem.geometry;
    let (lanes, panel) = (S::F32_LANES, lanes::columns::<S>());
    let (depth, width) = (inputs.len(), outputs.len());
    kernel.resize(TILE * TILE * apart(DEPTH * F::WIDTH), 0.0);
    // Where to widen a vector is a call, whole rows are widened first.
    let in_registers = widens_in_registers::<S, T>();
    let mut wide = [[0.0; MOST_WIDTH]; KERNEL * KERNEL];
    for (number, input) in inputs.enumerate() {
        let place = |tap: usize| (tap * in_channels + input) * out_channels + outputs.start;
        if !in_registers {
            for (tap, wide) in wide.iter_mut().enumerate() {
                T::widen(&weight[place(tap)..][..width], &mut wide[..width]);
            }
        }
        for column in (0..width).step_by(lanes) {
            let mut taps = [[simd.splat_f32s(0.0); KERNEL]; KERNEL];
            for (number, tap) in taps.as_flattened_mut().iter_mut().enumerate() {
                *tap = if in_registers {
                    widened(simd, &weight[place(number) + column..])
                } else {
                    load::<S>(&wide[number], column)
                };
            }
            let offset = (column / panel * depth + number) * panel + column % panel;
            for (i, row) in F::kernel(simd, taps).into_iter().enumerate() {
                for (j, value) in row.into_iter().enumerate() {
                    if problem.counts(i, j) {
                        store::<S>(kernel, (TILE * i + j) * apart(DEPTH * F::WIDTH) + offset, value);
                    }
                }
            }
        }
    }
}
