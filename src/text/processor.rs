//! From a text, or ids, to exactly one context of ids.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::tokenizer::{Tokenizer, default_ids};
use super::{
    Canonicalization, TextError, TextFamily, TextReading, TextSpec, TokenIds, TokenizerFiles, canonicalize,
};

/// Texts of more bytes than this are refused by default. A context of 64 tokens seldom holds a
/// thousandth of it.
pub const DEFAULT_MAX_TEXT_BYTES: usize = 64 * 1024;

/// Counted up whenever a change here changes ids, so that fingerprints change with it.
const ALGORITHM_VERSION: u8 = 1;

/// The text preprocessing of one checkpoint. Share it: encoding needs no exclusive access.
pub struct TextProcessor {
    tokenizer: Option<Tokenizer>,
    spec: TextSpec,
    pad: u32,
    eos: u32,
    max_bytes: usize,
    files: [u8; 32],
}

/// What `siglip inspect` shows of the text preprocessing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TextDescription {
    /// The tokenizer's file and model, or `none`.
    pub tokenizer: &'static str,
    /// Tokens that the tokenizer knows; of the embedding table where there is no tokenizer.
    pub vocab_size: usize,
    /// Id that fills the context.
    pub pad_id: u32,
    /// Id of the end token.
    pub eos_id: u32,
    /// Ids in one text.
    pub context: usize,
    /// The family whose rules `hf` means.
    pub family: TextFamily,
    /// The default canonicalisation.
    pub canonicalization: Canonicalization,
}

impl TextProcessor {
    /// Loads the tokenizer of a checkpoint. Without any tokenizer file, [`from_ids`](Self::from_ids)
    /// works and [`encode`](Self::encode) says [`TextError::NoTokenizer`].
    ///
    /// The padding and end ids come from `tokenizer_config.json`, `special_tokens_map.json`,
    /// `tokenizer.json` and the vocabulary, in this order, and from the family last; never from
    /// `config.json`, whose `pad_token_id` is wrong for SigLIP 2.
    pub fn new(files: &TokenizerFiles, spec: TextSpec) -> Result<Self, TextError> {
        if spec.context == 0 {
            return Err(TextError::Spec("the context length is 0"));
        }
        let tokenizer = Tokenizer::load(files, spec.family)?;
        let (pad, eos) =
            tokenizer.as_ref().map_or(default_ids(spec.family), |tokenizer| (tokenizer.pad, tokenizer.eos));
        for id in [pad, eos] {
            if id as usize >= spec.vocab {
                return Err(TextError::Spec("the padding or end token is not below the vocabulary size"));
            }
        }
        let files = digest_files(files, tokenizer.as_ref());
        Ok(Self { tokenizer, spec, pad, eos, max_bytes: DEFAULT_MAX_TEXT_BYTES, files })
    }

    /// The same with another bound on the bytes of a text.
    pub fn with_max_text_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// The ids of a text, canonicalised by `mode` or the checkpoint's default: its tokens, the end
    /// token, padding up to the context. A longer text is cut, its end token kept. No start token.
    ///
    /// Special tokens spelled out in the text (`<eos>`) become their ids, as in transformers.
    pub fn encode(&self, text: &str, mode: Option<Canonicalization>) -> Result<TokenIds, TextError> {
        Ok(self.split(text, mode)?.0)
    }

    /// [`Self::encode`] with what the tower does not see: how the text was before it was canonicalised, and what was cut.
    pub fn reading(&self, text: &str, mode: Option<Canonicalization>) -> Result<TextReading, TextError> {
        let (ids, cut) = self.split(text, mode)?;
        let mode = mode.unwrap_or(self.spec.canonicalization);
        Ok(TextReading { canonical: canonicalize(text, mode, self.spec.family).into_owned(), ids, cut })
    }

    /// The padded ids of a text, and those that the context does not hold.
    fn split(&self, text: &str, mode: Option<Canonicalization>) -> Result<(TokenIds, Vec<u32>), TextError> {
        let tokenizer = self.tokenizer.as_ref().ok_or(TextError::NoTokenizer)?;
        if text.len() > self.max_bytes {
            return Err(TextError::TextTooLong { bytes: text.len(), limit: self.max_bytes });
        }
        let mut ids = tokenizer.encode(text, mode.unwrap_or(self.spec.canonicalization))?;
        let truncated = ids.len() >= self.spec.context
            && !(ids.len() == self.spec.context
                && tokenizer.skips_second_eos()
                && ids.last() == Some(&self.eos));
        let kept = ids.len().min(self.spec.context - 1);
        let mut cut = ids.split_off(kept);
        if !truncated {
            // The text's own end token in the last place, which comes back.
            cut.clear();
        }
        if !(tokenizer.skips_second_eos() && ids.last() == Some(&self.eos)) {
            ids.push(self.eos);
        }
        self.check(&ids)?;
        Ok((self.pad(ids, truncated), cut))
    }

    /// Ids that the caller made, padded to the context. Nothing is appended: give the end token
    /// yourself. Ids at or above the vocabulary size and more ids than the context are errors.
    pub fn from_ids(&self, ids: &[u32]) -> Result<TokenIds, TextError> {
        if ids.len() > self.spec.context {
            return Err(TextError::TooManyIds { count: ids.len(), context: self.spec.context });
        }
        self.check(ids)?;
        Ok(self.pad(ids.to_vec(), false))
    }

    /// The token of an id, as the vocabulary writes it; none without a tokenizer.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.as_ref()?.token(id)
    }

    /// The specification it was made for.
    pub fn spec(&self) -> &TextSpec {
        &self.spec
    }

    /// The id that fills the context.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// The end token's id.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// Whether texts can be encoded, or only ids used.
    pub fn has_tokenizer(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// What it is, for people.
    pub fn describe(&self) -> TextDescription {
        TextDescription {
            tokenizer: self.tokenizer.as_ref().map_or("none", Tokenizer::kind),
            vocab_size: self.tokenizer.as_ref().map_or(self.spec.vocab, Tokenizer::vocab_size),
            pad_id: self.pad,
            eos_id: self.eos,
            context: self.spec.context,
            family: self.spec.family,
            canonicalization: self.spec.canonicalization,
        }
    }

    /// SHA-256 over everything that changes the ids of a text encoded by default: those of the tokenizer's
    /// files that are used, family, canonicalisation, context, padding and end id. Part of the fingerprint of
    /// the embedding space.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update([ALGORITHM_VERSION]);
        hash.update(self.files);
        hash.update([match self.spec.family {
            TextFamily::SigLip1 => 1,
            TextFamily::SigLip2 => 2,
        }]);
        hash.update(self.spec.canonicalization.name());
        hash.update((self.spec.context as u64).to_le_bytes());
        hash.update(self.pad.to_le_bytes());
        hash.update(self.eos.to_le_bytes());
        hash.finalize().into()
    }

    fn check(&self, ids: &[u32]) -> Result<(), TextError> {
        match ids.iter().position(|id| *id as usize >= self.spec.vocab) {
            None => Ok(()),
            Some(position) => {
                Err(TextError::IdOutOfVocabulary { id: ids[position], position, vocab: self.spec.vocab })
            }
        }
    }

    fn pad(&self, mut ids: Vec<u32>, truncated: bool) -> TokenIds {
        let used = ids.len();
        ids.resize(self.spec.context, self.pad);
        TokenIds { ids, used, truncated }
    }
}

/// Of two tokenizers only the one that runs counts: the other may be there or not.
fn digest_files(files: &TokenizerFiles, tokenizer: Option<&Tokenizer>) -> [u8; 32] {
    let json = tokenizer.is_some_and(Tokenizer::runs_json);
    let sentencepiece = tokenizer.is_some() && !json;
    let mut hash = Sha256::new();
    for file in [
        files.json.as_ref().filter(|_| json),
        files.sentencepiece.as_ref().filter(|_| sentencepiece),
        files.config.as_ref(),
        files.special_tokens.as_ref(),
    ] {
        match file {
            None => hash.update([0]),
            Some(bytes) => {
                hash.update([1]);
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
        }
    }
    hash.finalize().into()
}
