//! Memory for operands.

use std::{
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
};

/// Numbers in a cache line.
const LINE: usize = 32;

/// A bf16 number's bits, or nothing yet: clearing memory that is then written to takes as long as writing to it.
pub(super) type Bits = MaybeUninit<u16>;

/// Zero.
pub(super) const NONE: Bits = Bits::new(0);

/// Numbers that begin where a cache line does. A row of a tile that lies across two lines takes both loads: with the
/// allocator's 16 bytes, loading takes three times as long as multiplying.
pub(super) struct Aligned {
    values: Vec<Bits>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// Room for so many numbers.
    pub(super) fn with_room(len: usize) -> Self {
        let room = if len == 0 { 0 } else { len + LINE };
        let mut values = Vec::with_capacity(room);
        // Numbers that may be missing need not be written.
        values.resize_with(room, Bits::uninit);
        // Cannot be more than LINE, since numbers are where numbers may be.
        let start = values.as_ptr().align_offset(LINE * size_of::<u16>()).min(room - len);
        Self { values, start, len }
    }

    /// Room for at least `len` numbers, whatever they are.
    pub(super) fn resize(&mut self, len: usize) {
        if len <= self.values.len() - self.start {
            self.len = len;
        } else {
            *self = Self::with_room(len);
        }
    }
}

impl Deref for Aligned {
    type Target = [Bits];

    fn deref(&self) -> &[Bits] {
        &self.values[self.start..][..self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [Bits] {
        &mut self.values[self.start..][..self.len]
    }
}
