//! How a checkpoint wants its texts, and what it gets.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What is done to a string before it is tokenised.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Canonicalization {
    /// What the family's reference in transformers does, as it was trained: SigLIP 1 lower-cases
    /// and strips punctuation; SigLIP 2 lower-cases.
    Hf,
    /// big_vision: lower-cases ASCII letters only.
    BigVision,
    /// open_clip: fixes mojibake, unescapes HTML, underscores become spaces, punctuation is
    /// stripped, lower-cased, spaces collapsed.
    OpenClip,
    /// Nothing at all.
    None,
}

/// The two families of text preprocessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextFamily {
    /// SentencePiece vocabularies of 32,000 and 250,000 pieces; pad is `</s>` (1).
    SigLip1,
    /// The Gemma vocabulary of 256,000 pieces; pad is `<pad>` (0).
    SigLip2,
}

/// Text preprocessing of one checkpoint: everything that changes the ids a tower sees.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextSpec {
    /// Which family's rules `Canonicalization::Hf` means, and the pad id where no tokenizer says.
    pub family: TextFamily,
    /// The default canonicalisation; a request may ask for another one.
    pub canonicalization: Canonicalization,
    /// Context length: every text becomes exactly this many ids.
    pub context: usize,
    /// Ids must be below this.
    pub vocab: usize,
}

/// The files of a tokenizer, read or embedded.
#[derive(Debug, Clone, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`: what transformers runs for SigLIP 2.
    pub json: Option<Cow<'static, [u8]>>,
    /// `spiece.model` or `tokenizer.model`: a SentencePiece model, what transformers runs for
    /// SigLIP 1. Where both files are there, the family's own one is used.
    pub sentencepiece: Option<Cow<'static, [u8]>>,
    /// `tokenizer_config.json`.
    pub config: Option<Cow<'static, [u8]>>,
    /// `special_tokens_map.json`.
    pub special_tokens: Option<Cow<'static, [u8]>>,
}

/// One text, ready for the tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIds {
    /// Exactly `context` ids, padding included: SigLIP attends to its padding.
    pub ids: Vec<u32>,
    /// How many of them are not padding.
    pub used: usize,
    /// Whether the text was longer than the context and was cut (the end token is kept).
    pub truncated: bool,
}

/// How a text is read, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextReading {
    /// The text after canonicalisation. Special tokens that are spelled out in it were taken as such before.
    pub canonical: String,
    /// What the tower gets.
    pub ids: TokenIds,
    /// The tokens that the context does not hold, in their order.
    pub cut: Vec<u32>,
}
