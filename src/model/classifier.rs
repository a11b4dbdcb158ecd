//! A classifier that was trained on the image tower.

use candle_core::DType;

use super::error::Result;
use super::loader::Loader;
use super::{ClassifierSpec, ImageOutputs, LabelActivation, Weights, scores};
use crate::ops::rows::{convert, mean_rows};
use crate::ops::{Epilogue, Linear, Numerics};

/// A linear layer over the mean of a picture's patch tokens.
/// Source: transformers, `modeling_siglip.py`, `SiglipForImageClassification`.
pub struct Classifier {
    spec: ClassifierSpec,
    layer: Linear,
}

impl Classifier {
    /// Reads its layer; `width` is that of the tower.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen.
    pub(super) fn load(
        spec: &ClassifierSpec,
        width: usize,
        weights: &dyn Weights,
        numerics: &Numerics,
    ) -> Result<Self> {
        // As exact as the heads of the towers: what is said of a picture hangs on few numbers.
        let fine = numerics.fine();
        let layer = Loader::new(weights, &fine).linear("classifier", width, spec.labels.len())?;
        Ok(Self { spec: spec.clone(), layer })
    }

    /// Its labels, in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.spec.labels
    }

    /// How its logits become scores.
    pub fn activation(&self) -> LabelActivation {
        self.spec.activation
    }

    /// One logit for each label, for each picture.
    pub(super) fn logits(&self, outputs: &ImageOutputs) -> Result<Vec<Vec<f32>>> {
        let pooled = mean_rows(&outputs.tokens, &outputs.segments)?;
        Ok(convert(&self.layer.forward(&pooled, Epilogue::None)?, DType::F32)?.to_vec2()?)
    }

    /// The scores that logits mean.
    pub fn scores(&self, logits: &[f32]) -> Vec<f32> {
        match self.spec.activation {
            LabelActivation::Softmax => scores::softmax(logits),
            LabelActivation::Sigmoid => logits.iter().map(|logit| scores::sigmoid(*logit)).collect(),
        }
    }
}
