//! `/v1/embeddings` and `/v1/embeddings/images`.

use serde::{Serialize, Serializer};
use serde_json::json;
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{EmbeddingOutput, EncodingFormat, Inputs, Modality};
use crate::api::answer::{EmbeddingType, Quantized};
use crate::api::dialects::Truncate;
use crate::api::dialects::openai::Messages;
use crate::api::edge::error::ErrorDetail;
use crate::api::read::options;
use crate::text::Canonicalization;

options! {
    /// A request for embeddings: OpenAI's, and more.
    #[schema(example = json!({"input": ["a photo of a cat", {"image": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"}]}))]
    pub struct EmbeddingsRequest {
        inputs {
            /// What to embed.
            input: Inputs,
        }
        lists {}
        options {
            /// The model's name; may be left out, then it is the service's first model.
            model: String,
            /// How numbers are written in a document; `float` if left out.
            encoding_format: EncodingFormat,
            /// The element type; `float32` if left out.
            embedding_type: EmbeddingType,
            /// Whether vectors are brought to length 1; true if left out. `int8` and `uint8` are only defined so.
            normalize: bool,
            /// What is wanted of pictures; `pooled` if left out.
            output: EmbeddingOutput,
            /// Must be the model's own width: SigLIP is not trained for shortened vectors.
            #[schema(minimum = 1)]
            dimensions: usize,
            /// Another canonicalisation than the checkpoint's.
            canonicalization: Canonicalization,
            /// Another patch budget than the checkpoint's; NaFlex models only.
            #[schema(minimum = 1)]
            max_num_patches: usize,
            /// What bare strings are; `auto` if left out.
            modality: Modality,
            /// Says that token ids are of this model's tokenizer; without it they are refused.
            token_ids: bool,
            /// Whether an input that cannot be used, or comes too late, gets an error entry in its place instead of failing the request.
            partial: bool,
            /// Accepted as OpenAI's clients send it, and ignored.
            user: String,
        }
        foreign {
            /// What vLLM's clients send in the place of `input`.
            messages: Messages,
            /// Jina's name for `normalize`.
            normalized: bool,
            /// Jina's and Cohere's hints for models that have prompts; there are none here.
            task: String,
            input_type: String,
            /// What becomes of long texts: Jina's, NVIDIA's and Voyage's names.
            truncate: Truncate,
            truncation: Truncate,
            /// Voyage's names for `embedding_type` and `dimensions`.
            output_dtype: EmbeddingType,
            output_dimension: usize,
            /// Jina's older name for `embedding_type`.
            encoding_type: EmbeddingType,
            /// Jina's: one text after the other as one. Not here.
            late_chunking: bool,
        }
    }
}

/// Embeddings in the order of the inputs.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingsResponse {
    /// Always `list`.
    pub object: ListTag,
    /// One entry per input.
    pub data: Vec<EmbeddingItem>,
    /// The model that made them.
    pub model: String,
    /// What was counted.
    pub usage: Usage,
}

/// `list`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListTag {
    /// The only value.
    List,
}

/// `embedding`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingTag {
    /// The only value.
    Embedding,
}

/// `error`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorTag {
    /// The only value.
    Error,
}

/// The answer to one input; an error only with `partial`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EmbeddingItem {
    /// Its embedding.
    Embedding(EmbeddingEntry),
    /// Why there is none.
    Error(ErrorEntry),
}

/// One embedding.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingEntry {
    /// Always `embedding`.
    pub object: EmbeddingTag,
    /// Which input it belongs to, from 0.
    pub index: usize,
    /// The vector.
    pub embedding: EmbeddingValue,
    /// Rows, columns and width of the vectors of patches; there with `output` `patches`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub shape: Option<[usize; 3]>,
    /// There, and true, if the text was longer than the model's context and was cut.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub truncated: bool,
}

/// An input that could not be used.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorEntry {
    /// Always `error`.
    pub object: ErrorTag,
    /// Which input it belongs to, from 0.
    pub index: usize,
    /// Why.
    pub error: ErrorDetail,
}

/// A vector as it is written.
#[derive(Debug, PartialEq)]
pub enum EmbeddingValue {
    /// A list of numbers.
    Numbers(Quantized),
    /// Base64 of the little-endian bytes.
    Base64(String),
    /// The little-endian bytes, in formats that know byte strings.
    Bytes(Vec<u8>),
}

impl Serialize for EmbeddingValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Numbers(Quantized::F32(v)) => v.serialize(serializer),
            Self::Numbers(Quantized::F16(v)) => serializer.collect_seq(v.iter().map(|x| x.to_f32())),
            Self::Numbers(Quantized::I8(v)) => v.serialize(serializer),
            Self::Numbers(Quantized::U8(v)) => v.serialize(serializer),
            Self::Base64(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
        }
    }
}

impl PartialSchema for EmbeddingValue {
    fn schema() -> RefOr<Schema> {
        super::literal(json!({
            "description": "A list of numbers, or with `encoding_format` base64 the little-endian bytes",
            "oneOf": [
                {"type": "array", "items": {"type": "number"}},
                {"type": "string", "contentEncoding": "base64"},
            ],
        }))
    }
}

impl ToSchema for EmbeddingValue {}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens with content: text ids without padding, and patches of pictures.
    pub prompt_tokens: usize,
    /// The same: nothing is generated.
    pub total_tokens: usize,
}

impl Usage {
    /// Of so many tokens.
    pub fn of(tokens: usize) -> Self {
        Self { prompt_tokens: tokens, total_tokens: tokens }
    }
}
