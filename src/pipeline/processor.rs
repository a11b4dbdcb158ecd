//! What a model is and how its inputs are prepared: all of it but the towers.

use super::ModelInfo;
use crate::image::{ImageInfo, ImageOptions, Patches, Preprocessor};
use crate::text::{Canonicalization, TextProcessor, TokenIds};
use crate::{Error, Result};

/// The preprocessing of a model.
pub struct Processor {
    pub(super) info: ModelInfo,
    pub(super) image: Option<Preprocessor>,
    pub(super) text: Option<TextProcessor>,
}

impl Processor {
    /// What the model is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Image preprocessing.
    ///
    /// # Errors
    /// If the checkpoint has no image tower.
    pub fn image(&self) -> Result<&Preprocessor> {
        if self.info.spec.image.is_none() {
            return Err(Error::Request("this model has no image tower: it embeds texts only".into()));
        }
        self.image.as_ref().ok_or_else(|| Error::Request("this model has no image preprocessing".into()))
    }

    /// Text preprocessing.
    ///
    /// # Errors
    /// If the checkpoint has no text tower.
    pub fn text(&self) -> Result<&TextProcessor> {
        if self.info.spec.text.is_none() {
            return Err(Error::Request("this model has no text tower: it embeds images only".into()));
        }
        self.text.as_ref().ok_or_else(|| Error::Request("this model has no text preprocessing".into()))
    }

    /// Reads a picture's header.
    ///
    /// # Errors
    /// What is wrong with it, or that there is no image tower.
    pub fn probe_image(&self, bytes: &[u8]) -> Result<ImageInfo> {
        Ok(self.image()?.probe(bytes)?)
    }

    /// From a picture's bytes to patches.
    ///
    /// # Errors
    /// What is wrong with it, or that there is no image tower.
    pub fn prepare_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<Patches> {
        Ok(self.image()?.from_bytes(bytes, &ImageOptions { max_num_patches })?)
    }

    /// From a text to ids.
    ///
    /// # Errors
    /// What is wrong with it, or that there is no text tower or no tokenizer.
    pub fn prepare_text(&self, text: &str, mode: Option<Canonicalization>) -> Result<TokenIds> {
        Ok(self.text()?.encode(text, mode)?)
    }

    /// From a list of ids to a padded one.
    ///
    /// # Errors
    /// If there are too many, or one is outside the vocabulary, or there is no text tower.
    pub fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds> {
        Ok(self.text()?.from_ids(ids)?)
    }
}
