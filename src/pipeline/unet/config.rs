//! `unet/config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::{
    error::{Error, WeightsError},
    weights::SIZES,
};

/// A setting that is the same for all blocks or given for each.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum PerBlock {
    /// The same for all.
    Same(usize),
    /// One for each, on the way down.
    Each(Vec<usize>),
}

impl PerBlock {
    /// The setting of a block on the way down.
    fn at(&self, block: usize) -> usize {
        match self {
            Self::Same(value) => *value,
            Self::Each(values) => values[block],
        }
    }

    fn values(&self) -> &[usize] {
        match self {
            Self::Same(value) => std::slice::from_ref(value),
            Self::Each(values) => values,
        }
    }

    fn fits(&self, blocks: usize) -> bool {
        matches!(self, Self::Same(_)) || matches!(self, Self::Each(values) if values.len() == blocks)
    }
}

/// The UNet's dimensions.
#[derive(Clone, Debug, Deserialize)]
pub struct UNetConfig {
    /// The latents' width and height in training.
    pub sample_size: usize,
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Cosines before sines in the sinusoids.
    pub flip_sin_to_cos: bool,
    /// Taken from the sinusoid's half width.
    pub freq_shift: f64,
    /// `DownBlock2D` or `CrossAttnDownBlock2D`, for each block.
    pub down_block_types: Vec<String>,
    /// `UpBlock2D` or `CrossAttnUpBlock2D`, for each block of the way up.
    pub up_block_types: Vec<String>,
    /// Channels of each block.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block; one more on the way up.
    pub layers_per_block: PerBlock,
    /// Transformer blocks after each residual block.
    pub transformer_layers_per_block: PerBlock,
    /// In spite of its name, the number of heads (diffusers keeps an early mistake).
    pub attention_head_dim: PerBlock,
    /// Channels of the text.
    pub cross_attention_dim: usize,
    /// Groups in group norms.
    pub norm_num_groups: usize,
    /// Added to the variance in group norms, except the transformers'.
    pub norm_eps: f64,
    /// Whether the transformers' projections are stored as matrices or as 1x1 convolutions.
    #[serde(default)]
    pub use_linear_projection: bool,
    /// Channels of each size's sinusoid.
    pub addition_time_embed_dim: usize,
    /// Channels of the pooled text and all sinusoids.
    pub projection_class_embeddings_input_dim: usize,
    /// Everything else, looked at only to refuse what would change the arithmetic.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What one block needs to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockShape {
    pub(super) channels: usize,
    pub(super) resnets: usize,
    /// Transformer blocks after each residual block; `None` without attention.
    pub(super) transformers: Option<usize>,
    pub(super) heads: usize,
}

impl UNetConfig {
    /// Channels of the time embedding.
    pub(super) fn time_embed_dim(&self) -> usize {
        4 * self.block_out_channels[0]
    }

    /// A block of the way down.
    pub(super) fn down(&self, block: usize) -> BlockShape {
        let attends = self.down_block_types[block] == "CrossAttnDownBlock2D";
        self.block(block, attends, self.layers_per_block.at(block))
    }

    /// A block of the way up.
    pub(super) fn up(&self, block: usize) -> BlockShape {
        let mirrored = self.block_out_channels.len() - 1 - block;
        let attends = self.up_block_types[block] == "CrossAttnUpBlock2D";
        self.block(mirrored, attends, self.layers_per_block.at(mirrored) + 1)
    }

    /// The block between.
    pub(super) fn mid(&self) -> BlockShape {
        self.block(self.block_out_channels.len() - 1, true, 2)
    }

    fn block(&self, block: usize, attends: bool, resnets: usize) -> BlockShape {
        BlockShape {
            channels: self.block_out_channels[block],
            resnets,
            transformers: attends.then(|| self.transformer_layers_per_block.at(block)),
            heads: self.attention_head_dim.at(block),
        }
    }

    /// Refuses what this UNet does not build, rather than build something else.
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        let unsupported = |what: String| Error::from(WeightsError::Unsupported { path: path.into(), what });
        let blocks = self.block_out_channels.len();
        let lists_fit = blocks > 0
            && self.down_block_types.len() == blocks
            && self.up_block_types.len() == blocks
            && [&self.layers_per_block, &self.transformer_layers_per_block, &self.attention_head_dim]
                .into_iter()
                .all(|setting| setting.fits(blocks));
        if !lists_fit {
            return Err(unsupported("the settings for each block are not all of the same number".into()));
        }
        // Blocks without attention may have 0 transformer layers.
        let settings = [&self.layers_per_block, &self.attention_head_dim];
        let sizes = [
            self.sample_size,
            self.in_channels,
            self.out_channels,
            self.cross_attention_dim,
            self.addition_time_embed_dim,
            self.projection_class_embeddings_input_dim,
        ];
        let settings = settings.into_iter().flat_map(|setting| setting.values());
        let layers = self.transformer_layers_per_block.values();
        if !sizes.iter().chain(settings).chain(&self.block_out_channels).all(|size| SIZES.contains(size))
            || layers.iter().any(|layers| layers > SIZES.end())
        {
            let what = "a number of channels, heads or layers is 0 or beyond anything that was ever trained";
            return Err(unsupported(what.into()));
        }
        for (block, &channels) in self.block_out_channels.iter().enumerate() {
            let heads = self.attention_head_dim.at(block);
            if !divides(self.norm_num_groups, channels) || !divides(heads, channels) {
                let groups = self.norm_num_groups;
                return Err(unsupported(format!(
                    "{channels} channels do not split into {groups} groups, {heads} heads"
                )));
            }
        }
        for kind in self.down_block_types.iter().chain(&self.up_block_types) {
            let known = ["DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"];
            if !known.contains(&kind.as_str()) {
                return Err(unsupported(format!("blocks of type {kind} are not supported")));
            }
        }
        // Each with the only value this UNet is built for, which is also diffusers' default where a file is silent.
        let settings = [
            ("act_fn", json!("silu")),
            ("addition_embed_type", json!("text_time")),
            ("attention_type", json!("default")),
            ("center_input_sample", json!(false)),
            ("class_embed_type", Value::Null),
            ("class_embeddings_concat", json!(false)),
            ("conv_in_kernel", json!(3)),
            ("conv_out_kernel", json!(3)),
            ("cross_attention_norm", Value::Null),
            ("downsample_padding", json!(1)),
            ("dual_cross_attention", json!(false)),
            ("encoder_hid_dim", Value::Null),
            ("encoder_hid_dim_type", Value::Null),
            ("mid_block_scale_factor", json!(1)),
            ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
            ("num_class_embeds", Value::Null),
            ("only_cross_attention", json!(false)),
            ("resnet_out_scale_factor", json!(1.0)),
            ("resnet_skip_time_act", json!(false)),
            ("resnet_time_scale_shift", json!("default")),
            ("reverse_transformer_layers_per_block", Value::Null),
            ("time_cond_proj_dim", Value::Null),
            ("time_embedding_act_fn", Value::Null),
            ("time_embedding_dim", Value::Null),
            ("time_embedding_type", json!("positional")),
            ("timestep_post_act", Value::Null),
        ];
        for (name, supported) in settings {
            if let Some(value) = self.rest.get(name)
                && *value != supported
                && !(value.as_f64().is_some() && value.as_f64() == supported.as_f64())
            {
                return Err(unsupported(format!("{name} is {value}; only {supported} is supported")));
            }
        }
        Ok(())
    }
}

/// Whether `whole` splits into this many equal parts, none of them empty.
fn divides(parts: usize, whole: usize) -> bool {
    whole > 0 && parts > 0 && whole.is_multiple_of(parts)
}
