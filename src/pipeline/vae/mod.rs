//! The VAE: between pixels and latents an eighth their size.
//!
//! diffusers: `models/autoencoders/autoencoder_kl.py`, `AutoencoderKL`. Modules carry the checkpoint's names. Every
//! size comes from `vae/config.json`.

mod blocks;
mod decoder;
mod encoder;
mod tiling;

use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use serde::Deserialize;

use super::{
    error::{Error, WeightsError},
    ops::Linear,
    weights::{SIZES, Source, TensorStore, Weights, activation_dtype},
};
use decoder::Decoder;
use encoder::Encoder;
use tiling::tiled;

/// `vae/config.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct VaeConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Channels of a picture.
    pub out_channels: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Channels of each block.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block; one more in the decoder.
    pub layers_per_block: usize,
    /// Groups in group norms.
    pub norm_num_groups: usize,
    /// What latents are multiplied with to have unit variance.
    pub scaling_factor: f64,
    /// Whether half-precision arithmetic overflows with these weights.
    #[serde(default = "default_true")]
    pub force_upcast: bool,
    /// Whether a 1x1 convolution follows the encoder.
    #[serde(default = "default_true")]
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    #[serde(default = "default_true")]
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks attend.
    #[serde(default = "default_true")]
    pub mid_block_add_attention: bool,
    /// Latents of other families are shifted as well.
    #[serde(default)]
    pub shift_factor: Option<f64>,
    /// And normalized by channel.
    #[serde(default)]
    pub latents_mean: Option<Vec<f64>>,
}

fn default_true() -> bool {
    true
}

/// Each but the first doubles a picture's sides.
const MAX_BLOCKS: usize = 8;

impl VaeConfig {
    fn check(&self, path: &Path) -> Result<(), Error> {
        let unsupported = |what: &str| Err(WeightsError::Unsupported { path: path.into(), what: what.into() }.into());
        if self.block_out_channels.is_empty() || self.block_out_channels.len() > MAX_BLOCKS {
            return unsupported("block_out_channels has no block, or too many");
        }
        let sizes = [self.in_channels, self.out_channels, self.latent_channels, self.layers_per_block];
        if !sizes.iter().chain(&self.block_out_channels).all(|size| SIZES.contains(size)) {
            return unsupported("a number of channels or layers is 0 or beyond anything that was ever trained");
        }
        let groups = self.norm_num_groups;
        if groups == 0 || self.block_out_channels.iter().any(|&channels| channels == 0 || channels % groups != 0) {
            return unsupported("norm_num_groups does not divide every one of block_out_channels");
        }
        if self.shift_factor.is_some_and(|shift| shift != 0.0) || self.latents_mean.is_some() {
            return unsupported("shift_factor and latents_mean are not supported");
        }
        Ok(())
    }
}

/// The VAE.
pub struct Vae {
    encoder: Encoder,
    quant_conv: Option<Linear>,
    post_quant_conv: Option<Linear>,
    decoder: Decoder,
    config: VaeConfig,
    dtype: DType,
    /// Pixels of a tile's side, where pictures are taken in tiles.
    tile: Option<usize>,
}

/// A picture's latents before they are sampled: a normal distribution for each number, `(b, h, w, 4)`.
#[derive(Debug)]
pub struct LatentDistribution {
    /// Means.
    pub mean: Tensor,
    /// Logarithms of the variances, kept between -30 and 20.
    pub logvar: Tensor,
}

impl Vae {
    /// Opens the VAE of a model's files.
    pub fn open(weights: &Weights, device: &Device, dtype: DType) -> Result<Self, Error> {
        let (config, path) = weights.config::<VaeConfig>("vae")?;
        config.check(&path)?;
        Self::load(&*weights.tensors("vae")?, config, device, dtype)
    }

    /// Builds the VAE this configuration describes. Where it says that half precision overflows, f16 becomes f32, of
    /// which a GPU multiplies as many bits as f16 has (TF32).
    pub fn load(store: &dyn TensorStore, config: VaeConfig, device: &Device, dtype: DType) -> Result<Self, Error> {
        let asked = dtype;
        let dtype = if config.force_upcast && dtype == DType::F16 && !device.is_cpu() { DType::F32 } else { dtype };
        let source = Source::new(store, device, dtype).as_exact_as(asked);
        let latents = config.latent_channels;
        let conv = |name: &str, channels: usize| Linear::load_1x1(&source.at(name), channels, channels);
        Ok(Self {
            encoder: Encoder::load(&source.at("encoder"), &config)?,
            quant_conv: config.use_quant_conv.then(|| conv("quant_conv", 2 * latents)).transpose()?,
            post_quant_conv: config.use_post_quant_conv.then(|| conv("post_quant_conv", latents)).transpose()?,
            decoder: Decoder::load(&source.at("decoder"), &config)?,
            config,
            dtype: activation_dtype(device, dtype),
            tile: None,
        })
    }

    /// Takes pictures that are larger than so many pixels in tiles of that size, or, with `None`, always as a whole.
    pub fn tiled(self, tile: Option<usize>) -> Result<Self, Error> {
        // Overlaps are a quarter of a tile, of pixels as of latents.
        let unit = 4 * self.scale_factor();
        match tile {
            Some(tile) if tile == 0 || tile % unit != 0 => {
                Err(Error::Params(format!("the VAE's tiles must be a multiple of {unit} pixels, not {tile}")))
            }
            tile => Ok(Self { tile, ..self }),
        }
    }

    /// The type activations have.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Pixels to a latent: 8 for SDXL.
    pub fn scale_factor(&self) -> usize {
        1 << (self.config.block_out_channels.len() - 1)
    }

    /// What latents are multiplied with to have unit variance.
    pub fn scaling_factor(&self) -> f64 {
        self.config.scaling_factor
    }

    /// Pixels `(b, h, w, 3)` in [-1, 1] to the distribution of their latents.
    pub fn encode(&self, pixels: &Tensor) -> Result<LatentDistribution, Error> {
        let moments = |pixels: &Tensor| {
            let moments = self.encoder.forward(pixels)?;
            match &self.quant_conv {
                Some(quant_conv) => quant_conv.forward(&moments),
                None => Ok(moments),
            }
        };
        let moments = match self.tile {
            Some(tile) => tiled(pixels, (tile, tile / self.scale_factor()), moments)?,
            None => moments(pixels)?,
        };
        let halves = moments.chunk(2, D::Minus1)?;
        let (mean, logvar) = (halves[0].contiguous()?, halves[1].contiguous()?.clamp(-30f32, 20f32)?);
        Ok(LatentDistribution { mean, logvar })
    }

    /// Unscaled latents `(b, h, w, 4)` to pixels `(b, 8h, 8w, 3)` around [-1, 1].
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor, Error> {
        let pixels = |latents: &Tensor| match &self.post_quant_conv {
            Some(post_quant_conv) => self.decoder.forward(&post_quant_conv.forward(latents)?),
            None => self.decoder.forward(latents),
        };
        Ok(match self.tile {
            Some(tile) => tiled(latents, (tile / self.scale_factor(), tile), pixels)?,
            None => pixels(latents)?,
        })
    }
}
