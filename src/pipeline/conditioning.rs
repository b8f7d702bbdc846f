//! From texts to what the UNet is conditioned on.
//!
//! diffusers: `pipeline_stable_diffusion_xl.py`, `StableDiffusionXLPipeline.encode_prompt`.

use candle_core::{D, DType, Device, Tensor};
use serde::Deserialize;

use super::{
    error::{Error, WeightsError},
    known_texts::{KnownTexts, TokenIds},
    params::Params,
    text_encoder::{TextEncoder, TextEncoderConfig, TextEncoding},
    tokenizer::Tokenizer,
    weights::{Source, Weights, read_json},
};

/// Both tokenizers and both text encoders.
pub struct TextEncoders {
    tokenizer: Tokenizer,
    tokenizer_2: Tokenizer,
    held: Held,
    known: KnownTexts,
    /// Whether no negative prompt means zeros instead of the empty text.
    force_zeros_for_empty_prompt: bool,
}

/// Where the encoders are between two prompts.
enum Held {
    /// In memory.
    Here(Box<[TextEncoder; 2]>),
    /// In their files.
    InFiles { weights: Weights, device: Device, dtype: DType },
}

/// The components.
const ENCODERS: [&str; 2] = ["text_encoder", "text_encoder_2"];

/// What the UNet hears of the texts. A batch of two is (negative, positive), a batch of one the prompt alone.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// `(b, 77, channels of both encoders)`.
    pub prompt_embeds: Tensor,
    /// `(b, projection_dim)`.
    pub pooled_prompt_embeds: Tensor,
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
        let [first, second] = ENCODERS.map(|component| load_encoder(weights, component, device, dtype));
        Self::holding(Held::Here(Box::new([first?, second?])), weights)
    }

    /// The same, but for the encoders: they are loaded for each prompt, and let go after it.
    pub fn in_files(weights: &Weights, device: &Device, dtype: DType) -> Result<Self, Error> {
        Self::holding(Held::InFiles { weights: weights.clone(), device: device.clone(), dtype }, weights)
    }

    fn holding(held: Held, weights: &Weights) -> Result<Self, Error> {
        let index = weights.folder("model_index.json");
        Ok(Self {
            tokenizer: load_tokenizer(weights, "tokenizer", ENCODERS[0])?,
            tokenizer_2: load_tokenizer(weights, "tokenizer_2", ENCODERS[1])?,
            held,
            known: KnownTexts::default(),
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
        let mut texts = vec![self.tokenize(&params.prompt, "prompt", &mut notes)?];
        let is_guided = params.do_classifier_free_guidance();
        if is_guided && (params.negative_prompt.is_some() || !self.force_zeros_for_empty_prompt) {
            let text = params.negative_prompt.as_deref().unwrap_or_default();
            texts.push(self.tokenize(text, "negative prompt", &mut notes)?);
        }
        let mut encoded = self.encode_texts(&texts)?.into_iter();
        let positive = encoded.next().ok_or_else(|| Error::Params("no prompt to encode".into()))?;
        if !is_guided {
            return Ok((positive, notes));
        }
        let negative = match encoded.next() {
            Some(negative) => negative,
            None => Conditioning {
                prompt_embeds: positive.prompt_embeds.zeros_like()?,
                pooled_prompt_embeds: positive.pooled_prompt_embeds.zeros_like()?,
            },
        };
        let conditioning = Conditioning {
            prompt_embeds: Tensor::cat(&[negative.prompt_embeds, positive.prompt_embeds], 0)?,
            pooled_prompt_embeds: Tensor::cat(&[negative.pooled_prompt_embeds, positive.pooled_prompt_embeds], 0)?,
        };
        Ok((conditioning, notes))
    }

    /// The ids for both encoders.
    fn tokenize(&self, text: &str, name: &str, notes: &mut Vec<String>) -> Result<TokenIds, Error> {
        let (tokens, tokens_2) = (self.tokenizer.encode(text)?, self.tokenizer_2.encode(text)?);
        if let Some(truncated) = &tokens.truncated {
            let room = tokens.ids.len() - 2;
            notes.push(format!(
                "the {name} is longer than the {room} tokens the model reads; {} were left out, from: {}",
                truncated.tokens, truncated.text
            ));
        }
        Ok([tokens.ids, tokens_2.ids])
    }

    /// Each text as it is known, or by the encoders.
    fn encode_texts(&self, texts: &[TokenIds]) -> Result<Vec<Conditioning>, Error> {
        let mut encodings: Vec<Option<Conditioning>> = texts.iter().map(|ids| self.known.get(ids)).collect();
        let is_new = |(ids, known): (&TokenIds, &Option<Conditioning>)| known.is_none().then(|| ids.clone());
        let new: Vec<TokenIds> = texts.iter().zip(&encodings).filter_map(is_new).collect();
        if !new.is_empty() {
            let gaps = encodings.iter_mut().filter(|known| known.is_none());
            for ((gap, ids), encoding) in gaps.zip(new.clone()).zip(self.run_encoders(&new)?) {
                self.known.put(ids, encoding.clone());
                *gap = Some(encoding);
            }
        }
        Ok(encodings.into_iter().flatten().collect())
    }

    /// Each text by both encoders. The outer loop is over encoders, so that never two are in memory that need not be.
    fn run_encoders(&self, texts: &[TokenIds]) -> Result<Vec<Conditioning>, Error> {
        let by = |number: usize| -> Result<Vec<TextEncoding>, Error> {
            let encode = |encoder: &TextEncoder| texts.iter().map(|ids| encoder.forward(&ids[number])).collect();
            match &self.held {
                Held::Here(encoders) => encode(&encoders[number]),
                Held::InFiles { weights, device, dtype } => {
                    encode(&load_encoder(weights, ENCODERS[number], device, *dtype)?)
                }
            }
        };
        let (first, second) = (by(0)?, by(1)?);
        let both = |(first, second): (TextEncoding, TextEncoding)| {
            let missing = || Error::Params("text_encoder_2 has no text_projection".into());
            let pooled_prompt_embeds = second.pooled.ok_or_else(missing)?;
            let prompt_embeds = Tensor::cat(&[first.penultimate, second.penultimate], D::Minus1)?; // (1, 77, 768 + 1280)
            Ok(Conditioning { prompt_embeds, pooled_prompt_embeds })
        };
        first.into_iter().zip(second).map(both).collect()
    }
}

/// A tokenizer whose ids the encoder has. On a GPU one that it lacks would spoil the device for all that follows.
fn load_tokenizer(weights: &Weights, name: &str, encoder: &'static str) -> Result<Tokenizer, Error> {
    let tokenizer = Tokenizer::load(&weights.folder(name))?;
    let (config, _) = weights.config::<TextEncoderConfig>(encoder)?;
    let greatest = tokenizer.greatest_id();
    if greatest as usize >= config.vocab_size {
        let path = weights.folder(name).join("vocab.json");
        let what = format!("it has a token {greatest}, and {encoder} knows those below {} alone", config.vocab_size);
        return Err(WeightsError::Unsupported { path, what }.into());
    }
    Ok(tokenizer)
}

fn load_encoder(
    weights: &Weights,
    component: &'static str,
    device: &Device,
    dtype: DType,
) -> Result<TextEncoder, Error> {
    let (config, path) = weights.config::<TextEncoderConfig>(component)?;
    config.check(&path)?;
    TextEncoder::load(&Source::new(&*weights.tensors(component)?, device, dtype), &config, dtype)
}
