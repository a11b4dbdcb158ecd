//! A checkpoint's parts put together: preprocessing, tokens, towers and scores of one model.

mod device;
mod info;
mod own;
mod processor;
mod towers;

use std::ops::Deref;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, Wanted};
use crate::image::{ImageDecode, ImageLimits, Preprocessor};
use crate::model::zero_shot::DEFAULT_TEMPLATE;
use crate::model::{Scores, Siglip};
use crate::text::{Canonicalization, TextProcessor};
use crate::{Error, Result};

pub use device::{DeviceChoice, GpuOptions, Placement, Switch};
pub use info::{DeviceKind, ModelInfo, Precision, fingerprint_of_patches};
pub use own::OwnClassifier;
pub use processor::Processor;
pub use towers::{TowerSource, open};

/// What the operator chooses about a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The name that requests use; the checkpoint's own where it is `None`.
    pub name: Option<String>,
    /// Where the towers run.
    pub device: DeviceChoice,
    /// Their arithmetic.
    pub precision: Precision,
    /// What is chosen about GPUs.
    pub gpu: GpuOptions,
    /// Limits on pictures.
    pub image_limits: ImageLimits,
    /// How pictures are decoded.
    pub image_decode: ImageDecode,
    /// Another canonicalisation than the checkpoint's.
    pub canonicalization: Option<Canonicalization>,
    /// Which part of the checkpoint is loaded.
    pub wanted: Wanted,
}

/// A model, ready to embed: a [`Processor`] and the towers that its inputs go to.
pub struct Pipeline {
    processor: Processor,
    /// One for each device, at least one.
    models: Vec<Siglip>,
}

impl Pipeline {
    /// Reads the weights of a checkpoint onto a device.
    ///
    /// # Errors
    /// If the device or the precision cannot be had, or if a part of the checkpoint cannot be used.
    pub fn load(checkpoint: Checkpoint, options: &LoadOptions) -> Result<Self> {
        let placements = options.device.place(options.precision, options.gpu)?;
        // A large vocabulary takes one thread as long as the weights take the others.
        let (loaded, parts) = rayon::join(
            || Ok::<_, Error>((load_towers(&checkpoint, &placements)?, checkpoint.weights.digest()?)),
            || Parts::new(&checkpoint, options),
        );
        let (parts, (models, digest)) = (parts?, loaded?);
        let (Some(placement), Some(model)) = (placements.first(), models.first()) else {
            return Err(Error::Config("no device was named".into()));
        };
        let scores = model.scores();
        let info = ModelInfo {
            logit_scale: scores.map(|s| s.scale),
            logit_bias: scores.map(|s| s.bias),
            dtype: placement.precision,
            device: placement.kind,
            ..describe(&checkpoint, options, &parts, digest)
        };
        Ok(Self { processor: Processor { info, image: parts.image, text: parts.text }, models })
    }

    /// Its towers, on the first of its devices.
    pub fn model(&self) -> &Siglip {
        &self.models[0]
    }
}

impl Deref for Pipeline {
    type Target = Processor;

    fn deref(&self) -> &Processor {
        &self.processor
    }
}

/// The towers of a checkpoint on each of these devices.
fn load_towers(checkpoint: &Checkpoint, placements: &[Placement]) -> Result<Vec<Siglip>> {
    let Checkpoint { spec, image, weights, .. } = checkpoint;
    placements.iter().map(|at| Ok(Siglip::load(spec, image.as_ref(), weights, &at.numerics)?)).collect()
}

/// The preprocessing of a checkpoint, with the operator's choices applied.
struct Parts {
    image: Option<Preprocessor>,
    text: Option<TextProcessor>,
}

impl Parts {
    fn new(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Self> {
        let image = checkpoint.image.clone().map(|spec| {
            let preprocessor = Preprocessor::new(spec, options.image_limits)?;
            Ok::<_, Error>(preprocessor.with_decoding(options.image_decode))
        });
        let text = checkpoint.text.clone().map(|mut spec| {
            spec.canonicalization = options.canonicalization.unwrap_or(spec.canonicalization);
            TextProcessor::new(&checkpoint.tokenizer, spec)
        });
        Ok(Self { image: image.transpose()?, text: text.transpose()? })
    }
}

/// What can be said of a checkpoint without loading its weights.
///
/// # Errors
/// If a part of it cannot be used.
pub fn inspect(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<(ModelInfo, Option<TextProcessor>)> {
    let (digest, parts) = rayon::join(|| checkpoint.weights.digest(), || Parts::new(checkpoint, options));
    let parts = parts?;
    let mut info = describe(checkpoint, options, &parts, digest?);
    if let Some((scale, bias)) = scores_of(checkpoint)? {
        (info.logit_scale, info.logit_bias) = (Some(scale), Some(bias));
    }
    Ok((info, parts.text))
}

/// Factor and bias of a logit, where the checkpoint has them.
fn scores_of(checkpoint: &Checkpoint) -> Result<Option<(f32, f32)>> {
    if !checkpoint.spec.scores {
        return Ok(None);
    }
    let Scores { scale, bias } = Scores::read(&checkpoint.weights)?;
    Ok(Some((scale, bias)))
}

fn describe(checkpoint: &Checkpoint, options: &LoadOptions, parts: &Parts, digest: [u8; 32]) -> ModelInfo {
    let text = parts.text.as_ref().map(|text| text.spec().clone());
    ModelInfo {
        name: options.name.clone().unwrap_or_else(|| checkpoint.name.clone()),
        source: match &checkpoint.revision {
            Some(revision) => format!("{}@{revision}", checkpoint.name),
            None => checkpoint.name.clone(),
        },
        family: info::family(checkpoint).to_owned(),
        embedding_dim: checkpoint.spec.embedding_dim(),
        parameters: checkpoint.spec.parameters(),
        fingerprint: fingerprint(checkpoint, digest, options.image_decode, parts.text.as_ref()),
        spec: checkpoint.spec.clone(),
        image: checkpoint.image.clone(),
        image_decode: options.image_decode,
        text,
        logit_scale: None,
        logit_bias: None,
        template: DEFAULT_TEMPLATE.to_owned(),
        dtype: Precision::F32,
        device: DeviceKind::Cpu,
    }
}

/// SHA-256 in hex over the weights' digest (BLAKE3), the architecture and everything in preprocessing that changes
/// vectors: vectors with the same fingerprint may be compared with each other.
fn fingerprint(
    checkpoint: &Checkpoint,
    digest: [u8; 32],
    decode: ImageDecode,
    text: Option<&TextProcessor>,
) -> String {
    let mut hash = Sha256::new();
    hash.update(digest);
    hash.update(json!({ "spec": checkpoint.spec, "image": checkpoint.image }).to_string());
    if checkpoint.image.is_some() && decode == ImageDecode::Fast {
        hash.update("image_decode: fast");
    }
    if let Some(text) = text {
        hash.update(text.fingerprint());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
