//! Noise as torch's CUDA generator draws it, on any device.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a counter goes
//! through ten keyed rounds. torch's `randn` on CUDA (`aten/src/ATen/native/cuda/DistributionTemplates.h`) starts one
//! curand state a thread with the seed as key, the thread's number as the upper half of the counter and the generator's
//! offset as the lower half, and gives element `i` the first of the four normals that thread `i` draws. A GPU of 132
//! multiprocessors has 270 336 resident threads and one image at most 4 * 160 * 160 elements, so "element i is thread
//! i's first normal" always holds here. Each call advances the offset by one block.

use std::f32::consts::PI;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Weyl increments of the key: the golden ratio and the square root of 3 minus 1.
const INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
/// `CURAND_2POW32_INV` of `curand_globals.h`.
const TWO_POW_MINUS_32: f32 = 2.328_306_4e-10;

/// Philox4x32 with ten rounds.
pub fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(INCREMENTS[0]), key[1].wrapping_add(INCREMENTS[1])];
        }
        let first = u64::from(counter[0]) * u64::from(MULTIPLIERS[0]);
        let second = u64::from(counter[2]) * u64::from(MULTIPLIERS[1]);
        let (high, low) = ((first >> 32) as u32, first as u32);
        let (high_2, low_2) = ((second >> 32) as u32, second as u32);
        counter = [high_2 ^ counter[1] ^ key[0], low_2, high ^ counter[3] ^ key[1], low];
    }
    counter
}

/// `torch.Generator("cuda").manual_seed(seed)`.
#[derive(Clone, Debug)]
pub struct TorchCudaRng {
    seed: u64,
    offset: u32,
}

impl TorchCudaRng {
    /// A generator at the start of its stream.
    pub fn new(seed: u64) -> Self {
        Self { seed, offset: 0 }
    }

    /// `torch.randn(count)`.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let offset = self.offset;
        self.offset = self.offset.wrapping_add(1);
        (0..count as u64)
            .map(|thread| {
                let words = philox4x32_10([offset, 0, thread as u32, (thread >> 32) as u32], key);
                box_muller(words[0], words[1])
            })
            .collect()
    }
}

/// The first of the two normals of `_curand_box_muller` (`curand_normal.h`).
///
/// Uniforms are f32 as there. The logarithm and the sine are taken in f64 and rounded, so that every machine agrees;
/// the GPU's own fast sine differs from them by at most 2^-21.
fn box_muller(x: u32, y: u32) -> f32 {
    let u = (x as f32).mul_add(TWO_POW_MINUS_32, TWO_POW_MINUS_32 / 2.0);
    let v = (y as f32).mul_add(TWO_POW_MINUS_32 * 2.0 * PI, TWO_POW_MINUS_32 * PI);
    ((-2.0 * f64::from(u).ln()).sqrt() * f64::from(v).sin()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
        // `philox4x32 10` of Random123's `tests/kat_vectors`.
        let answers = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in answers {
            assert_eq!(philox4x32_10(counter, key), expected);
        }
    }

    #[test]
    fn seed_zero_starts_as_torch_does_on_a_gpu() {
        // torch.manual_seed(0); torch.randn(3, 4, device="cuda")
        let expected = [
            -0.924_662_59,
            -0.425_344_15,
            -2.643_845_7,
            0.145_183_88,
            -0.120_866_47,
            -0.579_725_64,
            -0.622_851_22,
            -0.328_387_09,
            -1.074_542_31,
            -0.363_144_07,
            -1.671_050_67,
            2.265_504_97,
        ];
        for (drawn, expected) in TorchCudaRng::new(0).normal(12).into_iter().zip(expected) {
            assert!((f64::from(drawn) - expected).abs() < 1e-6, "drew {drawn}, torch draws {expected}");
        }
    }

    #[test]
    fn a_second_draw_continues_the_stream() {
        let mut rng = TorchCudaRng::new(7);
        let (first, second) = (rng.normal(4), rng.normal(4));
        assert_ne!(first, second);
        let words = philox4x32_10([1, 0, 2, 0], [7, 0]);
        assert_eq!(second[2], box_muller(words[0], words[1]));
    }

    #[test]
    fn the_numbers_are_standard_normal() {
        let drawn = TorchCudaRng::new(u64::MAX).normal(100_000);
        let mean = drawn.iter().sum::<f32>() / 1e5;
        let variance = drawn.iter().map(|x| x * x).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
        assert!(drawn.iter().all(|x| x.is_finite()));
    }
}
