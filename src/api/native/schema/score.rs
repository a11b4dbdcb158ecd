//! `/v1/score`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Inputs, TextRules, Usage};

/// Pictures and texts to compare, each with each.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "images": ["data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"], "texts": ["a photo of a cat", "a photo of a dog"],
}))]
pub struct ScoreRequest {
    /// The model's name; may be left out, then it is the service's first model.
    #[serde(default)]
    pub model: Option<String>,
    /// Pictures; a bare string is one too.
    pub images: Inputs,
    /// Texts or lists of token ids, as they are: no template is put around them.
    pub texts: Inputs,
    /// Another canonicalisation than the checkpoint's.
    #[serde(default)]
    pub canonicalization: Option<TextRules>,
    /// Another patch budget than the checkpoint's; NaFlex models only.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_num_patches: Option<usize>,
}

/// `scores`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScoresTag {
    /// The only value.
    Scores,
}

/// Matrices with a row for each picture and a column for each text.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScoreResponse {
    /// Always `scores`.
    pub object: ScoresTag,
    /// Cosine of the two embeddings.
    pub cosine: Vec<Vec<f32>>,
    /// Scale times cosine plus bias; null for a checkpoint without scale and bias.
    pub logit: Option<Vec<Vec<f32>>>,
    /// Sigmoid of the logit: the probability that text and picture belong together; null as above.
    pub probability: Option<Vec<Vec<f32>>>,
    /// The model that made them.
    pub model: String,
    /// What was counted.
    pub usage: Usage,
}
