//! What differs between checkpoints, as data: the towers read it, nothing in them branches on a
//! checkpoint's name or family.

use serde::Serialize;

use crate::image::Grid;
use crate::ops::Activation;

/// One transformer encoder: pre-norm blocks, bidirectional attention, a final layer norm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EncoderSpec {
    /// Width of a token.
    pub width: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Hidden width of the MLPs.
    pub mlp: usize,
    /// Non-linearity of the MLPs.
    pub activation: Activation,
    /// Epsilon of every layer norm.
    pub norm_eps: f64,
}

impl EncoderSpec {
    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.width / self.heads
    }
}

/// How the learned position table is resized for a picture whose grid is not the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionResize {
    /// Bicubic (a = -0.75), corners not aligned, no antialias: Hugging Face's
    /// `interpolate_pos_encoding` for fixed-resolution checkpoints.
    Bicubic,
    /// Bilinear with antialias, corners not aligned: NaFlex.
    BilinearAntialias,
}

/// How patch tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImagePooling {
    /// Multi-head attention pooling by a learned probe, then a residual MLP.
    MapHead,
    /// The mean of the patch tokens: timm's `gap` variants, which have no head.
    Mean,
}

/// The image tower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageTowerSpec {
    /// Its encoder.
    pub encoder: EncoderSpec,
    /// Side of a square patch in pixels.
    pub patch: usize,
    /// Grid of the stored position table.
    pub positions: Grid,
    /// How the table is resized for another grid.
    pub position_resize: PositionResize,
    /// How tokens are pooled.
    pub pooling: ImagePooling,
}

/// The text tower.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextTowerSpec {
    /// Its encoder.
    pub encoder: EncoderSpec,
    /// Number of token embeddings.
    pub vocab: usize,
    /// Context length: every text is padded to exactly this many tokens.
    pub context: usize,
    /// Output width of the text head; `None` where the checkpoint has no head.
    pub projection: Option<usize>,
    /// Whether a second linear layer follows the head, as FG-CLIP 2 has one for long texts.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub long_head: bool,
}

impl TextTowerSpec {
    /// Width of its vectors.
    pub fn out_dim(&self) -> usize {
        self.projection.unwrap_or(self.encoder.width)
    }
}

/// How the logits of a trained classifier become the scores of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelActivation {
    /// Shares that sum to 1: one label is right.
    Softmax,
    /// Each label's own probability: any number of labels is right.
    Sigmoid,
}

/// A trained classifier: a linear layer over the mean of a picture's patch tokens after the final norm
/// (transformers, `SiglipForImageClassification`).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassifierSpec {
    /// The labels, one for each row of the layer.
    pub labels: Vec<String>,
    /// How its logits become scores.
    pub activation: LabelActivation,
}

/// Both towers. A checkpoint has at least one of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelSpec {
    /// The image tower, if the checkpoint has one.
    pub image: Option<ImageTowerSpec>,
    /// The text tower, if the checkpoint has one.
    pub text: Option<TextTowerSpec>,
    /// Whether `logit_scale` and `logit_bias` are there (they are not in one-tower files).
    pub scores: bool,
    /// A trained classifier over the image tower.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier: Option<ClassifierSpec>,
}

impl ModelSpec {
    /// Width of the embeddings.
    pub fn embedding_dim(&self) -> usize {
        match (&self.image, &self.text) {
            (Some(image), _) => image.encoder.width,
            (None, Some(text)) => text.out_dim(),
            (None, None) => 0,
        }
    }
}
