//! The softmax of keys that come block by block: with each come a new largest score and a new sum, and what was summed up
//! before is scaled to them (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
//!
//! Powers are of two, so that a score needs one multiplication to become an exponent: `e^(scale * x)` is
//! `2^(scale * log2(e) * x)`.

use std::f32::consts::{LN_2, LOG2_E};

use pulp::{Scalar, Simd};

/// Vectors that are looked at together, so that one need not wait for the last one's result.
const TOGETHER: usize = 4;

/// The softmax of one query so far.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    /// The largest exponent.
    largest: f32,
    total: f32,
}

impl Softmax {
    /// Of no keys.
    pub(super) const EMPTY: Self = Self { largest: f32::NEG_INFINITY, total: 0.0 };

    /// Makes weights of the first `visible` of a block's scores, one at least, and zeros of the others, which fill the last
    /// vector; returns what earlier sums are to be multiplied with.
    #[inline(always)]
    pub(super) fn take<S: Simd>(&mut self, simd: S, scores: &mut [f32], visible: usize, scale: f32) -> f32 {
        let whole = visible.next_multiple_of(S::F32_LANES);
        scores[visible..whole].fill(f32::NEG_INFINITY);
        scores[whole..].fill(0.0);
        let vectors = S::as_mut_simd_f32s(&mut scores[..whole]).0;
        let to_exponents = scale * LOG2_E;
        let largest = self.largest.max(to_exponents * largest(simd, vectors));
        let shrinks = power_of_two(Scalar::new(), self.largest - largest);
        let mut totals = [simd.splat_f32s(0.0); TOGETHER];
        let (factor, shift) = (simd.splat_f32s(to_exponents), simd.splat_f32s(-largest));
        let (chunks, rest) = vectors.as_chunks_mut::<TOGETHER>();
        for chunk in chunks {
            for (x, total) in chunk.iter_mut().zip(&mut totals) {
                *x = power_of_two(simd, simd.mul_add_e_f32s(*x, factor, shift));
                *total = simd.add_f32s(*total, *x);
            }
        }
        for x in rest {
            *x = power_of_two(simd, simd.mul_add_e_f32s(*x, factor, shift));
            totals[0] = simd.add_f32s(totals[0], *x);
        }
        let [a, b, c, d] = totals;
        let total = simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)));
        self.total = self.total * shrinks + total;
        self.largest = largest;
        scores[visible..whole].fill(0.0);
        shrinks
    }

    /// What sums of values by these weights are to be multiplied with in the end.
    pub(super) fn inverse(&self) -> f32 {
        1.0 / self.total
    }
}

/// The largest of some numbers.
#[inline(always)]
fn largest<S: Simd>(simd: S, vectors: &[S::f32s]) -> f32 {
    let mut most = [simd.splat_f32s(f32::NEG_INFINITY); TOGETHER];
    let (chunks, rest) = vectors.as_chunks::<TOGETHER>();
    for chunk in chunks {
        for (most, x) in most.iter_mut().zip(chunk) {
            *most = simd.max_f32s(*most, *x);
        }
    }
    for x in rest {
        most[0] = simd.max_f32s(most[0], *x);
    }
    let [a, b, c, d] = most;
    simd.reduce_max_f32s(simd.max_f32s(simd.max_f32s(a, b), simd.max_f32s(c, d)))
}

/// `2^x` for `x` up to a hundred, to two parts in 10^7; not less than the smallest normal number. `x` is what is nearest to it
/// of whole numbers, which become the result's exponent as they are, and a rest, of which a polynomial makes a power
/// (coefficients by a fit that levels the greatest relative errors, 1.05e-7 before rounding).
#[inline(always)]
fn power_of_two<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Adding it pushes a small number's fraction out of an f32, whose last bits are then the number.
    const ROUND: f32 = 12_582_912.0;
    const EXPONENT_BITS_FROM: u32 = 23;
    const LEAST: f32 = -126.0;
    // What is not a number is not less and stays so.
    let least = simd.splat_f32s(LEAST);
    let x = simd.select_f32s(simd.less_than_f32s(x, least), least, x);
    let rounded = simd.add_f32s(x, simd.splat_f32s(ROUND));
    let rest = simd.sub_f32s(x, simd.sub_f32s(rounded, simd.splat_f32s(ROUND)));
    let mut sum = simd.splat_f32s(1.330_060_7e-3);
    for coefficient in [9.669_691e-3, 5.550_558_5e-2, 2.402_228_3e-1, LN_2, 1.0] {
        sum = simd.mul_add_e_f32s(sum, rest, simd.splat_f32s(coefficient));
    }
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(EXPONENT_BITS_FROM));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(sum), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The weights, the total and what earlier sums shrink by, of blocks of scores of which so many are visible.
    fn taken<S: Simd>(simd: S, blocks: &[(Vec<f32>, usize)]) -> (Vec<Vec<f32>>, f32, Vec<f32>) {
        let (mut softmax, mut weights, mut shrinks) = (Softmax::EMPTY, Vec::new(), Vec::new());
        for (scores, visible) in blocks {
            let mut scores = scores.clone();
            shrinks.push(softmax.take(simd, &mut scores, *visible, 0.125));
            weights.push(scores);
        }
        (weights, softmax.inverse(), shrinks)
    }

    /// What `check` finds of this program's vectors of every width.
    fn with_all_widths(check: impl Fn(&str, &dyn Fn(&[(Vec<f32>, usize)]) -> (Vec<Vec<f32>>, f32, Vec<f32>))) {
        check("scalar", &|blocks| taken(Scalar::new(), blocks));
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = pulp::x86::V3::try_new() {
                check("AVX2", &|blocks| taken(simd, blocks));
            }
            if let Some(simd) = pulp::x86::V4::try_new() {
                check("AVX-512", &|blocks| taken(simd, blocks));
            }
        }
    }

    #[test]
    fn powers_of_two_are_exact_to_two_parts_in_ten_million() {
        for number in -125_999..=100_000 {
            let x = number as f32 * 1e-3;
            let found = power_of_two(Scalar::new(), x);
            let error = (f64::from(found) / f64::from(x).exp2() - 1.0).abs();
            assert!(error < 2e-7, "2^{x} is off by {error:e}");
        }
        assert_eq!(power_of_two(Scalar::new(), f32::NEG_INFINITY), f32::MIN_POSITIVE);
        assert!(power_of_two(Scalar::new(), f32::NAN).is_nan());
    }

    #[test]
    fn blocks_of_any_length_have_the_softmax_of_all_scores() {
        let scores = |seed: usize| -> Vec<f32> {
            (0..160).map(|number| ((number * 7919 + seed * 104_729) % 1000) as f32 / 4.0 - 125.0).collect()
        };
        for visible in [1, 7, 8, 15, 16, 77, 144, 160] {
            let blocks = [(scores(1), visible), (scores(2), 160), (scores(3), visible)];
            let exponents = |(scores, visible): &(Vec<f32>, usize)| -> Vec<f64> {
                scores[..*visible].iter().map(|x| f64::from(*x) * 0.125).collect()
            };
            let total: f64 = blocks.iter().flat_map(exponents).map(f64::exp).sum();
            with_all_widths(|name, take| {
                let (weights, inverse, shrinks) = take(&blocks);
                for (number, (weights, block)) in weights.iter().zip(&blocks).enumerate() {
                    let later: f32 = shrinks[number + 1..].iter().product();
                    for (place, (weight, exponent)) in weights.iter().zip(exponents(block)).enumerate() {
                        let (found, expected) = (f64::from(weight * later * inverse), exponent.exp() / total);
                        let error = (found - expected).abs();
                        // Differences of exponents, up to 64, are 3.8e-6 apart.
                        assert!(error < 3e-6 * expected + 1e-30, "{name}, {number}, {place}: {found} for {expected}");
                    }
                    assert!(weights[block.1..].iter().all(|hidden| *hidden == 0.0), "{name}: a hidden one counts");
                }
            });
        }
    }

    #[test]
    fn a_score_that_is_no_number_leaves_no_weight_one() {
        with_all_widths(|name, take| {
            for place in [0, 5, 33, 70] {
                let mut scores = vec![1.0; 96];
                scores[place] = f32::NAN;
                let (_, inverse, _) = take(&[(scores, 71)]);
                assert!(inverse.is_nan(), "{name}: {inverse} with a NaN at {place}");
            }
        });
    }
}
