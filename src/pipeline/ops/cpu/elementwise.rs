//! Operations on one number or one pixel at a time, written so that the compiler can use vector instructions.

use rayon::prelude::*;

use super::{
    super::{Activation, resample::nearest_source},
    shared::written,
    vectors::vectorized,
};

/// Numbers a core takes at a time.
const CHUNK: usize = 1 << 14;

/// `e^x` to about one part in 10^7, without branches or calls, so that loops over it vectorize.
///
/// `x = n ln 2 + r`, a polynomial for `e^r` (Cephes `expf`), and `2^n` put together from its bits.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it pushes a small number's fraction out of an f32.
    const ROUND: f32 = 12_582_912.0;
    /// `ln 2` in two parts, the first exact in few bits.
    const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);
    let x = x.clamp(-87.3, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = x - n * LN_2.0 - n * LN_2.1;
    let mut sum = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        sum = sum * r + coefficient;
    }
    let power = f32::from_bits(rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    (sum * r * r + r + 1.0) * power
}

/// The error function, as Eigen approximates it in f32: a quotient of odd and even polynomials on [-4, 4].
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut numerator = -2.726_142_3e-10;
    for coefficient in [2.770_681_4e-8, -2.101_024e-6, -5.692_506_5e-5, -7.349_906e-4, -2.954_6e-3, -1.609_603_3e-2] {
        numerator = numerator * square + coefficient;
    }
    let mut denominator = -1.456_607_2e-5;
    for coefficient in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        denominator = denominator * square + coefficient;
    }
    x * numerator / denominator
}

/// `x * sigmoid(x)`.
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x * Phi(x)`.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

pub(super) fn activation(activation: Activation, x: &[f32]) -> Vec<f32> {
    match activation {
        Activation::Silu => map(x, silu),
        Activation::Gelu => map(x, gelu),
        Activation::QuickGelu => map(x, |x| x / (1.0 + exp(-1.702 * x))),
    }
}

#[inline(always)]
fn map(x: &[f32], function: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    // SAFETY: x and y are equally long, so their chunks are as many and as long as each other, and every y has its x.
    #[expect(unsafe_code)]
    unsafe {
        written(x.len(), |y| {
            y.par_chunks_mut(CHUNK)
                .zip(x.par_chunks(CHUNK))
                .for_each(|(y, x)| vectorized(|| y.iter_mut().zip(x).for_each(|(y, &x)| _ = y.write(function(x)))));
        })
    }
}

pub(super) fn geglu(x: &[f32], inner: usize) -> Vec<f32> {
    assert!(x.len().is_multiple_of(2 * inner), "a row without halves");
    // SAFETY: x is whole rows of 2 * inner numbers, so y has as many rows, of inner numbers: as many as either half of
    // x has.
    #[expect(unsafe_code)]
    unsafe {
        written(x.len() / 2, |y| {
            y.par_chunks_mut(inner).zip(x.par_chunks(2 * inner)).with_min_len(8).for_each(|(y, x)| {
                let (value, gate) = x.split_at(inner);
                vectorized(|| {
                    let numbers = y.iter_mut().zip(value.iter().zip(gate));
                    numbers.for_each(|(y, (value, &gate))| _ = y.write(value * gelu(gate)));
                });
            });
        })
    }
}

pub(super) fn upsample_nearest(
    x: &[f32],
    (h, w, channels): (usize, usize, usize),
    (height, width): (usize, usize),
) -> Vec<f32> {
    let batch = x.len() / (h * w * channels);
    let columns: Vec<usize> = (0..width).map(|column| nearest_source(column, w, width)).collect();
    let mut y = vec![0.0; batch * height * width * channels];
    y.par_chunks_mut(width * channels).with_min_len(8).enumerate().for_each(|(number, y)| {
        let (picture, row) = (number / height, number % height);
        let source = &x[(picture * h + nearest_source(row, h, height)) * w * channels..][..w * channels];
        for (pixel, &column) in y.chunks_mut(channels).zip(&columns) {
            pixel.copy_from_slice(&source[column * channels..][..channels]);
        }
    });
    y
}

pub(super) fn concat_channels(a: &[f32], b: &[f32], (first, second): (usize, usize)) -> Vec<f32> {
    let pixels = a.len() / first;
    assert!(a.len() == pixels * first && b.len() == pixels * second, "pictures of different sizes");
    // SAFETY: y is `pixels` pixels of first + second numbers, as many as a and b have; the first ones of each are
    // written from a's pixel, which has so many, and the last ones from b's.
    #[expect(unsafe_code)]
    unsafe {
        written(a.len() + b.len(), |y| {
            let pixels = a.par_chunks(first).zip(b.par_chunks(second));
            y.par_chunks_mut(first + second).zip(pixels).with_min_len(64).for_each(|(y, (a, b))| {
                let (from_a, from_b) = y.split_at_mut(first);
                from_a.iter_mut().zip(a).chain(from_b.iter_mut().zip(b)).for_each(|(y, number)| _ = y.write(*number));
            });
        })
    }
}

pub(super) fn add_channels(x: &[f32], channels: &[f32], batch: usize, count: usize) -> Vec<f32> {
    let picture = x.len() / batch;
    let is_whole = x.len() == batch * picture && picture.is_multiple_of(count);
    assert!(is_whole && channels.len() == batch * count, "a number for each channel of each picture");
    // SAFETY: x and y are `batch` pictures of whole pixels of `count` numbers, and `channels` as many rows of `count`,
    // so every y has its x and its channel.
    #[expect(unsafe_code)]
    unsafe {
        written(x.len(), |y| {
            for ((y, x), channels) in y.chunks_mut(picture).zip(x.chunks(picture)).zip(channels.chunks(count)) {
                y.par_chunks_mut(count).zip(x.par_chunks(count)).with_min_len(64).for_each(|(y, x)| {
                    y.iter_mut().zip(x.iter().zip(channels)).for_each(|(y, (x, channel))| _ = y.write(x + channel));
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> impl Iterator<Item = f32> {
        (-80_000..80_000).map(|i| i as f32 * 1e-3)
    }

    #[test]
    fn exp_is_within_two_parts_in_ten_million() {
        for x in samples() {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) / exact - 1.0).abs();
            assert!(error < 2e-7, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.3));
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn erf_is_within_five_parts_in_ten_million() {
        for x in samples() {
            let exact = candle_core::cpu::erf::erf_f64(f64::from(x));
            let error = (f64::from(erf(x)) - exact).abs();
            assert!(error < 5e-7 * exact.abs().max(1e-3), "erf({x}) is off by {error:e}");
        }
    }
}
