//! How a convolution is cut into pieces that fit into caches, and how a transformed weight lies in memory.

use std::ops::Range;

use super::super::{convolution::Geometry, lanes::MOST_LANES};

/// Output channels that any way takes at a time, at most.
pub(super) const MOST_OUTPUTS: usize = 256;

/// What is multiplied at a time, at most: so many tiles with so much of the weight.
#[derive(Clone, Copy)]
pub(super) struct Blocking {
    pub(super) tiles: usize,
    /// Output channels, no more than [`MOST_OUTPUTS`].
    pub(super) outputs: usize,
    /// Input channels.
    pub(super) inputs: usize,
}

/// A transformed weight: groups of output channels, of each the parts of the input channels, of each
/// `(places, panels, inputs, columns)`, places [`apart`].
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// [`Transforms::PLACES`](super::transforms::Transforms::PLACES).
    places: usize,
    in_channels: usize,
    out_channels: usize,
    /// Output channels of each group but perhaps the last.
    pub(super) outputs: usize,
    /// Parts of the input channels.
    pub(super) parts: usize,
    /// Input channels of each part but perhaps the last.
    pub(super) inputs: usize,
}

impl Layout {
    pub(super) fn new(geometry: &Geometry, blocking: Blocking, places: usize) -> Self {
        let Geometry { in_channels, out_channels, .. } = *geometry;
        let parts = in_channels.div_ceil(blocking.inputs);
        let inputs = in_channels.div_ceil(parts).next_multiple_of(MOST_LANES);
        Self { places, in_channels, out_channels, outputs: blocking.outputs, parts, inputs }
    }

    /// Parts of all groups.
    pub(super) fn pieces(&self) -> usize {
        self.out_channels.div_ceil(self.outputs) * self.parts
    }

    /// The output channels of a group.
    pub(super) fn outputs_of(&self, group: usize) -> Range<usize> {
        let first = group * self.outputs;
        first..(first + self.outputs).min(self.out_channels)
    }

    /// The input channels of a part.
    pub(super) fn inputs_of(&self, part: usize) -> Range<usize> {
        let first = part * self.inputs;
        first..(first + self.inputs).min(self.in_channels)
    }

    /// Numbers from one place to the next.
    pub(super) fn place(&self) -> usize {
        apart(self.inputs * self.outputs)
    }

    /// Numbers of one part of one group.
    pub(super) fn piece(&self) -> usize {
        self.places * self.place()
    }
}

/// How far apart the numbers of a tile's places are, if each place has so many: an odd number of the cache's lines.
/// They are written and read together, one of each place, and lines that are a power of two apart push each other out
/// of the first cache.
pub(super) const fn apart(numbers: usize) -> usize {
    numbers.next_multiple_of(MOST_LANES) | MOST_LANES
}
