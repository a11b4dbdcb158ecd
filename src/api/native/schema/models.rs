//! `/v1/models` and `/health`.

use serde::Serialize;
use utoipa::ToSchema;

use super::ListTag;
use crate::api::edge::error::shortened;
use crate::engine::{ModelState, ModelStatus};
use crate::image::{Geometry, ImageDecode, Resample};
use crate::pipeline::{DeviceKind, ModelInfo, Precision};
use crate::text::{Canonicalization, TextFamily};

/// Every model of the service.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: ListTag,
    /// The models; the first is the one that requests without a name get.
    pub data: Vec<Model>,
}

/// `model`.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ModelTag {
    /// The only value.
    Model,
}

/// One model: OpenAI's four fields, and what one needs to know to use its vectors.
#[derive(Debug, Serialize, ToSchema)]
pub struct Model {
    /// The name that requests use.
    pub id: String,
    /// Always `model`.
    pub object: ModelTag,
    /// When the service started, in seconds since 1970.
    pub created: u64,
    /// Always `siglip`.
    pub owned_by: String,
    /// `warming`, `ready`, `failed`, `loading`, or `unloaded`: its weights have left the memory and come back with the next request.
    pub state: String,
    /// What it was loaded from.
    pub source: String,
    /// `siglip`, `siglip2` or `siglip2-naflex`.
    pub family: String,
    /// Width of the embeddings.
    pub dimensions: usize,
    /// Number of parameters of both towers.
    pub parameters: usize,
    /// A hash over the weights and all preprocessing that changes vectors: vectors with the same fingerprint
    /// may be compared, others not. `dtype` is no part of it.
    pub fingerprint: String,
    /// Arithmetic of the towers.
    pub dtype: Precision,
    /// Where it runs.
    pub device: DeviceKind,
    /// Factor of the cosine in a logit.
    pub logit_scale: Option<f32>,
    /// Added to the scaled cosine.
    pub logit_bias: Option<f32>,
    /// The template of zero-shot labels.
    pub template: String,
    /// The image side, where there is an image tower.
    pub image: Option<ImageCard>,
    /// The text side, where there is a text tower.
    pub text: Option<TextCard>,
}

/// Rows and columns of patches.
#[derive(Debug, Serialize, ToSchema)]
pub struct PatchGrid {
    /// Patches from top to bottom.
    pub rows: usize,
    /// Patches from left to right.
    pub cols: usize,
}

/// How a picture is brought to the tower's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// It is stretched: its own shape is lost.
    Squash,
    /// Its shorter side is brought to the size, and the middle is cut out.
    Crop,
    /// It keeps its shape and is cut into at most `max_num_patches` patches.
    Naflex,
}

/// How pictures are brought to the tower.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImageCard {
    /// `exact`, or `fast` where large JPEGs are scaled down while they are decoded.
    #[schema(value_type = String, example = "exact")]
    pub decode: ImageDecode,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Grid of the stored position table.
    pub patch_grid: PatchGrid,
    /// How a picture is brought to the tower's shape.
    pub fit: Fit,
    /// Height that every picture is brought to; null for NaFlex.
    pub height: Option<u32>,
    /// Width that every picture is brought to; null for NaFlex.
    pub width: Option<u32>,
    /// Patches of a picture at most; null for a fixed resolution.
    pub max_num_patches: Option<usize>,
    /// The resize filter, as Pillow names it.
    #[schema(value_type = String, example = "bicubic")]
    pub resample: Resample,
    /// Mean of each channel after the scaling to 0…1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel.
    pub std: Vec<f32>,
}

/// How texts are brought to the tower.
#[derive(Debug, Serialize, ToSchema)]
pub struct TextCard {
    /// Tokens of a text; longer texts are cut.
    pub context: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Which family's tokenizer.
    #[schema(value_type = String, example = "sig_lip2")]
    pub family: TextFamily,
    /// What is done to a text before it is tokenised, if the request does not say otherwise.
    pub canonicalization: Canonicalization,
}

impl Model {
    /// The card of the model that requests call `name`.
    pub fn new(name: &str, info: &ModelInfo, state: &ModelState, created: u64) -> Self {
        let image = info.spec.image.as_ref().zip(info.image.as_ref()).map(|(tower, spec)| {
            let (fit, height, width, max_num_patches) = match spec.geometry {
                Geometry::Squash { height, width } => (Fit::Squash, Some(height), Some(width), None),
                Geometry::Crop { side } => (Fit::Crop, Some(side), Some(side), None),
                Geometry::NaFlex { max_num_patches } => (Fit::Naflex, None, None, Some(max_num_patches)),
            };
            ImageCard {
                decode: info.image_decode,
                patch_size: spec.patch,
                fit,
                patch_grid: PatchGrid { rows: tower.positions.rows, cols: tower.positions.cols },
                height,
                width,
                max_num_patches,
                resample: spec.resample,
                mean: spec.mean.to_vec(),
                std: spec.std.to_vec(),
            }
        });
        let text = info.text.as_ref().map(|spec| TextCard {
            context: spec.context,
            vocab: spec.vocab,
            family: spec.family,
            canonicalization: spec.canonicalization,
        });
        Self {
            id: name.to_owned(),
            object: ModelTag::Model,
            created,
            owned_by: "siglip".to_owned(),
            state: state.label().to_owned(),
            source: info.source.clone(),
            family: info.family.clone(),
            dimensions: info.embedding_dim,
            parameters: info.parameters,
            fingerprint: info.fingerprint.clone(),
            dtype: info.dtype,
            device: info.device,
            logit_scale: info.logit_scale,
            logit_bias: info.logit_bias,
            template: info.template.clone(),
            image,
            text,
        }
    }
}

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// In one word.
    pub status: HealthStatus,
    /// The program's version.
    pub version: String,
    /// The names of its models.
    pub models: Vec<String>,
}

/// How the service is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It takes requests.
    Ok,
    /// Its models are not warm yet.
    Starting,
    /// A model fails on every batch: its device is lost, or has no memory left. It is tried again every few seconds.
    Failing,
    /// It was told to stop and finishes what it has.
    Draining,
}

/// Whether the service takes requests, and how each model is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// In one word.
    pub status: HealthStatus,
    /// The models, in the order that they were named.
    pub models: Vec<ModelHealth>,
}

/// How one model is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelHealth {
    /// Its name.
    pub name: String,
    /// `downloading`, `loading`, `warming`, `ready`, `unloaded` or `failed`.
    #[schema(example = "ready")]
    pub state: String,
    /// While it is downloaded: bytes of the current file so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// And all bytes of that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ModelHealth {
    /// From what the engine says.
    pub fn of(status: &ModelStatus) -> Self {
        const LONGEST_REASON: usize = 500;
        let (mut bytes, mut total, mut reason) = (None, None, None);
        match &status.state {
            ModelState::Downloading { bytes: so_far, total: all } => {
                (bytes, total) = (Some(*so_far), *all);
            }
            ModelState::Failed { reason: why } => {
                reason = Some(shortened(why, LONGEST_REASON).into_owned());
            }
            _ => {}
        }
        Self { name: status.name.clone(), state: status.state.label().to_owned(), bytes, total, reason }
    }
}
