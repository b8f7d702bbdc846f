//! CLIP's text transformer, twice in SDXL: CLIP-L, and OpenCLIP bigG with a projection.
//!
//! transformers: `models/clip/modeling_clip.py`, `CLIPTextModel` and `CLIPTextModelWithProjection`.

use std::path::Path;

use candle_core::{DType, Device, IndexOp, Tensor};
use serde::Deserialize;

use super::{
    clip::{EncoderLayer, EncoderLayerShape},
    error::{Error, WeightsError},
    ops::{Activation, Embedding, LayerNorm, Linear, Mask},
    weights::{SIZES, Source, activation_dtype},
};

/// `text_encoder/config.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct TextEncoderConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Channels of a token.
    pub hidden_size: usize,
    /// Channels inside the MLP.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The context's length.
    pub max_position_embeddings: usize,
    /// The MLP's activation.
    pub hidden_act: Activation,
    /// Added to the variance in layer norms.
    #[serde(default = "default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Channels of the pooled output, where the encoder has one.
    #[serde(default)]
    pub projection_dim: usize,
    /// The token whose place the pooled output is taken from.
    #[serde(default = "default_eos_token_id")]
    pub eos_token_id: u32,
}

fn default_layer_norm_eps() -> f64 {
    1e-5
}

impl TextEncoderConfig {
    /// Refuses what no encoder can be built of.
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        let heads = self.num_attention_heads;
        let sizes = [self.vocab_size, self.hidden_size, self.intermediate_size, self.num_hidden_layers, heads];
        if !sizes.iter().all(|size| SIZES.contains(size)) || !self.hidden_size.is_multiple_of(heads) {
            let what = "a size is 0 or beyond reason, or num_attention_heads does not divide hidden_size".into();
            return Err(WeightsError::Unsupported { path: path.into(), what }.into());
        }
        Ok(())
    }
}

/// What CLIP's first configurations said by mistake, and all of SDXL's repeat: it stands for "the largest id".
const LEGACY_EOS_TOKEN_ID: u32 = 2;

fn default_eos_token_id() -> u32 {
    LEGACY_EOS_TOKEN_ID
}

/// One text encoder.
pub struct TextEncoder {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    eos_token_id: u32,
    dtype: DType,
    device: Device,
}

/// What SDXL takes from a text encoder.
#[derive(Debug)]
pub struct TextEncoding {
    /// `hidden_states[-2]`: the last layer but one, without the final norm. `(1, tokens, channels)`.
    pub penultimate: Tensor,
    /// The projected state of the end token, where the encoder has a projection. `(1, projection_dim)`.
    pub pooled: Option<Tensor>,
}

impl TextEncoder {
    /// Loads an encoder.
    pub fn load(source: &Source<'_>, config: &TextEncoderConfig, dtype: DType) -> Result<Self, Error> {
        let width = config.hidden_size;
        // transformers 5 leaves the first part of the names away when it saves an encoder without a projection.
        let named = source.at("text_model");
        let text_model = if named.contains("final_layer_norm.weight") { named } else { source.clone() };
        let embeddings = text_model.at("embeddings");
        let shape = EncoderLayerShape {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            hidden_act: config.hidden_act,
            layer_norm_eps: config.layer_norm_eps,
        };
        let layers = (0..config.num_hidden_layers)
            .map(|i| EncoderLayer::load(&text_model.at(format!("encoder.layers.{i}")), shape))
            .collect::<Result<_, _>>()?;
        let projection = source.at("text_projection");
        let text_projection = projection
            .contains("weight")
            .then(|| Linear::load_no_bias(&projection, width, config.projection_dim))
            .transpose()?;
        let device = source.device().clone();
        Ok(Self {
            token_embedding: Embedding::load(&embeddings.at("token_embedding"), config.vocab_size, width)?,
            position_embedding: Embedding::load(
                &embeddings.at("position_embedding"),
                config.max_position_embeddings,
                width,
            )?,
            layers,
            final_layer_norm: LayerNorm::load(&text_model.at("final_layer_norm"), width, config.layer_norm_eps)?,
            text_projection,
            eos_token_id: config.eos_token_id,
            dtype: activation_dtype(&device, dtype),
            device,
        })
    }

    /// Encodes one context.
    pub fn forward(&self, ids: &[u32]) -> Result<TextEncoding, Error> {
        let tokens = Tensor::new(ids, &self.device)?;
        let words = self.token_embedding.table.index_select(&tokens, 0)?.to_dtype(self.dtype)?;
        let positions = self.position_embedding.table.narrow(0, 0, ids.len())?.to_dtype(self.dtype)?;
        let mut hidden = (words + positions)?.unsqueeze(0)?; // (1, 77, c)
        let (last, others) =
            self.layers.split_last().ok_or_else(|| Error::Params("a text encoder without layers".into()))?;
        for layer in others {
            hidden = layer.forward(&hidden, Mask::Causal)?;
        }
        let pooled = match &self.text_projection {
            Some(projection) => {
                let last = self.final_layer_norm.forward(&last.forward(&hidden, Mask::Causal)?)?;
                let end = last.i((.., self.end_position(ids), ..))?.contiguous()?; // (1, c)
                Some(projection.forward(&end)?)
            }
            None => None,
        };
        Ok(TextEncoding { penultimate: hidden, pooled })
    }

    /// `CLIPTextTransformer.forward`: the first of the largest ids in legacy configurations, else the first end token.
    fn end_position(&self, ids: &[u32]) -> usize {
        let end = match self.eos_token_id {
            LEGACY_EOS_TOKEN_ID => ids.iter().copied().max().unwrap_or_default(),
            end => end,
        };
        ids.iter().position(|&id| id == end).unwrap_or_default()
    }
}
