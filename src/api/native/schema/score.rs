//! `/v1/score`.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Inputs, Usage};
use crate::api::read::options;
use crate::text::Canonicalization;

options! {
    /// Pictures and texts to compare, each with each.
    #[schema(example = json!({
        "images": ["data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"], "texts": ["a photo of a cat", "a photo of a dog"],
    }))]
    pub struct ScoreRequest {
        inputs {
            /// Pictures; a bare string is one too.
            images: Inputs,
            /// Texts, as they are: no template is put around them. Token ids only with `token_ids`.
            texts: Inputs,
        }
        lists {}
        options {
            /// The model's name; may be left out, then it is the service's first model.
            model: String,
            /// Another canonicalisation than the checkpoint's.
            canonicalization: Canonicalization,
            /// Another patch budget than the checkpoint's; NaFlex models only.
            #[schema(minimum = 1)]
            max_num_patches: usize,
            /// Says that token ids are of this model's tokenizer; without it they are refused.
            token_ids: bool,
        }
    }
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
