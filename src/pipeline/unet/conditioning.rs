//! What a request asks for, in the form in which the UNet's layers take it. It does not depend on the timestep, so it
//! is made once, and every call uses it.

use candle_core::{D, Tensor};

#[cfg(feature = "cuda")]
use super::graphs;
use super::{super::error::Error, UNet, embedding::sinusoid, transformer::Attended};

/// A request's texts and sizes, made ready by [`UNet::condition`], or those of several as one batch.
#[derive(Clone)]
pub struct UNetConditioning {
    /// What is added to the time embedding: `(b, time channels)`.
    pub(super) aug_emb: Tensor,
    /// Keys and values of the texts for each cross-attention, in the order in which the blocks come.
    pub(super) text: Vec<Attended>,
}

impl UNetConditioning {
    /// Predictions that are made at once: two where guidance takes one with and one without the prompt.
    pub(in super::super) fn batch(&self) -> Result<usize, Error> {
        Ok(self.aug_emb.dim(0)?)
    }

    /// The requests one after the other in one batch, for requests whose predictions are made in the same calls. There
    /// is at least one.
    pub(in super::super) fn cat(requests: &[&Self]) -> Result<Self, Error> {
        if let [alone] = requests {
            return Ok((*alone).clone());
        }
        let aug_emb: Vec<&Tensor> = requests.iter().map(|request| &request.aug_emb).collect();
        let layers = 0..requests.first().map_or(0, |request| request.text.len());
        let text = layers.map(|layer| Attended::cat(requests.iter().map(|request| &request.text[layer])));
        Ok(Self { aug_emb: Tensor::cat(&aug_emb, 0)?, text: text.collect::<Result<_, _>>()? })
    }
}

#[cfg(feature = "cuda")]
impl UNetConditioning {
    /// The size of the texts, the same in all layers but for the channels.
    pub(super) fn text_dims(&self) -> &[usize] {
        self.text.first().map_or(&[], Attended::dims)
    }

    /// The same in a place of its own.
    pub(super) fn copy(&self) -> candle_core::Result<Self> {
        let text = self.text.iter().map(Attended::copy).collect::<candle_core::Result<_>>()?;
        Ok(Self { aug_emb: graphs::copy(&self.aug_emb)?, text })
    }

    /// Writes another's numbers, as many, into this one's place.
    pub(super) fn set(&self, other: &Self) -> candle_core::Result<()> {
        self.aug_emb.slice_set(&other.aug_emb.contiguous()?, 0, 0)?;
        self.text.iter().zip(&other.text).try_for_each(|(own, other)| own.set(other))
    }
}

impl UNet {
    /// Prepares texts `(b, 77, c)`, their pooled form `(b, c)` and a picture's six sizes.
    pub fn condition(
        &self,
        encoder_hidden_states: &Tensor,
        text_embeds: &Tensor,
        add_time_ids: [f32; 6],
    ) -> Result<UNetConditioning, Error> {
        let mut text = Vec::new();
        for block in &self.down_blocks {
            block.attend_to(encoder_hidden_states, &mut text)?;
        }
        self.mid_block.attend_to(encoder_hidden_states, &mut text)?;
        for block in &self.up_blocks {
            block.attend_to(encoder_hidden_states, &mut text)?;
        }
        Ok(UNetConditioning { aug_emb: self.aug_emb(text_embeds, add_time_ids)?, text })
    }

    /// The pooled text beside the sinusoids of six sizes, embedded.
    ///
    /// diffusers: `get_aug_embed` with `addition_embed_type="text_time"`.
    fn aug_emb(&self, text_embeds: &Tensor, add_time_ids: [f32; 6]) -> Result<Tensor, Error> {
        let width = self.config.addition_time_embed_dim;
        let time_embeds: Vec<f32> = add_time_ids.iter().flat_map(|&id| sinusoid(id, width, &self.config)).collect();
        let time_embeds = Tensor::from_vec(time_embeds, (1, 6 * width), &self.device)?.to_dtype(self.dtype)?;
        let time_embeds = time_embeds.broadcast_as((text_embeds.dim(0)?, 6 * width))?.contiguous()?;
        let add_embeds = Tensor::cat(&[text_embeds, &time_embeds], D::Minus1)?; // (b, 1280 + 6 * 256)
        Ok(self.add_embedding.forward(&add_embeds)?)
    }
}
