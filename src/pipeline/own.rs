//! The classifier of a checkpoint as a linear layer over its embeddings.

use crate::checkpoint::Checkpoint;
use crate::model::{ImagePooling, LabelActivation, Weights};
use crate::{Error, Result};

/// A classifier that was trained on a checkpoint's image tower. It looks at the mean of the patch tokens, which in a tower
/// without a pooling head is the embedding as it comes, not normalised.
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
}

impl OwnClassifier {
    /// Reads that of a checkpoint; none if it has none, or has a pooling head as well.
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let (Some(spec), Some(image)) = (&checkpoint.spec.classifier, &checkpoint.spec.image) else {
            return Ok(None);
        };
        if image.pooling != ImagePooling::Mean {
            return Ok(None);
        }
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
        }))
    }
}
