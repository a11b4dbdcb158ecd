//! `/v1/classify`.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{ErrorEntry, Inputs, LabelSetUsed, ListTag, Usage, Vectors};
use crate::api::read::options;
use crate::labels::NoneRule;
use crate::model::NoneScore;
use crate::model::zero_shot::Activation;
use crate::text::Canonicalization;

options! {
    /// Pictures and the labels to try on them.
    #[schema(example = json!({
        "input": [{"image": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"}], "labels": ["cat", "dog"],
    }))]
    pub struct ClassifyRequest {
        inputs {}
        either {
            /// The pictures; a bare string is one too.
            input: Inputs,
            /// In place of pictures, embeddings of this model that were stored earlier.
            embeddings: Vectors,
        }
        lists {
            /// The labels, each at most 1,000 bytes long. Without labels and `label_set`, those of the checkpoint's own classifier,
            /// where it has one.
            #[schema(value_type = Option<Vec<String>>, min_items = 1, example = json!(["cat", "dog"]))]
            labels,
            /// Several templates: the normalised embeddings of a label are averaged and normalised again.
            #[schema(value_type = Option<Vec<String>>, min_items = 1)]
            templates,
        }
        options {
            /// The model's name; may be left out, then it is the service's first model.
            model: String,
            /// A text with `{}` where the label goes, at most 4,000 bytes long; the model's own if left out.
            #[schema(example = "This is a photo of {}.")]
            template: String,
            /// In place of labels, the name of a stored set (`/v1/label-sets`), or `name@version`.
            #[schema(example = "animals")]
            label_set: String,
            /// How logits become scores; if left out, as the label set says, else `sigmoid`.
            activation: Activation,
            /// Only so many predictions per picture, the best; all if left out.
            #[schema(minimum = 1)]
            top_k: usize,
            /// Only predictions with at least this score; if left out, the thresholds of the label set.
            threshold: f32,
            /// When none of the labels fits; if left out, as the label set says.
            none: NoneRule,
            /// A background of the service (`--background`). Scores of a stored set are then logits in standard deviations above each
            /// label's mean over its pictures, and these above the mean of the picture's own labels, in place of `activation`.
            #[schema(example = "photos")]
            standardize: String,
            /// Another canonicalisation of labels than the checkpoint's.
            canonicalization: Canonicalization,
            /// Another patch budget than the checkpoint's; NaFlex models only.
            #[schema(minimum = 1)]
            max_num_patches: usize,
            /// Whether a picture that cannot be used, or comes too late, gets an error entry in its place instead of failing the request.
            partial: bool,
        }
    }
}

/// Classifications in the order of the pictures.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassifyResponse {
    /// Always `list`.
    pub object: ListTag,
    /// One entry per picture.
    pub data: Vec<ClassificationEntry>,
    /// The model that made them.
    pub model: String,
    /// What was counted, labels included.
    pub usage: Usage,
    /// The label set that was used, where it is a stored one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_set: Option<LabelSetUsed>,
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
    /// The best label; null if none reaches the threshold, or none fits.
    #[schema(value_type = Option<String>)]
    pub prediction: Option<Label>,
    /// Its score.
    pub score: Option<f32>,
    /// Every label that is asked for, best first.
    pub predictions: Vec<LabelPrediction>,
    /// Whether any label fits; only where `none` is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none: Option<NoneAnswer>,
}

/// Whether any label fits a picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct NoneAnswer {
    /// Whether none of the labels fits: the score is below the threshold.
    pub none_fits: bool,
    /// The probability of the best label that reaches its threshold, or of the best one; against negatives, the share of all
    /// labels.
    pub score: f32,
    /// What it had to reach.
    pub threshold: f32,
}

impl From<NoneScore> for NoneAnswer {
    fn from(none: NoneScore) -> Self {
        Self { none_fits: none.none_fits(), score: none.score, threshold: none.threshold }
    }
}

/// One label.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LabelPrediction {
    /// The label as it was sent.
    #[schema(value_type = String)]
    pub label: Label,
    /// Its score after the activation.
    pub score: f32,
    /// Scale times cosine plus bias.
    pub logit: f32,
}

/// A label as it was sent; every picture's answer shares it.
#[derive(Debug, Clone, PartialEq)]
pub struct Label(pub Arc<str>);

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
