//! Matrix products.

use std::marker::PhantomData;

use gemm::Parallelism;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::{lanes, number::Number, shared::Start, tiles};
use super::{shared::Shared, values::Weight};
use crate::pipeline::weights::Numbers;

/// Numbers of a half-precision weight converted at a time: few enough to stay in a core's cache until they are used,
/// and enough to be worth packing the other side for.
const PANEL: usize = 1 << 19;

/// A matrix somewhere in a slice: rows and columns may lie any distance apart and may even overlap.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows one after another, `row_stride` apart.
    pub(super) fn rows(values: &'a [f32], row_stride: usize) -> Self {
        Self { values, row_stride, column_stride: 1 }
    }

    /// The transpose.
    pub(super) fn transposed(self) -> Self {
        Self { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.values.len()
    }
}

/// Where a product goes: rows of a slice, `row_stride` apart.
pub(super) struct Target<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) row_stride: usize,
    /// Whether the product is added to what is there.
    pub(super) accumulate: bool,
}

/// `target = left * right`, of sizes `(m, k)` and `(k, n)`.
pub(super) fn multiply(
    target: Target<'_>,
    left: Matrix<'_>,
    right: Matrix<'_>,
    sizes: (usize, usize, usize),
    parallelism: Parallelism,
) {
    // SAFETY: the target is borrowed for this call alone, so nobody else touches any of its columns.
    #[expect(unsafe_code)]
    unsafe {
        SharedTarget::of(target).multiply(0, left, right, sizes, parallelism);
    }
}

/// A target that several cores write to, each to columns of its own.
#[derive(Clone, Copy)]
struct SharedTarget<'a> {
    matrix: Shared,
    accumulate: bool,
    borrowed: PhantomData<&'a mut [f32]>,
}

impl<'a> SharedTarget<'a> {
    fn of(target: Target<'a>) -> Self {
        let Target { values, row_stride, accumulate } = target;
        Self { matrix: Shared::of(values, row_stride), accumulate, borrowed: PhantomData }
    }

    /// Writes the product `(m, k) * (k, n)` to the `n` columns from `first` on.
    ///
    /// # Safety
    /// Nobody else touches these columns meanwhile.
    #[expect(unsafe_code, reason = "gemm takes pointers")]
    unsafe fn multiply(
        &self,
        first: usize,
        left: Matrix<'_>,
        right: Matrix<'_>,
        (m, k, n): (usize, usize, usize),
        parallelism: Parallelism,
    ) {
        if m == 0 || n == 0 || k == 0 {
            return;
        }
        let Shared { values, len, row_stride } = self.matrix;
        assert!(left.holds(m, k) && right.holds(k, n), "a matrix is smaller than its product needs");
        assert!(
            first + n <= row_stride && (m - 1) * row_stride + first + n <= len,
            "the target is smaller than the product"
        );
        // SAFETY: m, n and k are at least 1. The last number read of `left` is the one at row m - 1 and column k - 1,
        // of `right` at row k - 1 and column n - 1, and both are within their slices (`holds`). The last one written is
        // at (m - 1) * row_stride + first + n - 1, below `len`; all are in columns first..first + n, which are the
        // caller's.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                values.add(first),
                1,
                row_stride as isize,
                self.accumulate,
                left.values.as_ptr(),
                left.column_stride as isize,
                left.row_stride as isize,
                right.values.as_ptr(),
                right.column_stride as isize,
                right.row_stride as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

/// `x W^T + b` for rows of `inputs` numbers.
pub(super) fn linear(
    x: &[f32],
    weight: &Weight<'_>,
    bias: Option<&[f32]>,
    (inputs, outputs): (usize, usize),
) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if tiles::pay(weight.precision()) && x.len() / inputs >= tiles::FEWEST_ROWS {
        let precision = weight.precision();
        return match weight.numbers() {
            Numbers::F32(weight) => linear_on_tiles(x, (weight, precision), bias, (inputs, outputs)),
            Numbers::F16(weight) => linear_on_tiles(x, (weight, precision), bias, (inputs, outputs)),
            Numbers::BF16(weight) => linear_on_tiles(x, (weight, precision), bias, (inputs, outputs)),
        };
    }
    #[cfg(target_arch = "x86_64")]
    if lanes::fits(x.len() / inputs, (inputs, outputs)) {
        return match weight.numbers() {
            Numbers::F32(weight) => lanes::Linear { x, weight, bias, inputs, outputs }.forward(),
            Numbers::F16(weight) => lanes::Linear { x, weight, bias, inputs, outputs }.forward(),
            Numbers::BF16(weight) => lanes::Linear { x, weight, bias, inputs, outputs }.forward(),
        };
    }
    let mut y = match bias {
        Some(bias) => repeat(bias, x.len() / inputs),
        None => vec![0.0; x.len() / inputs * outputs],
    };
    let rows = x.len() / inputs;
    let target = Target { values: &mut y, row_stride: outputs, accumulate: bias.is_some() };
    let weight = (weight.numbers(), Order::Outputs);
    multiply_by_weight(target, Matrix::rows(x, inputs), weight, (rows, inputs, outputs));
    y
}

/// How a weight lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A row for each output, of all its inputs.
    Outputs,
    /// A row for each input, of all its outputs.
    Inputs,
}

impl Order {
    /// A weight that lies so, `(k, n)`.
    fn matrix(self, values: &[f32], (k, n): (usize, usize)) -> Matrix<'_> {
        match self {
            Self::Outputs => Matrix::rows(values, k).transposed(),
            Self::Inputs => Matrix::rows(values, n),
        }
    }
}

/// `target = left * right` with a weight `(k, n)` in whichever type it is kept, on all cores.
pub(super) fn multiply_by_weight(
    target: Target<'_>,
    left: Matrix<'_>,
    (weight, order): (Numbers<'_>, Order),
    (m, k, n): (usize, usize, usize),
) {
    match weight {
        Numbers::F32(weight) => {
            multiply(target, left, order.matrix(weight, (k, n)), (m, k, n), Parallelism::Rayon(0));
        }
        Numbers::F16(weight) => multiply_half(target, left, (weight, order), (m, k, n)),
        Numbers::BF16(weight) => multiply_half(target, left, (weight, order), (m, k, n)),
    }
}

/// `target = left * right` with a right side `(k, n)` in half precision. Each core converts some of the columns and
/// multiplies with these, so that what was converted is still in its cache, and no core waits for another.
fn multiply_half<T: Copy + Sync>(
    target: Target<'_>,
    left: Matrix<'_>,
    (right, order): (&[T], Order),
    (m, k, n): (usize, usize, usize),
) where
    [T]: HalfFloatSliceExt,
{
    assert!(right.len() == k * n, "a weight of another size");
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    // The same share for each core.
    let panels = (k * n).div_ceil(PANEL).next_multiple_of(rayon::current_num_threads()).min(n);
    let width = n.div_ceil(panels);
    let shared = SharedTarget::of(target);
    (0..n).into_par_iter().step_by(width).for_each_init(Vec::new, |wide: &mut Vec<f32>, first| {
        let columns = width.min(n - first);
        wide.resize(k * columns, 0.0);
        match order {
            Order::Outputs => right[first * k..][..k * columns].convert_to_f32_slice(wide),
            Order::Inputs => {
                for (wide, right) in wide.chunks_exact_mut(columns).zip(right.chunks_exact(n)) {
                    right[first..][..columns].convert_to_f32_slice(wide);
                }
            }
        }
        let right = order.matrix(wide, (k, columns));
        // SAFETY: the columns first..first + columns are this step's alone, since steps are `width` apart and no wider.
        // The target is borrowed until all have ended.
        #[expect(unsafe_code)]
        unsafe {
            shared.multiply(first, left, right, (m, k, columns), Parallelism::None);
        }
    });
}

#[cfg(target_arch = "x86_64")]
fn linear_on_tiles<T: Number>(
    x: &[f32],
    (weight, precision): (&[T], tiles::Precision),
    bias: Option<&[f32]>,
    (inputs, outputs): (usize, usize),
) -> Vec<f32> {
    let count = x.len() / inputs;
    let mut y = Vec::new();
    tiles::Product {
        left: &tiles::Pieces::of(x, inputs, precision),
        rows: &tiles::row_tiles(count, inputs),
        segments: tiles::Segments { count: 1, stride: 0 },
        right: tiles::Right {
            values: weight,
            order: tiles::Order::Outputs,
            row_stride: inputs,
            columns: outputs,
            depth: inputs,
        },
        start: bias.map_or(Start::Zero, Start::Bias),
    }
    .append_to(&mut y);
    y
}

fn repeat(row: &[f32], rows: usize) -> Vec<f32> {
    let mut values = vec![0.0; row.len() * rows];
    values.par_chunks_mut(row.len()).with_min_len(64).for_each(|target| target.copy_from_slice(row));
    values
}
