//! The weight's transform: into a core's cache, or ahead for all of them.

use std::{marker::PhantomData, ops::Range};

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    super::{
        convolution::Geometry,
        lanes::{self, load, store},
        number::{Number, widened, widens_in_registers},
        shared::written,
        vectors::with_lanes,
    },
    Problem,
    blocking::{Layout, MOST_OUTPUTS},
    transforms::{KERNEL, Transforms},
};
use crate::pipeline::weights::Numbers;

/// All of the weight, transformed by all cores.
pub(super) fn ahead<F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize>(
    problem: &Problem<'_>,
    layout: Layout,
) -> Vec<f32> {
    // SAFETY: the chunks are all of the numbers, and each is set to zero before it is taken for numbers.
    #[expect(unsafe_code)]
    unsafe {
        written(layout.pieces() * layout.piece(), |numbers| {
            numbers.par_chunks_mut(layout.piece()).enumerate().for_each(|(number, piece)| {
                piece.iter_mut().for_each(|number| _ = number.write(0.0));
                let kernel = piece.assume_init_mut();
                with_lanes(Piece { transforms: PhantomData::<F>, problem, layout, number, kernel });
            });
        })
    }
}

/// One part of one group of outputs.
pub(super) struct Piece<'a, F, const TILE: usize, const OUTPUTS: usize> {
    pub(super) transforms: PhantomData<F>,
    pub(super) problem: &'a Problem<'a>,
    pub(super) layout: Layout,
    /// Counted through all groups.
    pub(super) number: usize,
    pub(super) kernel: &'a mut [f32],
}

impl<F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize> WithSimd for Piece<'_, F, TILE, OUTPUTS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { problem, layout, number, kernel, .. } = self;
        let channels = (layout.inputs_of(number % layout.parts), layout.outputs_of(number / layout.parts));
        transform::<S, F, TILE, OUTPUTS>(simd, problem, layout, channels, kernel);
    }
}

/// These inputs of these outputs of the weight to a piece of the layout. What belongs to no channel stays as it is.
#[inline(always)]
pub(super) fn transform<S: Simd, F: Transforms<TILE, OUTPUTS>, const TILE: usize, const OUTPUTS: usize>(
    simd: S,
    problem: &Problem<'_>,
    layout: Layout,
    channels: (Range<usize>, Range<usize>),
    kernel: &mut [f32],
) {
    let apart = layout.place();
    match problem.weight {
        Numbers::F32(weight) => {
            transform_from::<S, F, _, TILE, OUTPUTS>(simd, weight, problem, channels, kernel, apart);
        }
        Numbers::F16(weight) => {
            transform_from::<S, F, _, TILE, OUTPUTS>(simd, weight, problem, channels, kernel, apart);
        }
        Numbers::BF16(weight) => {
            transform_from::<S, F, _, TILE, OUTPUTS>(simd, weight, problem, channels, kernel, apart);
        }
    }
}

#[inline(always)]
fn transform_from<S: Simd, F: Transforms<TILE, OUTPUTS>, T: Number, const TILE: usize, const OUTPUTS: usize>(
    simd: S,
    weight: &[T],
    problem: &Problem<'_>,
    (inputs, outputs): (Range<usize>, Range<usize>),
    kernel: &mut [f32],
    apart: usize,
) {
    let Geometry { in_channels, out_channels, .. } = *problem.geometry;
    let (lanes, panel) = (S::F32_LANES, lanes::columns::<S>());
    let (depth, width) = (inputs.len(), outputs.len());
    // Where to widen a vector is a call, whole rows are widened first.
    let in_registers = widens_in_registers::<S, T>();
    let mut wide = [[0.0; MOST_OUTPUTS]; KERNEL * KERNEL];
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
                        store::<S>(kernel, (TILE * i + j) * apart + offset, value);
                    }
                }
            }
        }
    }
}
