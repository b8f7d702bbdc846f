//! The softmax of keys that come block by block: with each come a new largest score and a new sum, and what was summed up
//! before is scaled to them (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).

use super::super::elementwise::exp;

/// Numbers that are looked at together.
const LANES: usize = 16;

/// The softmax of one query so far.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    largest: f32,
    total: f32,
}

impl Softmax {
    /// Of no keys.
    pub(super) const EMPTY: Self = Self { largest: f32::NEG_INFINITY, total: 0.0 };

    /// Makes weights of a block's scores and returns what earlier sums are to be multiplied with.
    #[inline(always)]
    pub(super) fn take(&mut self, scores: &mut [f32], scale: f32) -> f32 {
        let (lanes, rest) = scores.as_chunks::<LANES>();
        let mut largest = [self.largest; LANES];
        lanes.iter().for_each(|lane| largest.iter_mut().zip(lane).for_each(|(largest, x)| *largest = largest.max(*x)));
        let largest = largest.iter().chain(rest).copied().fold(self.largest, f32::max);
        let shrinks = exp(scale * (self.largest - largest));
        let (lanes, rest) = scores.as_chunks_mut::<LANES>();
        let mut totals = [0.0f32; LANES];
        for lane in lanes {
            for (x, total) in lane.iter_mut().zip(&mut totals) {
                *x = exp(scale * (*x - largest));
                *total += *x;
            }
        }
        let mut total = totals.iter().sum::<f32>();
        for x in rest {
            *x = exp(scale * (*x - largest));
            total += *x;
        }
        self.total = self.total * shrinks + total;
        self.largest = largest;
        shrinks
    }

    /// What sums of values by these weights are to be multiplied with in the end.
    pub(super) fn inverse(&self) -> f32 {
        1.0 / self.total
    }
}
