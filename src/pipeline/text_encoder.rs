//! CLIP's text transformer, twice in SDXL: CLIP-L, and OpenCLIP bigG with a projection.
//!
//! transformers: `models/clip/modeling_clip.py`, `CLIPTextModel` and `CLIPTextModelWithProjection`.

use candle_core::{DType, Device, IndexOp, Tensor};
use serde::Deserialize;

use super::{
    error::Error,
    ops::{Activation, Embedding, LayerNorm, Linear, Mask, attention},
    weights::{Source, activation_dtype},
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

/// What CLIP's first configurations said by mistake, and all of SDXL's repeat: it stands for "the largest id".
const LEGACY_EOS_TOKEN_ID: u32 = 2;

fn default_eos_token_id() -> u32 {
    LEGACY_EOS_TOKEN_ID
}

/// One text encoder.
pub struct TextEncoder {
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<Layer>,
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
        let layers = (0..config.num_hidden_layers)
            .map(|i| Layer::load(&text_model.at(format!("encoder.layers.{i}")), config))
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
            hidden = layer.forward(&hidden)?;
        }
        let pooled = match &self.text_projection {
            Some(projection) => {
                let last = self.final_layer_norm.forward(&last.forward(&hidden)?)?;
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

/// `CLIPEncoderLayer`.
struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    hidden_act: Activation,
}

impl Layer {
    fn load(source: &Source<'_>, config: &TextEncoderConfig) -> Result<Self, Error> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let projection = |name: &str| Linear::load(&source.at("self_attn").at(name), width, width);
        Ok(Self {
            layer_norm1: LayerNorm::load(&source.at("layer_norm1"), width, config.layer_norm_eps)?,
            q_proj: projection("q_proj")?,
            k_proj: projection("k_proj")?,
            v_proj: projection("v_proj")?,
            out_proj: projection("out_proj")?,
            layer_norm2: LayerNorm::load(&source.at("layer_norm2"), width, config.layer_norm_eps)?,
            fc1: Linear::load(&source.at("mlp.fc1"), width, inner)?,
            fc2: Linear::load(&source.at("mlp.fc2"), inner, width)?,
            heads: config.num_attention_heads,
            hidden_act: config.hidden_act,
        })
    }

    fn forward(&self, hidden: &Tensor) -> Result<Tensor, Error> {
        let x = self.layer_norm1.forward(hidden)?;
        let (query, key, value) = (self.q_proj.forward(&x)?, self.k_proj.forward(&x)?, self.v_proj.forward(&x)?);
        let attended = attention(&query, &key, &value, self.heads, Mask::Causal)?;
        let hidden = (hidden + self.out_proj.forward(&attended)?)?;
        let x = self.fc1.forward(&self.layer_norm2.forward(&hidden)?)?;
        Ok((hidden + self.fc2.forward(&self.hidden_act.forward(&x)?)?)?)
    }
}
