//! From texts to what the UNet is conditioned on.
//!
//! diffusers: `pipeline_stable_diffusion_xl.py`, `StableDiffusionXLPipeline.encode_prompt`.

use candle_core::{D, DType, Device, Tensor};
use serde::Deserialize;

use super::{
    error::Error,
    params::Params,
    text_encoder::{TextEncoder, TextEncoderConfig},
    tokenizer::Tokenizer,
    weights::{Source, Weights, read_json},
};

/// Both tokenizers and both text encoders.
pub struct TextEncoders {
    tokenizer: Tokenizer,
    tokenizer_2: Tokenizer,
    text_encoder: TextEncoder,
    text_encoder_2: TextEncoder,
    /// Whether no negative prompt means zeros instead of the empty text.
    force_zeros_for_empty_prompt: bool,
}

/// What the UNet hears of the texts. A batch of two is (negative, positive), a batch of one the prompt alone.
#[derive(Debug)]
pub struct Conditioning {
    /// `(b, 77, channels of both encoders)`.
    pub prompt_embeds: Tensor,
    /// `(b, projection_dim)`.
    pub pooled: Tensor,
}

impl Conditioning {
    /// 2 with guidance, else 1.
    pub fn batch(&self) -> usize {
        self.prompt_embeds.dims()[0]
    }
}

/// `model_index.json`, of which one setting concerns the arithmetic.
#[derive(Deserialize)]
struct ModelIndex {
    #[serde(default = "default_force_zeros")]
    force_zeros_for_empty_prompt: bool,
}

fn default_force_zeros() -> bool {
    true
}

impl TextEncoders {
    /// Loads `tokenizer`, `tokenizer_2`, `text_encoder` and `text_encoder_2`.
    pub fn load(weights: &Weights, device: &Device, dtype: DType) -> Result<Self, Error> {
        let encoder = |component: &'static str| {
            let (config, _) = weights.config::<TextEncoderConfig>(component)?;
            TextEncoder::load(&Source::new(&*weights.tensors(component)?, device, dtype), &config, dtype)
        };
        let index = weights.folder("model_index.json");
        Ok(Self {
            tokenizer: Tokenizer::load(&weights.folder("tokenizer"))?,
            tokenizer_2: Tokenizer::load(&weights.folder("tokenizer_2"))?,
            text_encoder: encoder("text_encoder")?,
            text_encoder_2: encoder("text_encoder_2")?,
            force_zeros_for_empty_prompt: if index.is_file() {
                read_json::<ModelIndex>(&index, "the model's parts")?.force_zeros_for_empty_prompt
            } else {
                default_force_zeros()
            },
        })
    }

    /// Encodes what the parameters ask for; the notes say what did not fit.
    pub fn encode(&self, params: &Params) -> Result<(Conditioning, Vec<String>), Error> {
        let mut notes = Vec::new();
        let positive = self.encode_text(&params.prompt, "prompt", &mut notes)?;
        if !params.do_classifier_free_guidance() {
            return Ok((positive, notes));
        }
        let negative = match &params.negative_prompt {
            None if self.force_zeros_for_empty_prompt => Conditioning {
                prompt_embeds: positive.prompt_embeds.zeros_like()?,
                pooled: positive.pooled.zeros_like()?,
            },
            text => self.encode_text(text.as_deref().unwrap_or_default(), "negative prompt", &mut notes)?,
        };
        let conditioning = Conditioning {
            prompt_embeds: Tensor::cat(&[negative.prompt_embeds, positive.prompt_embeds], 0)?,
            pooled: Tensor::cat(&[negative.pooled, positive.pooled], 0)?,
        };
        Ok((conditioning, notes))
    }

    fn encode_text(&self, text: &str, name: &str, notes: &mut Vec<String>) -> Result<Conditioning, Error> {
        let (tokens, tokens_2) = (self.tokenizer.encode(text)?, self.tokenizer_2.encode(text)?);
        if let Some(truncated) = &tokens.truncated {
            let room = tokens.ids.len() - 2;
            notes.push(format!(
                "the {name} is longer than the {room} tokens the model reads; {} were left out, from: {}",
                truncated.tokens, truncated.text
            ));
        }
        let (first, second) = (self.text_encoder.forward(&tokens.ids)?, self.text_encoder_2.forward(&tokens_2.ids)?);
        let pooled = second.pooled.ok_or_else(|| Error::Params("text_encoder_2 has no text_projection".into()))?;
        let prompt_embeds = Tensor::cat(&[first.penultimate, second.penultimate], D::Minus1)?; // (1, 77, 768 + 1280)
        Ok(Conditioning { prompt_embeds, pooled })
    }
}
