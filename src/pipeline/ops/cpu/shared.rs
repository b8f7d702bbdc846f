//! Where results go: memory that several cores write to at once.

use std::mem::MaybeUninit;

use bytemuck::Pod;

/// A matrix, a part of which is each core's own. It may be written to where nothing has been written yet.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    pub(super) values: *mut f32,
    pub(super) len: usize,
    /// Numbers from one row to the next.
    pub(super) row_stride: usize,
}

// SAFETY: it is a place, and f32 may be written by any thread. What writes to it is unsafe, and demands that nobody
// else touches the same numbers.
#[expect(unsafe_code)]
unsafe impl Send for Shared {}
// SAFETY: as for Send.
#[expect(unsafe_code)]
unsafe impl Sync for Shared {}

/// What sums begin with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start<'a> {
    /// Nothing.
    Zero,
    /// This in every row.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "gemm's sums begin with their target"))]
    Bias(&'a [f32]),
    /// What is in the target.
    Target,
}

impl Shared {
    /// The room that `target` has after its numbers, for `rows` of `columns`, once that much is there.
    pub(super) fn after(target: &mut Vec<f32>, rows: usize, columns: usize) -> Self {
        let len = rows * columns;
        target.reserve(len);
        Self { values: target.spare_capacity_mut().as_mut_ptr().cast(), len, row_stride: columns }
    }

    /// All of `values`, in rows of so many.
    pub(super) fn of(values: &mut [f32], columns: usize) -> Self {
        Self { values: values.as_mut_ptr(), len: values.len(), row_stride: columns }
    }

    /// Writes a vector to a row.
    ///
    /// # Safety
    /// The matrix is still there, and nobody else touches these numbers meanwhile.
    #[inline(always)]
    #[expect(unsafe_code, reason = "writes to numbers of the matrix that are the caller's")]
    pub(super) unsafe fn write<T: Pod>(&self, row: usize, column: usize, vector: T) {
        let place = self.place(row, column, size_of::<T>().div_ceil(size_of::<f32>()));
        // SAFETY: as many numbers as the vector's bytes take are within the matrix, which is still there, and the
        // caller's.
        unsafe { place.cast::<T>().write_unaligned(vector) }
    }

    /// Copies numbers to a row.
    ///
    /// # Safety
    /// As for [`Shared::write`].
    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "writes to numbers of the matrix that are the caller's")]
    pub(super) unsafe fn copy(&self, row: usize, column: usize, numbers: &[f32]) {
        let place = self.place(row, column, numbers.len());
        // SAFETY: `numbers.len()` numbers are within the matrix, which is still there. They are the caller's alone, so
        // `numbers`, which others may read, are not among them.
        unsafe { place.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len()) }
    }

    /// Where some numbers of a row are.
    #[inline(always)]
    fn place(&self, row: usize, column: usize, count: usize) -> *mut f32 {
        let end = column + count;
        assert!(
            end <= self.row_stride && row * self.row_stride + end <= self.len,
            "a matrix is smaller than what is written to it"
        );
        // SAFETY: the offset is below `len`, or `len` itself for no numbers, and `values` are `len` numbers of one
        // allocation.
        #[expect(unsafe_code)]
        unsafe {
            self.values.add(row * self.row_stride + column)
        }
    }
}

/// A vector of `len` numbers that `write` is handed before they are anything: to make them zeros first would be one
/// core's work, and as much as many an operation's own.
///
/// # Safety
/// `write` writes every number.
#[expect(unsafe_code, reason = "whoever calls it has seen to it that all is written")]
pub(super) unsafe fn written(len: usize, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(len);
    write(&mut numbers.spare_capacity_mut()[..len]);
    // SAFETY: there is room for `len` numbers, and the caller says that `write` has written each.
    unsafe {
        numbers.set_len(len);
    }
    numbers
}
