//! CLIP's vision transformer.
//!
//! transformers: `models/clip/modeling_clip.py`, `CLIPVisionModel`.

use candle_core::{DType, Device, IndexOp, Tensor};
use serde::Deserialize;

use super::super::{
    clip::{EncoderLayer, EncoderLayerShape},
    error::Error,
    ops::{Activation, LayerNorm, Linear, Mask},
    weights::Source,
};

const CHANNELS: usize = 3;

/// The tower's dimensions. What a file leaves out is `CLIPVisionConfig`'s default.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Channels of a patch.
    pub hidden_size: usize,
    /// Channels inside the MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width and height of the picture.
    pub image_size: usize,
    /// Width and height of a patch.
    pub patch_size: usize,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

/// The greatest picture a checker may want; published ones want 224.
const MAX_IMAGE_SIZE: usize = 4096;

impl VisionConfig {
    /// What no tower can be built of.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let divides = |parts: usize, whole: usize| parts > 0 && whole > 0 && whole.is_multiple_of(parts);
        if self.patch_size == 0 || self.patch_size > self.image_size || self.image_size > MAX_IMAGE_SIZE {
            Some("vision_config.image_size does not hold a patch, or is too large")
        } else if !divides(self.num_attention_heads, self.hidden_size) {
            Some("vision_config.num_attention_heads does not divide hidden_size")
        } else {
            None
        }
    }

    /// Patches in a row.
    fn grid(&self) -> usize {
        self.image_size / self.patch_size
    }
}

/// The tower.
pub(super) struct VisionModel {
    class_embedding: Tensor,
    /// A convolution whose kernels do not overlap is a projection of patches.
    patch_embedding: Linear,
    position_embedding: Tensor,
    pre_layrnorm: LayerNorm,
    layers: Vec<EncoderLayer>,
    post_layernorm: LayerNorm,
    config: VisionConfig,
    device: Device,
}

impl VisionModel {
    pub(super) fn load(source: &Source<'_>, config: &VisionConfig) -> Result<Self, Error> {
        let (width, patch, eps) = (config.hidden_size, config.patch_size, config.layer_norm_eps);
        // transformers 5 leaves the second part of the names away.
        let named = source.at("vision_model");
        let source = if named.contains("post_layernorm.weight") { &named } else { source };
        let embeddings = source.at("embeddings");
        let shape = EncoderLayerShape {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            hidden_act: config.hidden_act,
            layer_norm_eps: eps,
        };
        // (out, 3, rows, columns) to (out, rows, columns, 3): as the pixels of a patch lie.
        let kernel = embeddings.at("patch_embedding").weight("weight", &[width, CHANNELS, patch, patch])?;
        let kernel = kernel.permute((0, 2, 3, 1))?.contiguous()?.reshape((width, patch * patch * CHANNELS))?;
        let positions = config.grid() * config.grid() + 1;
        let table = embeddings.at("position_embedding").numbers("weight", &[positions, width])?;
        Ok(Self {
            class_embedding: embeddings.vector("class_embedding", width)?.reshape((1, 1, width))?,
            patch_embedding: Linear {
                precision: source.precision(),
                ..Linear::new(kernel.to_device(source.device())?, None)
            },
            position_embedding: Tensor::from_vec(table, (1, positions, width), source.device())?
                .to_dtype(source.activation_dtype())?,
            // The checkpoint's own spelling.
            pre_layrnorm: LayerNorm::load(&source.at("pre_layrnorm"), width, eps)?,
            layers: (0..config.num_hidden_layers)
                .map(|i| EncoderLayer::load(&source.at(format!("encoder.layers.{i}")), shape))
                .collect::<Result<_, _>>()?,
            post_layernorm: LayerNorm::load(&source.at("post_layernorm"), width, eps)?,
            config: config.clone(),
            device: source.device().clone(),
        })
    }

    /// Width and height of the picture it looks at.
    pub(super) fn image_size(&self) -> usize {
        self.config.image_size
    }

    /// A prepared picture, channels last, to its pooled state `(1, channels)`.
    pub(super) fn forward(&self, pixels: &[f32]) -> Result<Tensor, Error> {
        let (grid, patch) = (self.config.grid(), self.config.patch_size);
        let side = self.config.image_size;
        let pixels = Tensor::from_slice(pixels, (1, side, side, CHANNELS), &Device::Cpu)?;
        // As a convolution does, what is left of the last patch's edge is not looked at.
        let pixels = pixels.narrow(1, 0, grid * patch)?.narrow(2, 0, grid * patch)?;
        let patches = pixels.reshape((grid, patch, grid, patch * CHANNELS))?.permute((0, 2, 1, 3))?.contiguous()?;
        let patches = patches.reshape((1, grid * grid, patch * patch * CHANNELS))?;
        let patches = patches.to_device(&self.device)?.to_dtype(self.dtype())?;
        let tokens = Tensor::cat(&[&self.class_embedding, &self.patch_embedding.forward(&patches)?], 1)?;
        let mut hidden = self.pre_layrnorm.forward(&(tokens + &self.position_embedding)?)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, Mask::None)?;
        }
        Ok(self.post_layernorm.forward(&hidden.i((.., 0, ..))?.contiguous()?)?)
    }

    fn dtype(&self) -> DType {
        self.class_embedding.dtype()
    }
}
