//! A glance at latents without the VAE: an eighth the size, and a few additions a pixel.
//!
//! A latent's channels are close to a linear picture in themselves. Which one depends on the VAE, so it is asked: it
//! decodes patches of single colors, and the map from their latents to those colors is the least-squares one. The same
//! way for every VAE; no table of anybody's.

use image::{Rgb, RgbImage};

use super::{Latents, Pipeline, error::Error, noise::TorchCudaRng};

/// Patches of the asked picture, along each side.
const PATCHES: usize = 8;
/// Latents of a patch, along each side. Its middle is out of reach of its neighbors.
const PATCH: usize = 4;
/// Keeps the equations solvable for a VAE that does not look at one of its channels.
const RIDGE: f64 = 1e-3;

/// From latents to colors: for red, green and blue a factor for each channel, and then a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentPreview {
    factors: [Vec<f64>; 3],
}

impl Pipeline {
    /// Asks this model's VAE what its latents look like. Costs decoding one picture of 256 x 256.
    pub fn latent_preview(&self) -> Result<LatentPreview, Error> {
        let (channels, side) = (self.unet.in_channels(), PATCHES * PATCH);
        // Latents have unit variance, and so have these.
        let colors = TorchCudaRng::new(0).normal(channels * PATCHES * PATCHES);
        let mut values = Vec::with_capacity(channels * side * side);
        for channel in 0..channels {
            for at in 0..side * side {
                let (row, column) = (at / side / PATCH, at % side / PATCH);
                values.push(colors[(channel * PATCHES + row) * PATCHES + column]);
            }
        }
        let picture = self.decode(&Latents { channels, height: side, width: side, values })?;
        let patches = (0..PATCHES * PATCHES).map(|patch| {
            let latent = (0..channels).map(|channel| f64::from(colors[channel * PATCHES * PATCHES + patch])).collect();
            (latent, middle(&picture, patch % PATCHES, patch / PATCHES))
        });
        Ok(LatentPreview::fit(&patches.collect::<Vec<_>>()))
    }
}

/// The mean color in the middle of a patch.
fn middle(picture: &RgbImage, column: usize, row: usize) -> [f64; 3] {
    let size = picture.width() / PATCHES as u32;
    let (left, top) = (column as u32 * size + size / 4, row as u32 * size + size / 4);
    let mut sum = [0.0; 3];
    for y in top..top + size / 2 {
        for x in left..left + size / 2 {
            let Rgb(color) = picture.get_pixel(x, y);
            sum.iter_mut().zip(color).for_each(|(sum, value)| *sum += f64::from(*value));
        }
    }
    sum.map(|sum| sum / f64::from((size / 2).pow(2)))
}

impl LatentPreview {
    /// The linear map, and constant, with the least squared error on pairs of a latent and its color.
    fn fit(pairs: &[(Vec<f64>, [f64; 3])]) -> Self {
        let unknowns = pairs.first().map_or(1, |(latent, _)| latent.len() + 1);
        let with_one = |latent: &[f64]| latent.iter().copied().chain([1.0]).collect::<Vec<f64>>();
        // The normal equations, the same left side for each color.
        let mut left = vec![vec![0.0; unknowns]; unknowns];
        let mut right = [(); 3].map(|()| vec![0.0; unknowns]);
        for (latent, color) in pairs {
            let latent = with_one(latent);
            for (i, &x) in latent.iter().enumerate() {
                latent.iter().zip(&mut left[i]).for_each(|(y, sum)| *sum += x * y);
                right.iter_mut().zip(color).for_each(|(sums, value)| sums[i] += x * value);
            }
        }
        (0..unknowns).for_each(|i| left[i][i] += RIDGE);
        Self { factors: right.map(|right| solve(left.clone(), right)) }
    }

    /// What latents look like: one pixel for each.
    pub fn project(&self, latents: &Latents) -> RgbImage {
        let planes: Vec<&[f32]> = latents.values.chunks_exact(latents.height * latents.width).collect();
        RgbImage::from_fn(latents.width as u32, latents.height as u32, |x, y| {
            let at = y as usize * latents.width + x as usize;
            Rgb([0, 1, 2].map(|color: usize| {
                let channels = planes.iter().map(|plane| f64::from(plane[at])).chain([1.0]);
                let value: f64 = self.factors[color].iter().zip(channels).map(|(factor, value)| factor * value).sum();
                // A cast keeps what is too dark or too bright within a byte.
                value.round() as u8
            }))
        })
    }
}

/// Gaussian elimination for a symmetric, positive definite left side, which needs no pivots.
fn solve(mut left: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let count = right.len();
    for pivot in 0..count {
        let (above, below) = left.split_at_mut(pivot + 1);
        let by = &above[pivot];
        for (row, values) in below.iter_mut().enumerate() {
            let factor = values[pivot] / by[pivot];
            values.iter_mut().zip(by).for_each(|(value, by)| *value -= factor * by);
            right[pivot + 1 + row] -= factor * right[pivot];
        }
    }
    for row in (0..count).rev() {
        let known: f64 = (row + 1..count).map(|column| left[row][column] * right[column]).sum();
        right[row] = (right[row] - known) / left[row][row];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_picture_is_found_out_exactly() {
        let color =
            |latent: &[f64]| [20.0 * latent[0] + 128.0, 100.0 - 30.0 * latent[1], 5.0 * (latent[0] + latent[1])];
        let latents = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 2.0], [0.5, -1.5]];
        let pairs: Vec<_> = latents.iter().map(|latent| (latent.to_vec(), color(latent))).collect();
        let preview = LatentPreview::fit(&pairs);
        let latents = Latents { channels: 2, height: 1, width: 3, values: vec![2.0, 1.0, 9.0, 1.0, 3.0, 0.0] };
        let picture = preview.project(&latents);
        // The last is brighter than bright.
        assert_eq!(picture.as_raw(), &[168, 70, 15, 148, 10, 20, 255, 100, 45]);
    }
}
