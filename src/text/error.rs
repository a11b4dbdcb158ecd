//! What can be wrong with a text or its tokenizer.

/// Why a text, a list of token ids or a tokenizer file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The checkpoint came without a tokenizer.
    #[error("this model has no tokenizer: send token ids instead of text")]
    NoTokenizer,
    /// The name of a canonicalisation mode is not one.
    #[error("unknown canonicalisation {0:?}: expected one of hf, big_vision, open_clip, none")]
    UnknownCanonicalization(String),
    /// The text is longer than anything that could fill the context; it was not looked at.
    #[error("the text has {bytes} bytes; at most {limit} are accepted")]
    TextTooLong {
        /// Bytes in UTF-8.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A list of token ids does not fit the context.
    #[error("{count} token ids were given; the context of this model is {context}")]
    TooManyIds {
        /// Ids given.
        count: usize,
        /// Context length.
        context: usize,
    },
    /// A token id has no embedding.
    #[error("token id {id} (at position {position}) is not below the vocabulary size {vocab}")]
    IdOutOfVocabulary {
        /// The id.
        id: u32,
        /// Its index in the list.
        position: usize,
        /// Rows of the embedding table.
        vocab: usize,
    },
    /// A tokenizer file is malformed, contradicts itself or asks for something unsupported.
    #[error("{kind} is not usable: {reason}")]
    Tokenizer {
        /// Which kind of file.
        kind: &'static str,
        /// What is wrong in it.
        reason: String,
    },
    /// The text specification cannot hold a text.
    #[error("the text specification is not usable: {0}")]
    Spec(&'static str),
    /// The tokenizer failed on one text although it loaded: a fault of its files.
    #[error("the tokenizer failed on this text: {0}")]
    Encode(String),
}
