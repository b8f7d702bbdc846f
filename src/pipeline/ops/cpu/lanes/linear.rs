//! Linear layers on processors with AVX2 or AVX-512: each core packs some outputs of the weight, in whichever type it
//! is kept, and multiplies all rows with them. So the weight passes once, however few rows there are.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    super::{
        number::Number,
        shared::{Shared, Start},
        turns::in_turns,
        vectors::{has_avx2, with_lanes},
    },
    MOST_LANES, Place, Rows, columns, multiply,
    panel::pack,
    rows,
};

/// Outputs that a core packs at a time, at most.
const WIDTH: usize = 256;
/// Inputs at a time, at most: with `WIDTH`, half a megabyte.
const DEPTH: usize = 512;
/// Outputs that a part is a multiple of: two of the widest vectors.
const COLUMNS: usize = 2 * MOST_LANES;
/// With fewer rows packing would be most of the work.
const FEWEST_ROWS: usize = 8;

/// Whether this way is open to a layer of these sizes on this processor.
pub(in super::super) fn fits(rows: usize, (inputs, outputs): (usize, usize)) -> bool {
    has_avx2()
        && rows >= FEWEST_ROWS
        && inputs > 0
        && inputs.is_multiple_of(MOST_LANES)
        && outputs.is_multiple_of(COLUMNS)
}

/// A layer and its input.
pub(in super::super) struct Linear<'a, T> {
    /// `(rows, inputs)`.
    pub(in super::super) x: &'a [f32],
    /// `(outputs, inputs)`.
    pub(in super::super) weight: &'a [T],
    pub(in super::super) bias: Option<&'a [f32]>,
    pub(in super::super) inputs: usize,
    pub(in super::super) outputs: usize,
}

impl<T: Number> Linear<'_, T> {
    /// `x W^T + b`. Only for sizes that [`fits`] is true of.
    pub(in super::super) fn forward(&self) -> Vec<f32> {
        let Self { x, weight, inputs, outputs, .. } = *self;
        let count = x.len() / inputs;
        assert!(fits(count, (inputs, outputs)) && weight.len() == inputs * outputs, "a layer of another kind");
        let threads = rayon::current_num_threads();
        // The same number of parts for each core; where there are not enough, some of the rows of each.
        let panels = outputs / COLUMNS;
        let parts = outputs.div_ceil(WIDTH).next_multiple_of(threads).min(panels);
        let width = panels.div_ceil(parts) * COLUMNS;
        let parts = outputs.div_ceil(width);
        let blocks = if parts < threads { threads.div_ceil(parts) } else { 1 };
        let block = count.div_ceil(blocks);
        let mut y = Vec::new();
        let target = Shared::after(&mut y, count, outputs);
        in_turns(parts * blocks, Vec::new, |panels, number| {
            let (first, row) = (number / blocks * width, number % blocks * block);
            with_lanes(Part {
                layer: self,
                outputs: first..(first + width).min(outputs),
                rows: row.min(count)..(row + block).min(count),
                panels,
                target,
            });
        });
        // SAFETY: `Shared::after` has made room for so many. `parts` times `width` are no fewer than the outputs,
        // `blocks` times `block` no fewer than the rows, and a part writes all of its outputs of all of its rows: its
        // outputs are whole panels, since `width` and all outputs are multiples of COLUMNS.
        #[expect(unsafe_code)]
        unsafe {
            y.set_len(count * outputs);
        }
        y
    }
}

/// Some outputs of some rows.
struct Part<'a, T> {
    layer: &'a Linear<'a, T>,
    outputs: Range<usize>,
    rows: Range<usize>,
    panels: &'a mut Vec<f32>,
    /// All of the output, of which these are nobody else's.
    target: Shared,
}

impl<T: Number> WithSimd for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { layer, outputs, rows: some, panels, target } = self;
        let columns = columns::<S>();
        let inputs = layer.inputs;
        let depth = inputs.div_ceil(inputs.div_ceil(DEPTH)).next_multiple_of(MOST_LANES);
        for first in (0..inputs).step_by(depth) {
            let part = first..(first + depth).min(inputs);
            let depth = part.len();
            panels.resize(depth * outputs.len(), 0.0);
            // SAFETY: a layer that `fits` is on a processor with F16C.
            #[expect(unsafe_code)]
            unsafe {
                pack(simd, layer.weight, inputs, outputs.clone(), part, panels);
            }
            // A few rows meet all columns while they are in the first cache.
            for row in some.clone().step_by(rows::<S>()) {
                let count = rows::<S>().min(some.end - row);
                let left = Rows { values: &layer.x[row * inputs + first..], stride: inputs };
                for (column, panel) in outputs.clone().step_by(columns).zip(panels.chunks_exact(depth * columns)) {
                    let start = match layer.bias {
                        _ if first > 0 => Start::Target,
                        bias => bias.map_or(Start::Zero, Start::Bias),
                    };
                    // SAFETY: `forward` keeps the target until all parts are done, and these outputs of these rows are
                    // this part's alone. What comes before the last of the depth has written them.
                    #[expect(unsafe_code)]
                    unsafe {
                        multiply(simd, count, left, panel, start, Place { matrix: target, row, column });
                    }
                }
            }
        }
    }
}
