//! Values of options that several routes share.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

/// What is wanted of a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingOutput {
    /// One vector, which may be compared with those of texts.
    #[default]
    Pooled,
    /// The tokens of its patches after the tower's final norm: `embedding` has them one after the other, row by row, and `shape`
    /// says how many. They are aligned with no text. Not for texts.
    Patches,
}

impl crate::api::read::Heap for EmbeddingOutput {}

/// What bare strings are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// A data: URL is a picture, every other string a text. An http(s) URL is refused: it may mean either.
    #[default]
    Auto,
    /// All of them are texts.
    Text,
    /// All of them are pictures: base64, data: URLs or http(s) URLs.
    Image,
}
