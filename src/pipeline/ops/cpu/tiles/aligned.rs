//! Memory for operands.

use std::ops::{Deref, DerefMut};

/// Numbers in a cache line.
const LINE: usize = 32;

/// Numbers that begin where a cache line does. A row of a tile that lies across two lines takes both loads: with the
/// allocator's 16 bytes, loading takes three times as long as multiplying.
pub(super) struct Aligned {
    values: Vec<u16>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// So many zeros.
    pub(super) fn zeros(len: usize) -> Self {
        let values = vec![0; if len == 0 { 0 } else { len + LINE }];
        // Cannot be more than LINE, since numbers are where numbers may be.
        let start = values.as_ptr().align_offset(LINE * size_of::<u16>()).min(values.len() - len);
        Self { values, start, len }
    }

    /// Room for at least `len` numbers, whatever they are.
    pub(super) fn resize(&mut self, len: usize) {
        if len <= self.values.len() - self.start {
            self.len = len;
        } else {
            *self = Self::zeros(len);
        }
    }
}

impl Deref for Aligned {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        &self.values[self.start..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u16] {
        &mut self.values[self.start..][..self.len]
    }
}
