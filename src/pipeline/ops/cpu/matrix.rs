//! Matrix products.

use gemm::Parallelism;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::tiles;
use super::values::{Kept, Weight, widen};

/// Elements of a half-precision weight converted at a time: small enough to stay in the cache until they are used.
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
    (m, k, n): (usize, usize, usize),
    parallelism: Parallelism,
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(left.holds(m, k) && right.holds(k, n), "a matrix is smaller than its product needs");
    assert!(
        n <= target.row_stride && (m - 1) * target.row_stride + n <= target.values.len(),
        "the target is smaller than the product"
    );
    #[expect(unsafe_code, reason = "the asserts above keep every access within the three slices")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.values.as_mut_ptr(),
            1,
            target.row_stride as isize,
            target.accumulate,
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

/// `x W^T + b` for rows of `inputs` numbers.
pub(super) fn linear(
    x: &[f32],
    weight: &Weight<'_>,
    bias: Option<&[f32]>,
    (inputs, outputs): (usize, usize),
) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if tiles::pay(weight.precision()) && x.len() / inputs >= tiles::FEWEST_ROWS {
        match weight.kept() {
            Kept::F32(weight) => return linear_on_tiles(x, weight, bias, (inputs, outputs)),
            Kept::F16(weight) => return linear_on_tiles(x, weight, bias, (inputs, outputs)),
            Kept::BF16(weight) => return linear_on_tiles(x, weight, bias, (inputs, outputs)),
        }
    }
    let mut y = match bias {
        Some(bias) => repeat(bias, x.len() / inputs),
        None => vec![0.0; x.len() / inputs * outputs],
    };
    let layer = Layer { x, inputs, outputs, accumulate: bias.is_some() };
    match weight.kept() {
        Kept::F32(weight) => layer.multiply_panel(&mut y, weight, 0),
        Kept::F16(weight) => layer.multiply_panels(&mut y, weight, widen),
        Kept::BF16(weight) => layer.multiply_panels(&mut y, weight, widen),
    }
    y
}

#[cfg(target_arch = "x86_64")]
fn linear_on_tiles<T: tiles::Number>(
    x: &[f32],
    weight: &[T],
    bias: Option<&[f32]>,
    (inputs, outputs): (usize, usize),
) -> Vec<f32> {
    let count = x.len() / inputs;
    let mut y = Vec::new();
    tiles::Product {
        left: &tiles::Pieces::of(x, inputs, T::PRECISION),
        rows: &tiles::row_tiles(count, inputs),
        segments: tiles::Segments { count: 1, stride: 0 },
        right: tiles::Right {
            values: weight,
            order: tiles::Order::Outputs,
            row_stride: inputs,
            columns: outputs,
            depth: inputs,
        },
        start: bias.map_or(tiles::Start::Zero, tiles::Start::Bias),
    }
    .append_to(&mut y);
    y
}

fn repeat(row: &[f32], rows: usize) -> Vec<f32> {
    let mut values = vec![0.0; row.len() * rows];
    values.par_chunks_mut(row.len()).with_min_len(64).for_each(|target| target.copy_from_slice(row));
    values
}

struct Layer<'a> {
    x: &'a [f32],
    inputs: usize,
    outputs: usize,
    accumulate: bool,
}

impl Layer<'_> {
    /// Converts and multiplies a panel of outputs at a time.
    fn multiply_panels<T>(&self, y: &mut [f32], weight: &[T], convert: impl Fn(&[T]) -> Vec<f32>) {
        let rows = (PANEL / self.inputs).max(1);
        for (number, panel) in weight.chunks(rows * self.inputs).enumerate() {
            self.multiply_panel(y, &convert(panel), number * rows);
        }
    }

    /// The outputs from `first` that these rows of the weight give.
    fn multiply_panel(&self, y: &mut [f32], rows: &[f32], first: usize) {
        multiply(
            Target { values: &mut y[first..], row_stride: self.outputs, accumulate: self.accumulate },
            Matrix::rows(self.x, self.inputs),
            Matrix::rows(rows, self.inputs).transposed(),
            (self.x.len() / self.inputs, self.inputs, rows.len() / self.inputs),
            Parallelism::Rayon(0),
        );
    }
}
