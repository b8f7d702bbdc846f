//! What the text encoders said of the latest texts, so that a prompt drawn again with another seed is not encoded
//! again.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::conditioning::Conditioning;

/// How many texts are known. SDXL's take 0.3 MB each in f16.
const KNOWN: usize = 16;

/// A text as both tokenizers read it: what the encoders' answer depends on, and all it does.
pub(super) type TokenIds = [Vec<u32>; 2];

/// Texts and their encodings, the latest used first.
#[derive(Debug, Default)]
pub(super) struct KnownTexts {
    texts: Mutex<VecDeque<(TokenIds, Conditioning)>>,
}

impl KnownTexts {
    /// The encoding of a text, if it is still known. It is the very tensor that was put in.
    pub(super) fn get(&self, ids: &TokenIds) -> Option<Conditioning> {
        let mut texts = self.texts();
        let at = texts.iter().position(|(known, _)| known == ids)?;
        let found = texts.remove(at)?;
        let conditioning = found.1.clone();
        texts.push_front(found);
        Some(conditioning)
    }

    /// Keeps an encoding, in the place of the one not used for longest.
    pub(super) fn put(&self, ids: TokenIds, conditioning: Conditioning) {
        let mut texts = self.texts();
        texts.push_front((ids, conditioning));
        texts.truncate(KNOWN);
    }

    fn texts(&self) -> MutexGuard<'_, VecDeque<(TokenIds, Conditioning)>> {
        // Nothing under the lock can leave the list half changed.
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    #[test]
    fn the_text_not_used_for_longest_makes_room() {
        let tensor = Tensor::zeros(1, DType::F32, &Device::Cpu).expect("a tensor");
        let conditioning = Conditioning { prompt_embeds: tensor.clone(), pooled_prompt_embeds: tensor };
        let text = |id: u32| [vec![id], vec![id]];
        let known = KnownTexts::default();
        (0..KNOWN as u32).for_each(|id| known.put(text(id), conditioning.clone()));
        assert!(known.get(&text(0)).is_some(), "now used last");
        known.put(text(99), conditioning);
        assert!(known.get(&text(0)).is_some() && known.get(&text(99)).is_some());
        assert!(known.get(&text(1)).is_none());
    }
}
