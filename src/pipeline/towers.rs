//! The towers of a model apart from the rest: loaded, dropped and loaded again.

use std::sync::{Mutex, PoisonError};

use super::own::OwnClassifier;
use super::{Parts, Placement, Precision, Processor, describe, load_towers, scores_of};
use crate::checkpoint::{self, Checkpoint, FileStamp, HubOptions, ModelRef, Wanted};
use crate::model::{ModelSpec, Siglip};
use crate::pipeline::{LoadOptions, ModelInfo};
use crate::{Error, Result};

/// Where the towers of a model come from, each time they are wanted.
pub struct TowerSource {
    reference: ModelRef,
    hub: HubOptions,
    wanted: Wanted,
    placements: Vec<Placement>,
    classifier: Option<OwnClassifier>,
    spec: ModelSpec,
    /// Of the weights that the fingerprint was taken of.
    digest: [u8; 32],
    stamps: Mutex<Vec<FileStamp>>,
    /// The checkpoint as it was opened first, until the towers are loaded.
    opened: Mutex<Option<Checkpoint>>,
}

/// Finds or downloads a checkpoint and makes ready what stays in memory; its towers are loaded by the source.
///
/// # Errors
/// If the checkpoint cannot be had, if a part of it cannot be used, or if the device or the precision cannot be had.
pub fn open(
    reference: &ModelRef,
    hub: &HubOptions,
    options: &LoadOptions,
) -> Result<(Processor, TowerSource)> {
    let placements = options.device.place(options.precision, options.gpu)?;
    let Some(placement) = placements.first() else {
        return Err(Error::Config("no device was named".into()));
    };
    let checkpoint = checkpoint::open_part(reference, hub, options.wanted)?;
    // A large vocabulary takes one thread as long as the digest takes the others.
    let (digest, parts) = rayon::join(|| checkpoint.weights.digest(), || Parts::new(&checkpoint, options));
    let (digest, parts) = (digest?, parts?);
    let scores = scores_of(&checkpoint)?;
    let info = ModelInfo {
        logit_scale: scores.map(|(scale, _)| scale),
        logit_bias: scores.map(|(_, bias)| bias),
        dtype: placement.precision,
        device: placement.kind,
        ..describe(&checkpoint, options, &parts, digest)
    };
    let source = TowerSource {
        reference: pinned(reference, &checkpoint),
        // What was fetched once is in the cache.
        hub: HubOptions { offline: true, ..hub.clone() },
        wanted: options.wanted,
        classifier: OwnClassifier::read(&checkpoint)?,
        spec: checkpoint.spec.clone(),
        digest,
        stamps: Mutex::new(checkpoint.weights.stamps()),
        opened: Mutex::new(Some(checkpoint)),
        placements,
    };
    Ok((Processor { info, image: parts.image, text: parts.text }, source))
}

/// The same commit, wherever the branch has gone since.
fn pinned(reference: &ModelRef, checkpoint: &Checkpoint) -> ModelRef {
    match (reference, &checkpoint.revision) {
        (ModelRef::Hub { id, .. }, Some(commit)) => {
            ModelRef::Hub { id: id.clone(), revision: Some(commit.clone()) }
        }
        (reference, _) => reference.clone(),
    }
}

impl TowerSource {
    /// The classifier that was trained with the image tower, where there is one.
    pub fn classifier(&self) -> Option<&OwnClassifier> {
        self.classifier.as_ref()
    }

    /// Reads the towers, one for each device. After the first time the files are opened again; their digest is taken
    /// again only if one of them has changed.
    ///
    /// # Errors
    /// If the weights cannot be read, are others than they were, or have no room on a device.
    pub fn load(&self) -> Result<Vec<Siglip>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let checkpoint = match opened {
            Some(checkpoint) => checkpoint,
            None => self.open_again()?,
        };
        load_towers(&checkpoint, &self.placements)
    }

    fn open_again(&self) -> Result<Checkpoint> {
        let checkpoint = checkpoint::open_part(&self.reference, &self.hub, self.wanted)?;
        let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = checkpoint.weights.stamps();
        if *known != stamps {
            if checkpoint.spec != self.spec || checkpoint.weights.digest()? != self.digest {
                let message = format!(
                    "the weights of {} have changed since the model was loaded: load it again under its name",
                    checkpoint.name
                );
                return Err(Error::Config(message));
            }
            *known = stamps;
        }
        Ok(checkpoint)
    }

    /// Bytes of the weights on all devices together. Token embeddings, which stay in their file, do not count.
    pub fn memory_bytes(&self) -> u64 {
        let table = self.spec.text.as_ref().map_or(0, |text| text.vocab * text.encoder.width);
        let values = self.spec.parameters().saturating_sub(table) as u64;
        let bytes = |placement: &Placement| match placement.precision {
            Precision::Auto | Precision::F32 => 4,
            Precision::Bf16 | Precision::F16 => 2,
            Precision::Int8 => 1,
        };
        values * self.placements.iter().map(bytes).sum::<u64>()
    }
}
