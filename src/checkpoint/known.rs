//! The public checkpoints: what they are called and what they are, from `models/known.json`.
//!
//! Nothing is loaded by it: a checkpoint's own files say what it is. It gives names to `inspect`,
//! figures to tests, and the one thing that an `.npz` does not hold, the size of its pictures.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::image::Resample;
use crate::text::TextFamily;

/// One public checkpoint.
#[derive(Debug, Clone, Deserialize)]
pub struct Known {
    /// Its id on the Hugging Face hub.
    pub name: String,
    /// Its name in open_clip, and on the hub after `timm/`.
    pub open_clip: String,
    /// The stem of big_vision's file.
    pub npz: String,
    /// `siglip` or `siglip2`.
    family: String,
    /// Size of the image tower: `base`, `large`, `so400m` or `giant-opt`.
    pub image_tower: String,
    /// Size of the text tower.
    pub text_tower: String,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Side of the squared pictures in pixels; `None` for NaFlex.
    pub image: Option<usize>,
    /// Patches of a picture; `None` for NaFlex.
    pub tokens: Option<usize>,
    /// Token embeddings.
    pub vocab: usize,
    /// Context length.
    pub context: usize,
    /// Width of the embeddings.
    pub projection: usize,
    /// Whether big_vision's file has a text head (in the others it is an identity).
    pub text_head_in_npz: bool,
    /// Filter of the resize in transformers.
    resample: String,
    /// Parameters.
    pub millions: Millions,
}

/// Parameters in millions, rounded to two decimals.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Millions {
    /// Of the image tower.
    pub image: f64,
    /// Of the text tower.
    pub text: f64,
    /// Of both, the scale and the bias.
    pub total: f64,
}

impl Known {
    /// Which family's text rules it follows.
    pub fn family(&self) -> TextFamily {
        if self.family == "siglip2" { TextFamily::SigLip2 } else { TextFamily::SigLip1 }
    }

    /// Filter of the resize in transformers.
    pub fn resample(&self) -> Resample {
        if self.resample == "bilinear" { Resample::Bilinear } else { Resample::Bicubic }
    }
}

/// All public checkpoints.
pub fn all() -> &'static [Known] {
    static ALL: LazyLock<Vec<Known>> = LazyLock::new(|| {
        let json = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/known.json"));
        // Compiled in, and read by a test: it is valid or this program does not pass its tests.
        serde_json::from_str(json).unwrap_or_default()
    });
    &ALL
}

/// The public checkpoint that a name means: a hub id, an open_clip name (with or without `timm/`),
/// or the stem of an `.npz`.
pub fn find(name: &str) -> Option<&'static Known> {
    let short = name.strip_prefix("timm/").unwrap_or(name);
    all().iter().find(|known| known.name == name || known.open_clip == short || known.npz == name)
}

/// The public checkpoint whose big_vision file has this stem.
pub(super) fn by_npz(stem: &str) -> Option<&'static Known> {
    all().iter().find(|known| known.npz == stem)
}
