//! `/v1/tokenize`.

use serde::Serialize;
use utoipa::ToSchema;

use super::ListTag;
use crate::api::read::{Bounded, options};
use crate::text::Canonicalization;

options! {
    /// Texts to be tokenised.
    #[schema(example = json!({"texts": ["A photo of a Cat"]}))]
    pub struct TokenizeRequest {
        inputs {}
        either {
            /// The texts, as they are: no template is put around them. Together at most 1 MiB.
            #[schema(value_type = Vec<String>, required = true, min_items = 1)]
            texts: Bounded<String>,
        }
        lists {}
        options {
            /// The model's name; may be left out, then it is the service's first model.
            model: String,
            /// Another canonicalisation than the checkpoint's.
            canonicalization: Canonicalization,
        }
    }
}

/// How texts are read, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenizeResponse {
    /// Always `list`.
    pub object: ListTag,
    /// One entry per text.
    pub data: Vec<ReadTokens>,
    /// The model whose tokenizer it was.
    pub model: String,
    /// Tokens of a text, padding included.
    pub context: usize,
}

/// `tokens`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokensTag {
    /// The only value.
    Tokens,
}

/// How one text is read.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadTokens {
    /// Always `tokens`.
    pub object: TokensTag,
    /// Which text it is, from 0.
    pub index: usize,
    /// The text after canonicalisation.
    pub canonical: String,
    /// The tokens without padding; the last is the end token.
    pub tokens: Vec<ReadToken>,
    /// Padding tokens that follow, up to the context. The model sees them.
    pub padding: usize,
    /// Whether the text was longer than the context.
    pub truncated: bool,
    /// The first tokens that the context did not hold, at most 64.
    pub cut: Vec<ReadToken>,
    /// How many it did not hold.
    pub cut_total: usize,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadToken {
    /// Its id.
    pub id: u32,
    /// As the vocabulary writes it (`▁` is a space); null where that is not known.
    pub token: Option<String>,
}
