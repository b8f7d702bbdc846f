//! The softmax of keys that come block by block: with each come a new largest score and a new sum, and what was summed
//! up before is scaled to them (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
//!
//! Powers are of two, since `e^(scale * x)` is `2^(scale * log2(e) * x)`: one multiplication makes a score an exponent.

use std::f32::consts::{LN_2, LOG2_E};

use pulp::{Scalar, Simd};

/// Vectors that are looked at together, so that one need not wait for the last one's result.
const TOGETHER: usize = 4;

/// The softmax of one query so far.
#[derive(Clone, Copy)]
pub(super) struct Softmax {
    /// The largest score.
    largest: f32,
    total: f32,
}

impl Softmax {
    /// Of no keys.
    pub(super) const EMPTY: Self = Self { largest: f32::NEG_INFINITY, total: 0.0 };

    /// Makes weights of the first `visible` of a block's scores, of which there is one at least, and zeros of all
    /// others. The scores reach to the end of the last visible one's vector. Returns what earlier sums are to be
    /// multiplied with.
    #[inline(always)]
    pub(super) fn take<S: Simd>(&mut self, simd: S, scores: &mut [f32], visible: usize, scale: f32) -> f32 {
        let whole = visible.next_multiple_of(S::F32_LANES);
        scores[visible..whole].fill(f32::NEG_INFINITY);
        scores[whole..].fill(0.0);
        let vectors = S::as_mut_simd_f32s(&mut scores[..whole]).0;
        let largest = self.largest.max(largest_of(simd, vectors));
        let to_exponent = scale * LOG2_E;
        let shrinks = power_of_two(Scalar, (self.largest - largest) * to_exponent);
        let (most, factor) = (simd.splat_f32s(largest), simd.splat_f32s(to_exponent));
        let mut totals = [simd.splat_f32s(0.0); TOGETHER];
        let (chunks, rest) = vectors.as_chunks_mut::<TOGETHER>();
        for chunk in chunks {
            for (x, total) in chunk.iter_mut().zip(&mut totals) {
                *x = power_of_two(simd, simd.mul_f32s(simd.sub_f32s(*x, most), factor));
                *total = simd.add_f32s(*total, *x);
            }
        }
        for x in rest {
            *x = power_of_two(simd, simd.mul_f32s(simd.sub_f32s(*x, most), factor));
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
fn largest_of<S: Simd>(simd: S, vectors: &[S::f32s]) -> f32 {
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

/// `2^x` for `x` that is not above zero, to two parts in 10^7; not less than the smallest normal number. `x` is what is
/// nearest to it of whole numbers, whose power is put together from its bits, and a rest, of which a polynomial makes a
/// power (coefficients by a fit that levels the greatest relative errors, 1.05e-7 before rounding).
#[inline(always)]
fn power_of_two<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Adding it pushes a small number's fraction out of an f32, whose last bits are then the exponent's of a power of
    /// two: the number and 127.
    const ROUND: f32 = 12_582_912.0 + 127.0;
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
    let whole = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(EXPONENT_BITS_FROM));
    simd.mul_f32s(sum, simd.transmute_f32s_u32s(whole))
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;

    /// Blocks of scores, and how many of each are visible.
    #[derive(Clone, Copy)]
    struct Blocks<'a>(&'a [(Vec<f32>, usize)]);

    /// What became of them.
    struct Taken {
        weights: Vec<Vec<f32>>,
        /// What earlier sums shrink by, at each block.
        shrinks: Vec<f32>,
        inverse: f32,
    }

    impl WithSimd for Blocks<'_> {
        type Output = Taken;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Taken {
            let (mut softmax, mut weights, mut shrinks) = (Softmax::EMPTY, Vec::new(), Vec::new());
            for (scores, visible) in self.0 {
                let mut scores = scores.clone();
                shrinks.push(softmax.take(simd, &mut scores, *visible, 0.125));
                weights.push(scores);
            }
            Taken { weights, shrinks, inverse: softmax.inverse() }
        }
    }

    /// Whole vectors of exponents, which become powers.
    #[derive(Clone, Copy)]
    struct Exponents<'a>(&'a [f32]);

    impl WithSimd for Exponents<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut powers = self.0.to_vec();
            let (vectors, rest) = S::as_mut_simd_f32s(&mut powers);
            assert!(rest.is_empty(), "there are no whole vectors of these");
            vectors.iter_mut().for_each(|x| *x = power_of_two(simd, *x));
            powers
        }
    }

    /// Has what `task` makes looked at, for every width of vectors that this machine has.
    fn with_all_widths<T: WithSimd + Copy>(task: T, check: impl Fn(&str, T::Output)) {
        check("scalar", task.with_simd(Scalar));
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(simd) = pulp::x86::V3::try_new() {
                check("AVX2", pulp::Arch::V3(simd).dispatch(task));
            }
            if let Some(simd) = pulp::x86::V4::try_new() {
                check("AVX-512", pulp::Arch::V4(simd).dispatch(task));
            }
        }
    }

    #[test]
    fn powers_of_two_are_exact_to_two_parts_in_ten_million() {
        let exponents: Vec<f32> = (0..126_000).map(|number| number as f32 * -1e-3).collect();
        with_all_widths(Exponents(&exponents), |name, powers| {
            for (x, power) in exponents.iter().zip(powers) {
                let error = (f64::from(power) / f64::from(*x).exp2() - 1.0).abs();
                assert!(error < 2e-7, "{name}: 2^{x} is off by {error:e}");
            }
        });
        let special = [0.0, -1.0, -126.0, -1e30, f32::NEG_INFINITY];
        let expected = [1.0, 0.5, f32::MIN_POSITIVE, f32::MIN_POSITIVE, f32::MIN_POSITIVE];
        for (x, expected) in special.into_iter().zip(expected) {
            with_all_widths(Exponents(&[x; 16]), |name, powers| assert_eq!(powers, [expected; 16], "{name}: 2^{x}"));
        }
        for nan in [f32::NAN, f32::from_bits(0x7fc0_0001)] {
            let all_are_nan = |name: &str, powers: Vec<f32>| {
                assert!(powers.iter().all(|power| power.is_nan()), "{name}: {powers:?} of NaNs");
            };
            with_all_widths(Exponents(&[nan; 16]), all_are_nan);
        }
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
            with_all_widths(Blocks(&blocks), |name, Taken { weights, shrinks, inverse }| {
                for (number, (weights, block)) in weights.iter().zip(&blocks).enumerate() {
                    let later: f32 = shrinks[number + 1..].iter().product();
                    for (place, (weight, exponent)) in weights.iter().zip(exponents(block)).enumerate() {
                        let (found, expected) = (f64::from(weight * later * inverse), exponent.exp() / total);
                        let error = (found - expected).abs();
                        // Exponents up to 64 are 3.8e-6 apart.
                        assert!(error < 3e-6 * expected + 1e-30, "{name}, {number}, {place}: {found} for {expected}");
                    }
                    assert!(weights[block.1..].iter().all(|hidden| *hidden == 0.0), "{name}: a hidden one counts");
                }
            });
        }
    }

    #[test]
    fn scores_of_any_size_have_the_largest_one_win() {
        for largest in [1e3, 3e9, 1e20, 1e37] {
            let mut scores: Vec<f32> = (0..77).map(|number| largest * (number as f32 / 100.0 - 1.0)).collect();
            scores[33] = largest;
            scores.resize(80, 0.0);
            with_all_widths(Blocks(&[(scores, 77)]), |name, Taken { weights, inverse, .. }| {
                assert_eq!(weights[0][33] * inverse, 1.0, "{name}, {largest:e}");
            });
        }
    }

    #[test]
    fn a_nan_among_the_scores_reaches_the_total() {
        for place in [0, 5, 33, 70] {
            let mut scores = vec![1.0; 96];
            scores[place] = f32::NAN;
            for blocks in [vec![(scores.clone(), 71)], vec![(vec![2.0; 96], 96), (scores, 71)]] {
                with_all_widths(Blocks(&blocks), |name, Taken { inverse, .. }| {
                    assert!(inverse.is_nan(), "{name}: {inverse} with a NaN at {place}");
                });
            }
        }
    }
}
