//! Products in f32 whose sums stay in registers, written once for every width of vectors.

#[cfg(target_arch = "x86_64")]
mod linear;
#[cfg(target_arch = "x86_64")]
mod panel;

use pulp::{NullaryFnOnce, Simd};

use super::shared::{Shared, Start};

#[cfg(target_arch = "x86_64")]
pub(super) use linear::{Linear, fits};

/// Lanes of the widest vectors there are.
pub(super) const MOST_LANES: usize = 16;
/// Lanes of AVX2's.
#[cfg(target_arch = "x86_64")]
pub(super) const EIGHT: usize = 8;

/// Columns of sums that [`multiply`] keeps at once: two vectors.
pub(super) const fn columns<S: Simd>() -> usize {
    2 * S::F32_LANES
}

/// Rows of sums that [`multiply`] keeps at once: with two vectors each they leave registers for two vectors of the
/// right operand and one of the left.
pub(super) const fn rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 14 } else { 6 }
}

/// The numbers from `at` on.
#[inline(always)]
pub(super) fn load<S: Simd>(values: &[f32], at: usize) -> S::f32s {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&values[at..][..S::F32_LANES]))
}

/// Writes numbers from `at` on.
#[inline(always)]
pub(super) fn store<S: Simd>(values: &mut [f32], at: usize, lanes: S::f32s) {
    values[at..][..S::F32_LANES].copy_from_slice(bytemuck::cast_slice(&[lanes]));
}

/// Rows of numbers, `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
}

/// Where sums go: some columns of some rows.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) matrix: Shared,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// `target = start + left * right` for `count` rows and [`columns`] columns; `right` has as many numbers for each of
/// the depth.
///
/// # Safety
/// The target's matrix is still there, and nobody else touches these rows and columns meanwhile. They have been written
/// to if the sums begin with them.
#[inline(always)]
#[expect(unsafe_code, reason = "the target may be shared")]
pub(super) unsafe fn multiply<S: Simd>(
    simd: S,
    count: usize,
    left: Rows<'_>,
    right: &[f32],
    start: Start<'_>,
    target: Place,
) {
    let mut first = 0;
    while first < count {
        let left = Rows { values: &left.values[first * left.stride..], ..left };
        let target = Place { row: target.row + first, ..target };
        // As many rows as there are registers for, and what is left of them in few sizes.
        // SAFETY: the same is demanded of both, and none of these sizes is more than count - first rows.
        first += unsafe {
            match count - first {
                14.. if rows::<S>() == 14 => block::<S, 14>(simd, left, right, start, target),
                8.. if rows::<S>() == 14 => block::<S, 8>(simd, left, right, start, target),
                6.. if rows::<S>() == 6 => block::<S, 6>(simd, left, right, start, target),
                4.. => block::<S, 4>(simd, left, right, start, target),
                2.. => block::<S, 2>(simd, left, right, start, target),
                _ => block::<S, 1>(simd, left, right, start, target),
            }
        };
    }
}

/// The sums of `ROWS` rows; gives `ROWS` back.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
#[expect(unsafe_code, reason = "the target may be shared")]
unsafe fn block<S: Simd, const ROWS: usize>(
    simd: S,
    left: Rows<'_>,
    right: &[f32],
    start: Start<'_>,
    target: Place,
) -> usize {
    let depth = right.len() / columns::<S>();
    let Shared { values, len, row_stride } = target.matrix;
    let end = target.column + columns::<S>();
    assert!(
        (ROWS - 1) * left.stride + depth <= left.values.len()
            && end <= row_stride
            && (target.row + ROWS - 1) * row_stride + end <= len,
        "a matrix is smaller than its product needs"
    );
    // SAFETY: the offset is less than that of the last number that was just asserted to be within the matrix.
    let sums = unsafe { values.add(target.row * row_stride + target.column) };
    let start = match start {
        Start::Zero => None,
        Start::Bias(bias) => Some((bias[target.column..end].as_ptr(), 0)),
        Start::Target => Some((sums.cast_const(), row_stride)),
    };
    // A function of its own, so that nothing else wants its registers.
    simd.vectorize(Block::<S, ROWS> {
        simd,
        depth,
        left: left.values.as_ptr(),
        left_stride: left.stride,
        right: right.as_ptr().cast(),
        start,
        sums,
        sums_stride: row_stride,
    });
    ROWS
}

/// What [`block`] has made sure of: all of it may be read or written.
struct Block<S: Simd, const ROWS: usize> {
    simd: S,
    depth: usize,
    left: *const f32,
    left_stride: usize,
    right: *const S::f32s,
    /// Where the sums' beginnings are, and how far apart their rows.
    start: Option<(*const f32, usize)>,
    sums: *mut f32,
    sums_stride: usize,
}

impl<S: Simd, const ROWS: usize> NullaryFnOnce for Block<S, ROWS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, depth, mut left, left_stride, mut right, start, sums: target, sums_stride } = self;
        // Checks in these loops would cost more than what they check.
        // SAFETY: `block`, which alone makes these, has asserted that ROWS rows of `depth` numbers, `left_stride`
        // apart, are there on the left and ROWS rows of two vectors, `sums_stride` apart, in the target; the right is
        // `depth` times two vectors by its length. `start` is two vectors of the bias in a row, or the target's own
        // rows, which have been written to. `left` and `right` end one behind the last that is read.
        #[expect(unsafe_code)]
        unsafe {
            let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
            if let Some((start, stride)) = start {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let start = start.add(row * stride).cast::<S::f32s>();
                    *sums = [start.read_unaligned(), start.add(1).read_unaligned()];
                }
            }
            for _ in 0..depth {
                let columns = [right.read_unaligned(), right.add(1).read_unaligned()];
                for (row, sums) in sums.iter_mut().enumerate() {
                    let number = simd.splat_f32s(*left.add(row * left_stride));
                    sums[0] = simd.mul_add_e_f32s(number, columns[0], sums[0]);
                    sums[1] = simd.mul_add_e_f32s(number, columns[1], sums[1]);
                }
                (left, right) = (left.add(1), right.add(2));
            }
            for (row, sums) in sums.iter().enumerate() {
                let target = target.add(row * sums_stride).cast::<S::f32s>();
                target.write_unaligned(sums[0]);
                target.add(1).write_unaligned(sums[1]);
            }
        }
    }
}
