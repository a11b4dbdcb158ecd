//! What a loaded model says of itself: the same facts for `siglip inspect` and for the service.

use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::checkpoint::Checkpoint;
use crate::image::{Geometry, ImageDecode, ImageSpec};
use crate::model::ModelSpec;
use crate::text::{Canonicalization, TextFamily, TextSpec};

/// Arithmetic of the towers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The fastest that the device does without giving wrong answers.
    #[default]
    Auto,
    /// IEEE single precision: the reference.
    F32,
    /// bfloat16 matrix products with f32 sums.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 8-bit integers in the matrix products.
    Int8,
}

impl Precision {
    /// As `--dtype` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

/// Where the towers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// One loaded model.
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    /// The name requests use.
    pub name: String,
    /// What it was loaded from: a hub id with its revision, a folder's name, or `demo`.
    pub source: String,
    /// `siglip`, `siglip2` or `siglip2-naflex`.
    pub family: String,
    /// Width of the embeddings.
    pub embedding_dim: usize,
    /// Number of parameters of both towers.
    pub parameters: usize,
    /// The towers.
    pub spec: ModelSpec,
    /// Image preprocessing, where there is an image tower.
    pub image: Option<ImageSpec>,
    /// How pictures are decoded before that.
    pub image_decode: ImageDecode,
    /// Text preprocessing, where there is a text tower.
    pub text: Option<TextSpec>,
    /// Factor of the cosine in a logit (already exponentiated), where the checkpoint has one.
    pub logit_scale: Option<f32>,
    /// Added to the scaled cosine, where the checkpoint has one.
    pub logit_bias: Option<f32>,
    /// The template of zero-shot labels.
    pub template: String,
    /// SHA-256 in hex over the weights and everything in preprocessing that changes vectors. The arithmetic is no part
    /// of it: vectors in bf16 and in f32 may be compared.
    pub fingerprint: String,
    /// Arithmetic in use.
    pub dtype: Precision,
    /// Where it runs.
    pub device: DeviceKind,
}

impl ModelInfo {
    /// Names the embedding space of vectors that were made with other rules than the model's own: its fingerprint where
    /// they change nothing, else SHA-256 in hex over it and the rules.
    pub fn fingerprint_with(
        &self,
        canonicalization: Option<Canonicalization>,
        max_num_patches: Option<usize>,
    ) -> String {
        let own = self.text.as_ref().map(|text| text.canonicalization);
        let canonicalization = canonicalization.filter(|&rules| Some(rules) != own);
        let own = self.image.as_ref().and_then(|image| match image.geometry {
            Geometry::NaFlex { max_num_patches } => Some(max_num_patches),
            Geometry::Squash { .. } | Geometry::Crop { .. } => None,
        });
        let max_num_patches = max_num_patches.filter(|&patches| Some(patches) != own);
        if canonicalization.is_none() && max_num_patches.is_none() {
            return self.fingerprint.clone();
        }
        let mut hash = Sha256::new();
        hash.update(&self.fingerprint);
        if let Some(rules) = canonicalization {
            hash.update(format!("\ncanonicalization: {rules}"));
        }
        if let Some(patches) = max_num_patches {
            hash.update(format!("\nmax_num_patches: {patches}"));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Names the space of the patch tokens of a model with this fingerprint: they are not to be compared with its embeddings.
pub fn fingerprint_of_patches(fingerprint: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(fingerprint);
    hash.update("\noutput: patches");
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `siglip`, `siglip2` or `siglip2-naflex`, by how pictures and texts are prepared.
pub(super) fn family(checkpoint: &Checkpoint) -> &'static str {
    let naflex = matches!(checkpoint.image.as_ref().map(|i| i.geometry), Some(Geometry::NaFlex { .. }));
    match checkpoint.text.as_ref().map(|text| text.family) {
        _ if naflex => "siglip2-naflex",
        Some(TextFamily::SigLip2) => "siglip2",
        Some(TextFamily::SigLip1) => "siglip",
        // Without a text tower the picture's filter is what tells the two apart.
        None => match checkpoint.image.as_ref().map(|image| image.resample) {
            Some(crate::image::Resample::Bilinear) => "siglip2",
            _ => "siglip",
        },
    }
}
