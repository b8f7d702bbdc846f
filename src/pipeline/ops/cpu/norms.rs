//! Group norm and layer norm, with statistics in f64: a picture is a long sum.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::{elementwise::silu, shared::written, vectors::vectorized};

/// Pixels a core takes at a time.
const ROWS: usize = 256;

/// What follows normalization.
pub(super) struct Affine<'a> {
    pub(super) weight: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) eps: f64,
}

impl Affine<'_> {
    fn channels(&self) -> usize {
        assert!(self.weight.len() == self.bias.len(), "a norm's weight and bias are of different lengths");
        self.weight.len()
    }
}

/// Normalizes groups of channels over each of `batch` pictures.
pub(super) fn group_norm(x: &[f32], batch: usize, groups: usize, affine: &Affine<'_>, then_silu: bool) -> Vec<f32> {
    let channels = affine.channels();
    let picture = x.len() / batch;
    // SAFETY: x and y are equally long and divided alike. A pixel has no more than `channels` numbers, and there are at
    // least so many of `scale` and `shift` (or making them panics), so every y has its x, its scale and its shift.
    #[expect(unsafe_code)]
    unsafe {
        written(x.len(), |y| {
            for (x, y) in x.chunks(picture).zip(y.chunks_mut(picture)) {
                let (scale, shift) = scale_and_shift(x, groups, affine);
                y.par_chunks_mut(ROWS * channels).zip(x.par_chunks(ROWS * channels)).for_each(|(y, x)| {
                    vectorized(|| {
                        for (y, x) in y.chunks_mut(channels).zip(x.chunks(channels)) {
                            let numbers = y.iter_mut().zip(x).zip(&scale).zip(&shift);
                            if then_silu {
                                numbers.for_each(|(((y, x), scale), shift)| _ = y.write(silu(x * scale + shift)));
                            } else {
                                numbers.for_each(|(((y, x), scale), shift)| _ = y.write(x * scale + shift));
                            }
                        }
                    });
                });
            }
        })
    }
}

/// The whole norm as one multiplication and one addition a channel.
fn scale_and_shift(x: &[f32], groups: usize, affine: &Affine<'_>) -> (Vec<f32>, Vec<f32>) {
    let channels = affine.channels();
    let sums = x
        .par_chunks(ROWS * channels)
        .map(|x| {
            let (mut sums, mut squares) = (vec![0.0f64; channels], vec![0.0f64; channels]);
            vectorized(|| {
                for pixel in x.chunks(channels) {
                    for ((sum, square), &x) in sums.iter_mut().zip(&mut squares).zip(pixel) {
                        let x = f64::from(x);
                        *sum += x;
                        *square += x * x;
                    }
                }
            });
            sums.into_iter().zip(squares).collect::<Vec<_>>()
        })
        .reduce(
            || vec![(0.0, 0.0); channels],
            |mut a, b| {
                a.iter_mut().zip(b).for_each(|(a, b)| *a = (a.0 + b.0, a.1 + b.1));
                a
            },
        );
    let width = channels / groups;
    let count = (x.len() / groups) as f64;
    let mut scale = Vec::with_capacity(channels);
    let mut shift = Vec::with_capacity(channels);
    for (group, sums) in sums.chunks(width).enumerate() {
        let (sum, squares) = sums.iter().fold((0.0, 0.0), |total, sum| (total.0 + sum.0, total.1 + sum.1));
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        let deviation = 1.0 / (variance + affine.eps).sqrt();
        for channel in group * width..(group + 1) * width {
            let factor = f64::from(affine.weight[channel]) * deviation;
            scale.push(factor as f32);
            shift.push((f64::from(affine.bias[channel]) - mean * factor) as f32);
        }
    }
    (scale, shift)
}

/// Normalizes each row.
pub(super) fn layer_norm(x: &[f32], affine: &Affine<'_>) -> Vec<f32> {
    let channels = affine.channels();
    // SAFETY: x and y are equally long and divided alike, into rows no longer than the weight and the bias, so
    // `normalize` writes every number of each.
    #[expect(unsafe_code)]
    unsafe {
        written(x.len(), |y| {
            y.par_chunks_mut(channels).zip(x.par_chunks(channels)).with_min_len(32).for_each(|(y, x)| {
                vectorized(|| normalize(x, affine, y));
            });
        })
    }
}

/// Adds two and normalizes each row of the sum: gives the sum and its rows normalized.
pub(super) fn residual_layer_norm(x: &[f32], residual: &[f32], affine: &Affine<'_>) -> (Vec<f32>, Vec<f32>) {
    let channels = affine.channels();
    assert!(x.len() == residual.len(), "a residual of another size");
    let terms = x.par_chunks(channels).zip(residual.par_chunks(channels));
    let mut y = Vec::new();
    // SAFETY: all four are equally long and divided alike, into rows no longer than `row`, the weight and the bias. So
    // every sum has its two terms, and `normalize`, which is given no fewer numbers than a row has, writes every y.
    #[expect(unsafe_code)]
    let sums = unsafe {
        written(x.len(), |sums| {
            y = written(x.len(), |y| {
                let results = sums.par_chunks_mut(channels).zip(y.par_chunks_mut(channels));
                let row = || vec![0.0; channels];
                results.zip(terms).with_min_len(32).for_each_init(row, |row, ((sums, y), (x, residual))| {
                    vectorized(|| {
                        let terms = row.iter_mut().zip(sums).zip(x.iter().zip(residual));
                        terms.for_each(|((number, sum), (x, residual))| *number = *sum.write(x + residual));
                        normalize(row, affine, y);
                    });
                });
            });
        })
    };
    (sums, y)
}

/// Normalizes a row.
#[inline(always)]
fn normalize(x: &[f32], affine: &Affine<'_>, y: &mut [MaybeUninit<f32>]) {
    let count = x.len() as f64;
    let mean = sum(x, f64::from) / count;
    let variance = sum(x, |x| (f64::from(x) - mean) * (f64::from(x) - mean)) / count;
    let (mean, deviation) = (mean as f32, (1.0 / (variance + affine.eps).sqrt()) as f32);
    for (((y, x), weight), bias) in y.iter_mut().zip(x).zip(affine.weight).zip(affine.bias) {
        y.write((x - mean) * deviation * weight + bias);
    }
}

/// A sum in eight parts, which vectors can make at once.
#[inline(always)]
fn sum(x: &[f32], term: impl Fn(f32) -> f64) -> f64 {
    let (lanes, rest) = x.as_chunks::<8>();
    let mut sums = [0.0; 8];
    lanes.iter().for_each(|lane| sums.iter_mut().zip(lane).for_each(|(sum, &x)| *sum += term(x)));
    sums.iter().sum::<f64>() + rest.iter().map(|&x| term(x)).sum::<f64>()
}
