//! Both towers of a checkpoint and what turns their cosines into probabilities.

use candle_core::{DType, Device};
use serde::Serialize;

use super::{ImageTower, ModelSpec, TextTower, Weights, scores};
use crate::image::{ImageSpec, Patches};
use crate::text::TokenIds;
use crate::{Error, Result};

/// The learned scale and bias of the sigmoid loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// Factor of the cosine, exponentiated (checkpoints store its logarithm).
    pub scale: f32,
    /// Added to the scaled cosine.
    pub bias: f32,
}

impl Scores {
    /// Logit of a cosine.
    pub fn logit(&self, cosine: f32) -> f32 {
        scores::logit(cosine, self.scale, self.bias)
    }
}

/// A loaded model.
pub struct Siglip {
    image: Option<ImageTower>,
    text: Option<TextTower>,
    scores: Option<Scores>,
}

impl Siglip {
    /// Reads the towers that `spec` names.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen, or if the device has no room for it.
    pub fn load(
        spec: &ModelSpec,
        image: Option<&ImageSpec>,
        weights: &dyn Weights,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let image = match (&spec.image, image) {
            (Some(tower), Some(image)) => Some(ImageTower::load(tower, image, weights, device, dtype)?),
            _ => None,
        };
        let text =
            spec.text.as_ref().map(|tower| TextTower::load(tower, weights, device, dtype)).transpose()?;
        let scores = if spec.scores {
            let number = |name: &str| -> Result<f32> { Ok(weights.tensor(name, &[1])?.to_vec1::<f32>()?[0]) };
            Some(Scores { scale: number("logit_scale")?.exp(), bias: number("logit_bias")? })
        } else {
            None
        };
        Ok(Self { image, text, scores })
    }

    /// The image tower.
    ///
    /// # Errors
    /// If the checkpoint has none.
    pub fn image(&self) -> Result<&ImageTower> {
        self.image
            .as_ref()
            .ok_or_else(|| Error::Request("this model has no image tower: it embeds texts only".into()))
    }

    /// The text tower.
    ///
    /// # Errors
    /// If the checkpoint has none.
    pub fn text(&self) -> Result<&TextTower> {
        self.text
            .as_ref()
            .ok_or_else(|| Error::Request("this model has no text tower: it embeds images only".into()))
    }

    /// Scale and bias, where the checkpoint has them.
    pub fn scores(&self) -> Option<Scores> {
        self.scores
    }

    /// One vector a picture, not normalised.
    ///
    /// # Errors
    /// If there is no image tower, or as [`ImageTower::forward`].
    pub fn embed_images(&self, pictures: &[&Patches]) -> Result<Vec<Vec<f32>>> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        self.image()?.embed(pictures)
    }

    /// One vector a text, not normalised.
    ///
    /// # Errors
    /// If there is no text tower, or as [`TextTower::forward`].
    pub fn embed_texts(&self, texts: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        self.text()?.embed(&ids)
    }
}
