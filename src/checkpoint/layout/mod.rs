//! The layouts that checkpoints come in. Each reads its own configuration into one spec and says
//! which stored tensors make each canonical one.

pub(super) mod big_vision;
mod classifier;
pub(super) mod huggingface;
mod kinds;
mod names;
pub(super) mod open_clip;

use serde::Serialize;

use super::CheckpointError;
use super::json::Object;
use super::weights::CheckpointWeights;
use crate::image::{Grid, ImageSpec};
use crate::model::{EncoderSpec, ModelSpec};
use crate::ops::Activation;
use crate::text::TextSpec;

/// How the files of a checkpoint are named and arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `config.json` and `model.safetensors`, as transformers writes them.
    HuggingFace,
    /// `open_clip_config.json` and `open_clip_model.safetensors`.
    OpenClip,
    /// A `config.json` of timm's and its image tower in `model.safetensors`.
    Timm,
    /// One `.npz` file of big_vision's.
    BigVision,
}

impl Layout {
    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HuggingFace => "Hugging Face",
            Self::OpenClip => "open_clip",
            Self::Timm => "timm",
            Self::BigVision => "big_vision",
        }
    }
}

/// What a layout makes of the files.
pub(super) struct Opened {
    pub(super) spec: ModelSpec,
    pub(super) image: Option<ImageSpec>,
    pub(super) text: Option<TextSpec>,
    pub(super) weights: CheckpointWeights,
}

/// Sizes above these are no real model's; below them no product of sizes overflows.
pub(super) mod limit {
    pub(crate) const WIDTH: usize = 1 << 16;
    pub(crate) const DEPTH: usize = 512;
    pub(crate) const MLP: usize = 1 << 20;
    pub(crate) const VOCAB: usize = 1 << 24;
    pub(crate) const CONTEXT: usize = 1 << 16;
    pub(crate) const PATCH: usize = 256;
    pub(crate) const IMAGE: usize = 1 << 14;
    pub(crate) const PATCHES: usize = 1 << 20;
}

/// Checks that the heads divide the width.
pub(super) fn check_heads(
    object: &Object,
    field: &str,
    encoder: &EncoderSpec,
) -> Result<(), CheckpointError> {
    if encoder.width.is_multiple_of(encoder.heads) {
        return Ok(());
    }
    Err(object.error(field, format!("{} heads do not divide the width {}", encoder.heads, encoder.width)))
}

/// The activation of a configuration, by the names that transformers and timm use.
pub(super) fn activation(object: &Object, field: &str, name: &str) -> Result<Activation, CheckpointError> {
    match name {
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_tanh" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::GeluErf),
        other => {
            Err(object.error(field, format!("unknown activation {other:?}; known: gelu, gelu_pytorch_tanh")))
        }
    }
}

/// The grid of whole patches in a picture.
pub(super) fn grid(
    object: &Object,
    field: &str,
    size: (usize, usize),
    patch: usize,
) -> Result<Grid, CheckpointError> {
    let grid = Grid { rows: size.0 / patch, cols: size.1 / patch };
    if grid.is_empty() {
        return Err(object.error(field, format!("{}×{} holds no patch of {patch}", size.0, size.1)));
    }
    Ok(grid)
}

/// The square grid of a NaFlex position table.
pub(super) fn square(object: &Object, field: &str, patches: usize) -> Result<Grid, CheckpointError> {
    let side = patches.isqrt();
    if side == 0 || side * side != patches {
        return Err(object.error(field, format!("{patches} positions are not a square grid")));
    }
    Ok(Grid { rows: side, cols: side })
}
