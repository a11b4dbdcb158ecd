//! What the engine asks of a model: preprocessing, which stays, and towers, which come and go.

use std::sync::Arc;

use super::state::Progress;
use crate::image::{Patches, ViewOptions, Views};
use crate::model::{PatchVectors, Pause};
use crate::pipeline::{ModelInfo, OwnClassifier};
use crate::text::{Canonicalization, TextReading, TokenIds};
use crate::{Error, Result};

/// What a picture will cost, known from its header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageCost {
    /// Bytes of its pixels once decoded.
    pub decoded_bytes: usize,
    /// Patches that it becomes, at most.
    pub tokens: usize,
}

/// What the views of a picture will cost, known from its header alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewsCost {
    /// Bytes of its pixels once decoded, and of what is made of them beside the views.
    pub decoded_bytes: usize,
    /// Patches of each view, at least one of them.
    pub tokens: Vec<usize>,
}

/// A model without its towers: what it is and how inputs are prepared. The engine calls `probe_image` on the caller's
/// task, `prepare_*` on preparation threads and `load_towers` on a thread of its own.
pub trait Model: Send + Sync + 'static {
    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// Reads a picture's header, no pixels.
    ///
    /// # Errors
    /// If it is no picture, too large, or the model takes no pictures or no such patch budget.
    fn probe_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<ImageCost>;

    /// Decodes, orients, resizes and cuts a picture.
    ///
    /// # Errors
    /// If the picture cannot be used.
    fn prepare_image(&self, bytes: &[u8], max_num_patches: Option<usize>) -> Result<Patches>;

    /// Reads a picture's header: what its views will cost. By default there are none.
    ///
    /// # Errors
    /// As [`Self::probe_image`], or if there are too many views.
    fn probe_views(&self, _: &[u8], _: Option<usize>, _: &ViewOptions) -> Result<ViewsCost> {
        Err(no_views())
    }

    /// Decodes a picture once and takes its views: as many as [`Self::probe_views`] said. Stops with `None` where `cancelled`
    /// says that nobody waits any more; it is to be asked every few milliseconds where that can be done.
    ///
    /// # Errors
    /// If the picture cannot be used.
    fn prepare_views(
        &self,
        _: &[u8],
        _: Option<usize>,
        _: &ViewOptions,
        _cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Views>> {
        Err(no_views())
    }

    /// Canonicalises and tokenises a text; `None` is the checkpoint's own canonicalisation.
    ///
    /// # Errors
    /// If the text cannot be used.
    fn prepare_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TokenIds>;

    /// [`Self::prepare_text`] with what the tower does not see. By default nothing is known of that.
    ///
    /// # Errors
    /// If the text cannot be used.
    fn read_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TextReading> {
        let ids = self.prepare_text(text, canonicalization)?;
        Ok(TextReading { canonical: text.to_owned(), ids, cut: Vec::new() })
    }

    /// The token of an id, as the vocabulary writes it; none where there is no such token, or no tokenizer.
    fn token(&self, _id: u32) -> Option<String> {
        None
    }

    /// Checks and pads token ids.
    ///
    /// # Errors
    /// If an id is outside of the vocabulary or there are too many.
    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds>;

    /// The classifier that was trained with the image tower, where there is one.
    fn classifier(&self) -> Option<&OwnClassifier> {
        None
    }

    /// Bytes that the towers take on all their devices together, about.
    fn memory_bytes(&self) -> u64;

    /// Brings the towers into memory: one for each device, at least one. They share the model's queues. Called again
    /// after all of them were dropped.
    ///
    /// # Errors
    /// If the weights cannot be read, are no longer those of [`Self::info`], or have no room on the device.
    fn load_towers(self: Arc<Self>, progress: &Progress) -> Result<Vec<Arc<dyn Towers>>>;
}

fn no_views() -> Error {
    Error::Request("this model takes whole pictures only".to_owned())
}

/// The towers of a model on one device. Dropping them gives their memory back. The engine calls them on worker threads.
pub trait Towers: Send + Sync + 'static {
    /// Embeds pictures: one vector of `info().embedding_dim` for each, in order, not normalised. Calls `pause` as often as
    /// it likes where the engine may do shorter work, on these towers too: perhaps on another thread, one call at a time.
    ///
    /// # Errors
    /// If the tensor library or the device fails.
    fn embed_images(&self, batch: &[&Patches], pause: &Pause<'_>) -> Result<Vec<Vec<f32>>>;

    /// Vectors of `info().embedding_dim`, not normalised: for each picture [`PatchVectors::count`] of them, in order. Calls
    /// `pause` as [`Self::embed_images`] does. By default there are none.
    ///
    /// # Errors
    /// If the tensor library or the device fails.
    fn embed_patches(&self, _: &[&Patches], _: PatchVectors, _: &Pause<'_>) -> Result<Vec<Vec<f32>>> {
        Err(Error::Request("this model gives no vectors of patches".to_owned()))
    }

    /// Embeds texts: one vector of `info().embedding_dim` for each, in order, not normalised.
    ///
    /// # Errors
    /// If the tensor library or the device fails.
    fn embed_texts(&self, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>>;
}
