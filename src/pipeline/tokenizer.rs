//! CLIP's byte-pair encoding, from the `vocab.json` and `merges.txt` that SDXL's folders hold.
//!
//! The recipe is transformers' `CLIPTokenizer`. SDXL's two tokenizers share a vocabulary and differ in what they pad
//! with, which matters twice: most of a context is padding, and the second one's padding token is `!`, so that every
//! `!` in a prompt becomes padding there and an exclamation mark only in the first.

use std::path::Path;

use serde::Deserialize;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer as Bpe,
    models::bpe::BPE,
    normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern},
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
};

use super::{
    error::{Error, WeightsError},
    weights::read_json,
};

const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// One of SDXL's two tokenizers.
pub struct Tokenizer {
    bpe: Bpe,
    start: u32,
    end: u32,
    padding: u32,
    length: usize,
}

/// A prompt as the text encoder wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Exactly the context's length: start, text, end, padding.
    pub ids: Vec<u32>,
    /// The end of the prompt that did not fit.
    pub truncated: Option<Truncated>,
}

/// What a context was too short for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Tokens left out.
    pub tokens: usize,
    /// The text they stand for, as the caller wrote it.
    pub text: String,
}

/// A special token, alone or with its flags.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Described {
        content: String,
        #[serde(default)]
        lstrip: bool,
        #[serde(default)]
        rstrip: bool,
        #[serde(default)]
        single_word: bool,
        #[serde(default)]
        normalized: bool,
    },
}

impl SpecialToken {
    fn content(&self) -> &str {
        match self {
            Self::Text(content) | Self::Described { content, .. } => content,
        }
    }

    fn added(&self) -> AddedToken {
        let token = AddedToken::from(self.content(), true);
        match self {
            Self::Text(_) => token,
            Self::Described { lstrip, rstrip, single_word, normalized, .. } => {
                token.lstrip(*lstrip).rstrip(*rstrip).single_word(*single_word).normalized(*normalized)
            }
        }
    }
}

/// `tokenizer_config.json` and `special_tokens_map.json`, which repeat each other.
#[derive(Default, Deserialize)]
struct Config {
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    unk_token: Option<SpecialToken>,
    pad_token: Option<SpecialToken>,
    model_max_length: Option<f64>,
}

impl Config {
    /// The two files brought together; either may be missing, as the defaults are CLIP's.
    fn load(folder: &Path) -> Result<Self, Error> {
        let read = |name: &str| -> Result<Self, Error> {
            let path = folder.join(name);
            if path.is_file() { read_json(&path, "tokenizer configuration") } else { Ok(Self::default()) }
        };
        let (map, config) = (read("special_tokens_map.json")?, read("tokenizer_config.json")?);
        Ok(Self {
            bos_token: config.bos_token.or(map.bos_token),
            eos_token: config.eos_token.or(map.eos_token),
            unk_token: config.unk_token.or(map.unk_token),
            pad_token: config.pad_token.or(map.pad_token),
            model_max_length: config.model_max_length,
        })
    }
}

impl Tokenizer {
    /// Loads a tokenizer's folder.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let config = Config::load(folder)?;
        let unreadable = |reason| Error::from(WeightsError::Unreadable { path: folder.into(), reason });
        let (vocabulary, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        for path in [&vocabulary, &merges] {
            if !path.is_file() {
                return Err(WeightsError::MissingFile { path: path.clone(), wanted: "the tokenizer" }.into());
            }
        }
        let end_text = || SpecialToken::Text("<|endoftext|>".into());
        let start = config.bos_token.unwrap_or_else(|| SpecialToken::Text("<|startoftext|>".into()));
        let end = config.eos_token.unwrap_or_else(end_text);
        let unknown = config.unk_token.unwrap_or_else(end_text);
        let padding = config.pad_token.unwrap_or_else(end_text);

        let model = BPE::from_file(&vocabulary.to_string_lossy(), &merges.to_string_lossy())
            .unk_token(unknown.content().into())
            .end_of_word_suffix("</w>".into())
            .build()
            .map_err(unreadable)?;
        let mut bpe = Bpe::new(model);
        let parts = || -> tokenizers::Result<(Replace, Split)> {
            let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
            let words = SplitPattern::Regex(WORDS.into());
            Ok((spaces, Split::new(words, SplitDelimiterBehavior::Removed, true)?))
        };
        let (spaces, words) = parts().map_err(unreadable)?;
        let normalizers: Vec<NormalizerWrapper> = vec![NFC.into(), spaces.into(), Lowercase.into()];
        bpe.with_normalizer(Some(Normalizers::new(normalizers))).map_err(unreadable)?;
        let pre_tokenizers: Vec<PreTokenizerWrapper> = vec![words.into(), ByteLevel::new(false, true, true).into()];
        bpe.with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers)));
        bpe.add_special_tokens([&start, &end, &unknown, &padding].map(SpecialToken::added)).map_err(unreadable)?;

        let id = |token: &SpecialToken| {
            let missing = || unreadable(format!("the vocabulary has no {}", token.content()).into());
            bpe.token_to_id(token.content()).ok_or_else(missing)
        };
        let (start, end, padding) = (id(&start)?, id(&end)?, id(&padding)?);
        // Some folders say "as long as you like" with a number beyond counting; CLIP's context is 77.
        let length = config.model_max_length.filter(|length| *length < 1e6).map_or(77, |length| length as usize);
        if length < 3 {
            return Err(unreadable(format!("a model_max_length of {length} leaves no room for a text").into()));
        }
        Ok(Self { bpe, start, end, padding, length })
    }

    /// The greatest id that a text may have in it.
    pub(super) fn greatest_id(&self) -> u32 {
        self.bpe.get_vocab(true).into_values().max().unwrap_or_default()
    }

    /// Start, as much of the text as fits, end, padding.
    pub fn encode(&self, text: &str) -> Result<Tokens, Error> {
        let encoding = self.bpe.encode(text, false).map_err(|error| Error::Prompt(error.to_string()))?;
        let room = self.length - 2;
        let kept = encoding.get_ids().len().min(room);
        let mut ids = Vec::with_capacity(self.length);
        ids.push(self.start);
        ids.extend(&encoding.get_ids()[..kept]);
        ids.push(self.end);
        ids.resize(self.length, self.padding);

        let truncated = encoding.get_offsets().get(kept).map(|&(begin, _)| Truncated {
            tokens: encoding.get_ids().len() - kept,
            text: text.get(begin..).unwrap_or_default().trim().to_owned(),
        });
        Ok(Tokens { ids, truncated })
    }
}
