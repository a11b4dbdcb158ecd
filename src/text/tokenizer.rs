//! The tokenizer of a checkpoint: from canonicalised text to the ids before the end token.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::tokenizer::{
    Model as _, NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _,
};
use tokenizers::{NormalizerWrapper, Tokenizer as Pipeline};

use super::canonicalize::{canonicalize, is_python_space};
use super::charsmaps::Checked;
use super::config::{SpecialToken, TokenizerConfig};
use super::sentencepiece::{SPACE, SentencePiece};
use super::{Canonicalization, TextError, TextFamily, TokenizerFiles, vocabulary};

const JSON: &str = "tokenizer.json";
const SENTENCEPIECE: &str = "the SentencePiece model";

/// A loaded tokenizer.
pub(super) struct Tokenizer {
    engine: Engine,
    family: TextFamily,
    /// Special tokens that a SentencePiece model does not find in text by itself, longest first.
    special: Vec<SpecialToken>,
    unk: String,
    /// The end token's id.
    pub eos: u32,
    /// The padding token's id.
    pub pad: u32,
}

enum Engine {
    /// The pipeline, and the padding id that the file named.
    Json(Box<Pipeline>, Option<u32>),
    SentencePiece(Box<SentencePiece>),
}

impl Tokenizer {
    /// Loads what the checkpoint has. Of two files, SigLIP 2 runs `tokenizer.json`, as transformers does; SigLIP 1
    /// runs the SentencePiece model, which is what it was trained with, unless `tokenizer.json` has another
    /// vocabulary: then the model beside it is another model's (Marqo's is T5's). `None` if there is neither.
    pub fn load(files: &TokenizerFiles, family: TextFamily) -> Result<Option<Self>, TextError> {
        let config = TokenizerConfig::read(files)?;
        let engine = match (&files.json, &files.sentencepiece) {
            (Some(json), Some(model)) if family == TextFamily::SigLip1 => {
                let model = load_sentencepiece(model)?;
                let bad = |reason| TextError::Tokenizer { kind: JSON, reason };
                match vocabulary::difference(json, &model).map_err(bad)? {
                    None => Engine::SentencePiece(Box::new(model)),
                    Some(difference) => {
                        tracing::warn!(
                            "the SentencePiece model has another vocabulary than tokenizer.json ({difference}): \
                             tokenizer.json is used"
                        );
                        load_json(json)?
                    }
                }
            }
            (Some(json), _) => load_json(json)?,
            (None, Some(model)) => Engine::SentencePiece(Box::new(load_sentencepiece(model)?)),
            (None, None) => return Ok(None),
        };
        let id = |content: &str| config.added_id(content).or_else(|| engine.id(content));
        let named = |token: &Option<(String, &'static str)>, key: &str| match token {
            None => Ok(None),
            Some((content, kind)) => id(content).map(Some).ok_or_else(|| TextError::Tokenizer {
                kind,
                reason: format!("its {key} {content:?} is not in the vocabulary"),
            }),
        };
        let (pad_name, eos_name) = match family {
            TextFamily::SigLip1 => ("</s>", "</s>"),
            TextFamily::SigLip2 => ("<pad>", "<eos>"),
        };
        let (default_pad, default_eos) = default_ids(family);
        let eos = named(&config.eos, "eos_token")?.or_else(|| id(eos_name)).unwrap_or(default_eos);
        let pad = named(&config.pad, "pad_token")?
            .or_else(|| engine.padding_id())
            .or_else(|| id(pad_name))
            .unwrap_or(default_pad);
        let unk = config.unk.clone().unwrap_or_else(|| "<unk>".to_owned());
        let special = match &engine {
            Engine::Json(..) => Vec::new(),
            Engine::SentencePiece(model) => special_tokens(model, &config, family, &unk),
        };
        Ok(Some(Self { engine, family, special, unk, eos, pad }))
    }

    /// Whether `tokenizer.json` is what runs, and not the SentencePiece model.
    pub fn runs_json(&self) -> bool {
        matches!(self.engine, Engine::Json(..))
    }

    /// The kind of file and model, for people.
    pub fn kind(&self) -> &'static str {
        use tokenizers::ModelWrapper::{BPE, Unigram, WordLevel, WordPiece};
        match &self.engine {
            Engine::SentencePiece(model) if model.is_bpe() => "SentencePiece (BPE)",
            Engine::SentencePiece(_) => "SentencePiece (unigram)",
            Engine::Json(pipeline, _) => match pipeline.get_model() {
                BPE(_) => "tokenizer.json (BPE)",
                Unigram(_) => "tokenizer.json (unigram)",
                WordLevel(_) => "tokenizer.json (word level)",
                WordPiece(_) => "tokenizer.json (WordPiece)",
            },
        }
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        match &self.engine {
            Engine::Json(pipeline, _) => pipeline.get_vocab_size(true),
            Engine::SentencePiece(model) => model.len(),
        }
    }

    /// The token of an id, as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        match &self.engine {
            Engine::Json(pipeline, _) => pipeline.id_to_token(id),
            Engine::SentencePiece(model) => model.piece(id).map(str::to_owned),
        }
    }

    /// The ids of a text without the end token.
    ///
    /// Special tokens spelled out in the text become their ids, as in transformers. The mode `hf`
    /// canonicalises what lies between them, as `SiglipTokenizer` and `Siglip2Tokenizer` do; the
    /// other modes canonicalise the whole text first.
    pub fn encode(&self, text: &str, mode: Canonicalization) -> Result<Vec<u32>, TextError> {
        match &self.engine {
            Engine::Json(pipeline, _) => {
                // The library asserts in places; a text must not end the process through one.
                catch_unwind(AssertUnwindSafe(|| self.encode_json(pipeline, text, mode)))
                    .unwrap_or_else(|panic| Err(panic_message(panic.as_ref())))
            }
            Engine::SentencePiece(model) => self.encode_sentencepiece(model, text, mode),
        }
        .map_err(TextError::Encode)
    }

    /// Whether the end token is left out where the text already ends in it: `SiglipTokenizer`'s
    /// habit, not that of the pipelines in `tokenizer.json`.
    pub fn skips_second_eos(&self) -> bool {
        matches!((&self.engine, self.family), (Engine::SentencePiece(_), TextFamily::SigLip1))
    }

    fn encode_json(
        &self,
        pipeline: &Pipeline,
        text: &str,
        mode: Canonicalization,
    ) -> Result<Vec<u32>, String> {
        if mode != Canonicalization::Hf {
            let text = canonicalize(text, mode, self.family);
            let encoding = pipeline.encode_fast(text.as_ref(), false).map_err(|e| e.to_string())?;
            return Ok(encoding.get_ids().to_vec());
        }
        let split = pipeline.get_added_vocabulary().extract_and_normalize(None::<&NormalizerWrapper>, text);
        let mut ids = Vec::new();
        for (chunk, _, tokens) in split.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            if let Some(tokens) = tokens {
                ids.extend(tokens.iter().map(|token| token.id));
                continue;
            }
            let mut chunk = NormalizedString::from(canonicalize(chunk, mode, self.family).as_ref());
            if let Some(normalizer) = pipeline.get_normalizer() {
                normalizer.normalize(&mut chunk).map_err(|e| e.to_string())?;
            }
            let mut chunk = PreTokenizedString::from(chunk);
            if let Some(pre_tokenizer) = pipeline.get_pre_tokenizer() {
                pre_tokenizer.pre_tokenize(&mut chunk).map_err(|e| e.to_string())?;
            }
            let encoding = pipeline
                .get_model()
                .tokenize_in_pretokenized(&mut chunk, None)
                .and_then(|()| chunk.into_encoding(None, 0, OffsetType::None))
                .map_err(|e| e.to_string())?;
            ids.extend_from_slice(encoding.get_ids());
        }
        Ok(ids)
    }

    fn encode_sentencepiece(
        &self,
        model: &SentencePiece,
        text: &str,
        mode: Canonicalization,
    ) -> Result<Vec<u32>, String> {
        let (whole, between) = match mode {
            Canonicalization::Hf => (Canonicalization::None, Canonicalization::Hf),
            mode => (mode, Canonicalization::None),
        };
        if (mode, self.family) == (Canonicalization::Hf, TextFamily::SigLip1) {
            return self.encode_siglip_1(model, text);
        }
        let text = canonicalize(text, whole, self.family);
        let mut ids = Vec::new();
        for part in self.split(&text) {
            match part {
                Part::Special(token) => ids.push(self.special_id(model, token)),
                Part::Text(chunk) => {
                    let chunk = canonicalize(chunk, between, self.family);
                    ids.extend(model.encode(&chunk)?.into_iter().map(|(_, id)| id));
                }
            }
        }
        Ok(ids)
    }

    /// `SiglipTokenizer.tokenize` of transformers, `tokenization_siglip.py`, step by step: the
    /// dummy prefix is written by hand, and every chunk is encoded after the unknown token's
    /// spelling, whose pieces are then dropped, so that SentencePiece adds no space of its own.
    fn encode_siglip_1(&self, model: &SentencePiece, text: &str) -> Result<Vec<u32>, String> {
        let text = format!("{SPACE}{}", text.replace(SPACE, " "));
        let prefix = model.encode(&self.unk)?.len();
        let mut ids = Vec::new();
        // The first token's text and whether the second one is special: a lone prefix is dropped.
        let mut first_is_space = false;
        for part in self.split(&text) {
            match part {
                Part::Special(token) => {
                    if first_is_space && ids.len() == 1 {
                        ids.clear();
                        first_is_space = false;
                    }
                    ids.push(self.special_id(model, token));
                }
                Part::Text(chunk) => {
                    let chunk = canonicalize(chunk, Canonicalization::Hf, self.family);
                    let mut pieces = model.encode(&format!("{}{chunk}", self.unk))?;
                    if pieces.len() >= prefix {
                        pieces.drain(..prefix);
                    }
                    first_is_space |= ids.is_empty() && pieces.first().is_some_and(|(p, _)| p == SPACE);
                    // By text, as transformers does: a piece is the id its text has.
                    ids.extend(pieces.iter().map(|(piece, _)| model.id_or_unknown(piece)));
                }
            }
        }
        Ok(ids)
    }

    fn special_id(&self, model: &SentencePiece, token: &SpecialToken) -> u32 {
        token.id.unwrap_or_else(|| model.id_or_unknown(&token.content))
    }

    /// Cuts a text at the special tokens in it: the leftmost first, the longest of those that
    /// start at one place.
    fn split<'a>(&'a self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts: Vec<Part<'a>> = Vec::new();
        let (mut start, mut at) = (0, 0);
        let push = |parts: &mut Vec<Part<'a>>, chunk: &'a str| {
            let chunk = match parts.last() {
                Some(Part::Special(token)) if token.rstrip => chunk.trim_start_matches(is_python_space),
                _ => chunk,
            };
            if !chunk.is_empty() {
                parts.push(Part::Text(chunk));
            }
        };
        while at < text.len() {
            let rest = &text[at..];
            match self.special.iter().find(|token| rest.starts_with(&token.content)) {
                Some(token) => {
                    let chunk = &text[start..at];
                    let chunk = if token.lstrip { chunk.trim_end_matches(is_python_space) } else { chunk };
                    push(&mut parts, chunk);
                    parts.push(Part::Special(token));
                    at += token.content.len();
                    start = at;
                }
                None => at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        push(&mut parts, &text[start..]);
        parts
    }
}

enum Part<'a> {
    Text(&'a str),
    Special(&'a SpecialToken),
}

/// Padding and end id of a family where no tokenizer says them.
pub(super) fn default_ids(family: TextFamily) -> (u32, u32) {
    match family {
        TextFamily::SigLip1 => (1, 1),
        TextFamily::SigLip2 => (0, 1),
    }
}

impl Engine {
    fn id(&self, content: &str) -> Option<u32> {
        match self {
            Self::Json(pipeline, _) => pipeline.token_to_id(content),
            Self::SentencePiece(model) => model.id(content),
        }
    }

    fn padding_id(&self) -> Option<u32> {
        match self {
            Self::Json(_, padding) => *padding,
            Self::SentencePiece(_) => None,
        }
    }
}

/// Which strings a SentencePiece model's text is cut at. SigLIP 1: the end, padding and unknown
/// token and what `added_tokens_decoder` lists, as `SiglipTokenizer`. SigLIP 2: the control pieces
/// and that list, as Gemma's `tokenizer.json`.
fn special_tokens(
    model: &SentencePiece,
    config: &TokenizerConfig,
    family: TextFamily,
    unk: &str,
) -> Vec<SpecialToken> {
    let mut special = config.added.clone();
    let mut add = |content: &str, id: Option<u32>, strip: bool| {
        if !content.is_empty() && special.iter().all(|token| token.content != content) && id.is_some() {
            special.push(SpecialToken { content: content.to_owned(), id, lstrip: strip, rstrip: strip });
        }
    };
    match family {
        TextFamily::SigLip1 => {
            let end =
                |token: &Option<(String, _)>| token.as_ref().map_or("</s>", |(c, _)| c.as_str()).to_owned();
            for content in [end(&config.eos), end(&config.pad), unk.to_owned()] {
                add(&content, model.id(&content), true);
            }
        }
        TextFamily::SigLip2 => model.control().for_each(|(content, id)| add(content, Some(id), false)),
    }
    special.sort_by_key(|token| std::cmp::Reverse(token.content.len()));
    special
}

fn load_sentencepiece(bytes: &[u8]) -> Result<SentencePiece, TextError> {
    SentencePiece::from_bytes(bytes).map_err(|reason| TextError::Tokenizer { kind: SENTENCEPIECE, reason })
}

/// Loads a `tokenizer.json` and takes out of it what is done elsewhere: truncation, padding, and
/// the lower-casing of its normaliser, so that the canonicalisation mode alone decides.
fn load_json(bytes: &[u8]) -> Result<Engine, TextError> {
    let bad = |reason: String| TextError::Tokenizer { kind: JSON, reason };
    serde_json::from_slice::<Checked>(bytes).map_err(|e| bad(e.to_string()))?;
    let mut pipeline = catch_unwind(|| Pipeline::from_bytes(bytes))
        .map_err(|panic| bad(panic_message(panic.as_ref())))?
        .map_err(|e| bad(e.to_string()))?;
    let padding = pipeline.get_padding().map(|padding| padding.pad_id);
    pipeline.with_truncation(None).map_err(|e| bad(e.to_string()))?;
    pipeline.with_padding(None);
    let normalizer = pipeline.get_normalizer().cloned().and_then(without_lowercase);
    pipeline.with_normalizer(normalizer).map_err(|e| bad(e.to_string()))?;
    Ok(Engine::Json(Box::new(pipeline), padding))
}

fn without_lowercase(normalizer: NormalizerWrapper) -> Option<NormalizerWrapper> {
    match normalizer {
        NormalizerWrapper::Lowercase(_) => None,
        NormalizerWrapper::Sequence(sequence) => {
            let steps: Vec<_> = sequence.as_ref().iter().cloned().filter_map(without_lowercase).collect();
            Some(NormalizerWrapper::Sequence(tokenizers::normalizers::Sequence::new(steps)))
        }
        other => Some(other),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the tokenizers library gave up on it: {}", message.unwrap_or("no reason given"))
}
