//! Options that several routes share.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::answer::EmbeddingType;
use crate::text::Canonicalization;

/// How the numbers of an embedding are written in a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// The little-endian bytes: base64 in JSON, a byte string in MessagePack.
    Base64,
}

/// What bare strings are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// A data: URL is a picture, every other string a text.
    #[default]
    Auto,
    /// All of them are texts.
    Text,
    /// All of them are pictures: base64, data: URLs or http(s) URLs.
    Image,
}

/// What is done to a text before it is tokenised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextRules {
    /// As the checkpoint was trained and as transformers does it.
    Hf,
    /// As big_vision does it: ASCII letters become lower case.
    BigVision,
    /// As open_clip does it.
    OpenClip,
    /// Nothing.
    None,
}

impl From<TextRules> for Canonicalization {
    fn from(rules: TextRules) -> Self {
        match rules {
            TextRules::Hf => Self::Hf,
            TextRules::BigVision => Self::BigVision,
            TextRules::OpenClip => Self::OpenClip,
            TextRules::None => Self::None,
        }
    }
}

impl From<Canonicalization> for TextRules {
    fn from(rules: Canonicalization) -> Self {
        match rules {
            Canonicalization::Hf => Self::Hf,
            Canonicalization::BigVision => Self::BigVision,
            Canonicalization::OpenClip => Self::OpenClip,
            Canonicalization::None => Self::None,
        }
    }
}

/// Options of embeddings: query parameters of `/v1/embeddings/images`, fields of a form, and fields of the JSON
/// body.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EmbedParams {
    /// The model's name; may be left out, then it is the service's first model.
    pub model: Option<String>,
    /// How numbers are written in a document; `float` if left out.
    pub encoding_format: Option<EncodingFormat>,
    /// The element type; `float32` if left out.
    pub embedding_type: Option<EmbeddingType>,
    /// Whether vectors are brought to length 1; true if left out.
    pub normalize: Option<bool>,
    /// Must be the model's own width: SigLIP is not trained for shortened vectors.
    pub dimensions: Option<usize>,
    /// Another canonicalisation than the checkpoint's.
    pub canonicalization: Option<TextRules>,
    /// Another patch budget than the checkpoint's; NaFlex models only.
    pub max_num_patches: Option<usize>,
    /// Whether a bad input is answered by an error entry in its place instead of failing the request.
    pub partial: Option<bool>,
}

impl EmbedParams {
    /// These, and where they say nothing `other`.
    pub fn or(self, other: Self) -> Self {
        Self {
            model: self.model.or(other.model),
            encoding_format: self.encoding_format.or(other.encoding_format),
            embedding_type: self.embedding_type.or(other.embedding_type),
            normalize: self.normalize.or(other.normalize),
            dimensions: self.dimensions.or(other.dimensions),
            canonicalization: self.canonicalization.or(other.canonicalization),
            max_num_patches: self.max_num_patches.or(other.max_num_patches),
            partial: self.partial.or(other.partial),
        }
    }
}
