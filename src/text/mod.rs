//! From a string to token ids: canonicalise, tokenise, pad to the context.
//!
//! [`TextProcessor`] is the way in. Ids are those of transformers' tokenizers, of the
//! `sentencepiece` package and of open_clip, for any string.

mod canonicalize;
mod charsmaps;
mod config;
mod error;
mod open_clip;
mod processor;
mod sentencepiece;
mod spec;
mod tokenizer;
mod vocabulary;

pub use canonicalize::canonicalize;
pub use error::TextError;
pub use processor::{DEFAULT_MAX_TEXT_BYTES, TextProcessor};
pub use spec::{Canonicalization, TextFamily, TextReading, TextSpec, TokenIds, TokenizerFiles};
