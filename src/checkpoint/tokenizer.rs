//! The tokenizer's files, and which family's rules they follow.

use super::CheckpointError;
use super::files::Files;
use super::json::Object;
use crate::model::TextTowerSpec;
use crate::text::{Canonicalization, TextFamily, TextSpec, TokenizerFiles};

/// Pieces of Gemma's vocabulary, which SigLIP 2 uses.
pub(super) const GEMMA_VOCAB: usize = 256_000;
/// Pieces of SigLIP 1's vocabularies: English C4, and multilingual C4.
const T5_VOCABS: [usize; 2] = [32_000, 250_000];

/// Largest tokenizer file; Gemma's `tokenizer.json` is 34 MB.
const LIMIT: u64 = 256 << 20;

/// What a SentencePiece model is called.
const SENTENCEPIECE: [&str; 3] = ["spiece.model", "tokenizer.model", "sentencepiece.model"];

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";

/// Reads the tokenizer's files, those that there are.
pub(super) fn files(files: &Files) -> Result<TokenizerFiles, CheckpointError> {
    let mut sentencepiece = None;
    for name in SENTENCEPIECE {
        if sentencepiece.is_none() {
            sentencepiece = files.read(name, LIMIT)?;
        }
    }
    Ok(TokenizerFiles {
        json: files.read("tokenizer.json", LIMIT)?,
        sentencepiece,
        config: files.read(CONFIG, LIMIT)?,
        special_tokens: files.read(SPECIAL, LIMIT)?,
    })
}

/// The text preprocessing of a checkpoint.
pub(super) fn text(
    files: &Files,
    tower: &TextTowerSpec,
    canonicalization: Canonicalization,
) -> Result<TextSpec, CheckpointError> {
    Ok(TextSpec {
        family: family(files, tower.vocab)?,
        canonicalization,
        context: tower.context,
        vocab: tower.vocab,
    })
}

/// By the vocabulary; for one that neither family has, by the tokenizer's class and then its pad.
fn family(files: &Files, vocab: usize) -> Result<TextFamily, CheckpointError> {
    if vocab == GEMMA_VOCAB {
        return Ok(TextFamily::SigLip2);
    }
    if T5_VOCABS.contains(&vocab) {
        return Ok(TextFamily::SigLip1);
    }
    if let Some(config) = Object::read(files, CONFIG)? {
        match config.get("tokenizer_class").and_then(serde_json::Value::as_str) {
            Some(class) if class.starts_with("Siglip2") || class.starts_with("Gemma") => {
                return Ok(TextFamily::SigLip2);
            }
            Some(class) if class.starts_with("Siglip") || class.starts_with("T5") => {
                return Ok(TextFamily::SigLip1);
            }
            _ => {}
        }
        if let Some(family) = family_of_pad(&config) {
            return Ok(family);
        }
    }
    let special = Object::read(files, SPECIAL)?;
    Ok(special.as_ref().and_then(family_of_pad).unwrap_or(TextFamily::SigLip2))
}

fn family_of_pad(config: &Object) -> Option<TextFamily> {
    let pad = config.get("pad_token")?;
    match pad.as_str().or_else(|| pad.get("content")?.as_str())? {
        "</s>" => Some(TextFamily::SigLip1),
        "<pad>" => Some(TextFamily::SigLip2),
        _ => None,
    }
}
