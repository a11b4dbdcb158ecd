//! `/v1/classify`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Bounded, ErrorEntry, Inputs, ListTag, TextRules, Usage};
use crate::model::zero_shot::Activation;

/// How logits become scores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScoreActivation {
    /// The probability that the label fits, each label for itself: what SigLIP is trained for. The scores of a
    /// picture need not add up to 1, and all may be small.
    #[default]
    Sigmoid,
    /// Shares among the labels that add up to 1.
    Softmax,
    /// The logit itself.
    None,
}

impl From<ScoreActivation> for Activation {
    fn from(activation: ScoreActivation) -> Self {
        match activation {
            ScoreActivation::Sigmoid => Self::Sigmoid,
            ScoreActivation::Softmax => Self::Softmax,
            ScoreActivation::None => Self::None,
        }
    }
}

/// Pictures and the labels to try on them.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "input": [{"image": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"}], "labels": ["cat", "dog"],
}))]
pub struct ClassifyRequest {
    /// The model's name; may be left out, then it is the service's first model.
    #[serde(default)]
    pub model: Option<String>,
    /// The pictures; a bare string is one too.
    pub input: Inputs,
    /// The labels.
    #[schema(value_type = Vec<String>, min_items = 1, example = json!(["cat", "dog"]))]
    pub labels: Bounded<String>,
    /// A text with `{}` where the label goes; the model's own if left out.
    #[serde(default)]
    #[schema(example = "This is a photo of {}.")]
    pub template: Option<String>,
    /// Several templates: the normalised embeddings of a label are averaged and normalised again.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, min_items = 1)]
    pub templates: Option<Bounded<String>>,
    /// How logits become scores; `sigmoid` if left out.
    #[serde(default)]
    pub activation: Option<ScoreActivation>,
    /// Only so many predictions a picture, the best; all if left out.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub top_k: Option<usize>,
    /// Only predictions with at least this score.
    #[serde(default)]
    pub threshold: Option<f32>,
    /// Another canonicalisation of labels than the checkpoint's.
    #[serde(default)]
    pub canonicalization: Option<TextRules>,
    /// Another patch budget than the checkpoint's; NaFlex models only.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_num_patches: Option<usize>,
    /// Whether a bad picture is answered by an error entry in its place instead of failing the request.
    #[serde(default)]
    pub partial: Option<bool>,
}

/// Options of a classification: everything but the pictures and the labels.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifyParams {
    /// The model's name.
    pub model: Option<String>,
    /// A text with `{}` where the label goes.
    pub template: Option<String>,
    /// How logits become scores.
    pub activation: Option<ScoreActivation>,
    /// Only so many predictions a picture.
    pub top_k: Option<usize>,
    /// Only predictions with at least this score.
    pub threshold: Option<f32>,
    /// Another canonicalisation of labels than the checkpoint's.
    pub canonicalization: Option<TextRules>,
    /// Another patch budget than the checkpoint's; NaFlex models only.
    pub max_num_patches: Option<usize>,
    /// Error entries instead of a failed request.
    pub partial: Option<bool>,
}

/// A form with pictures and labels: files under any name, `labels` repeated, with commas, or as a JSON list; the
/// other fields as in the JSON body.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the form is read part by part; this is its schema")]
pub struct ClassifyForm {
    /// One or many files, under this or any other name.
    #[schema(value_type = Vec<String>, format = Binary)]
    pub image: Vec<Vec<u8>>,
    /// `cat,dog`, or `["cat", "dog"]`, or the field repeated.
    #[schema(example = "cat,dog")]
    pub labels: String,
    /// Repeated, or a JSON list: a text with `{}` where the label goes.
    pub templates: Option<String>,
    /// As in the JSON body.
    pub activation: Option<ScoreActivation>,
    /// As in the JSON body.
    #[schema(minimum = 1)]
    pub top_k: Option<usize>,
    /// As in the JSON body.
    pub threshold: Option<f32>,
}

/// Classifications in the order of the pictures.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassifyResponse {
    /// Always `list`.
    pub object: ListTag,
    /// One entry a picture.
    pub data: Vec<ClassificationEntry>,
    /// The model that made them.
    pub model: String,
    /// What was counted, labels included.
    pub usage: Usage,
}

/// The answer to one picture; an error only with `partial`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ClassificationEntry {
    /// Its labels.
    Classification(Classification),
    /// Why there are none.
    Error(ErrorEntry),
}

/// `classification`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClassificationTag {
    /// The only value.
    Classification,
}

/// The labels of one picture, best first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Classification {
    /// Always `classification`.
    pub object: ClassificationTag,
    /// Which picture it belongs to, from 0.
    pub index: usize,
    /// The best label; null if none reaches the threshold.
    pub prediction: Option<String>,
    /// Its score.
    pub score: Option<f32>,
    /// Every label that is asked for, best first.
    pub predictions: Vec<LabelPrediction>,
}

/// One label.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LabelPrediction {
    /// The label as it was sent.
    pub label: String,
    /// Its score after the activation.
    pub score: f32,
    /// Scale times cosine plus bias.
    pub logit: f32,
}
