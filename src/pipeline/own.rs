//! The classifier of a checkpoint as a linear layer.

use crate::checkpoint::Checkpoint;
use crate::model::{ImagePooling, LabelActivation, PatchVectors, Weights};
use crate::{Error, Result};

/// A classifier that was trained on a checkpoint's image tower: a linear layer over the mean of the patch tokens.
/// Source: transformers, `modeling_siglip.py`, `SiglipForImageClassification`.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnClassifier {
    /// Its labels.
    pub labels: Vec<String>,
    /// How its logits become scores.
    pub activation: LabelActivation,
    /// `[labels, width]`.
    pub rows: Vec<f32>,
    /// One for each label.
    pub bias: Vec<f32>,
    /// What it looks at in place of embeddings; nothing else where the tower has no pooling head, since there the embedding is
    /// that mean, as it comes, not normalised.
    pub looks_at: Option<PatchVectors>,
}

impl OwnClassifier {
    /// Reads that of a checkpoint; none if it has none.
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let (Some(spec), Some(image)) = (&checkpoint.spec.classifier, &checkpoint.spec.image) else {
            return Ok(None);
        };
        let (labels, width) = (spec.labels.len(), image.encoder.width);
        let read = |name: &str, shape: &[usize]| {
            let tensor = checkpoint.weights.tensor(name, shape)?;
            Ok::<Vec<f32>, Error>(tensor.flatten_all().and_then(|tensor| tensor.to_vec1())?)
        };
        Ok(Some(Self {
            labels: spec.labels.clone(),
            activation: spec.activation,
            rows: read("classifier.weight", &[labels, width])?,
            bias: read("classifier.bias", &[labels])?,
            looks_at: (image.pooling != ImagePooling::Mean).then_some(PatchVectors::Mean),
        }))
    }
}
