//! What the engine asks of a model.

use crate::Result;
use crate::image::Patches;
use crate::pipeline::ModelInfo;
use crate::text::{Canonicalization, TokenIds};

/// What a picture will cost, known from its header alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageCost {
    /// Bytes of its pixels once decoded.
    pub decoded_bytes: usize,
    /// Patches that it becomes, at most.
    pub tokens: usize,
}

/// A loaded model, as far as the engine needs one. The engine calls `probe_image` on the caller's
/// task, `prepare_*` on preparation threads and `embed_*` on the model's workers.
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

    /// Canonicalises and tokenises a text; `None` is the checkpoint's own canonicalisation.
    ///
    /// # Errors
    /// If the text cannot be used.
    fn prepare_text(&self, text: &str, canonicalization: Option<Canonicalization>) -> Result<TokenIds>;

    /// Checks and pads token ids.
    ///
    /// # Errors
    /// If an id is outside of the vocabulary or there are too many.
    fn prepare_ids(&self, ids: &[u32]) -> Result<TokenIds>;

    /// How many copies of the model can compute at once, each on a device of its own. Every copy gets workers, which
    /// share the model's queues.
    fn replicas(&self) -> usize {
        1
    }

    /// [`Self::embed_images`] on one of the copies, counted from 0.
    ///
    /// # Errors
    /// As there.
    fn embed_images_on(&self, replica: usize, batch: &[&Patches]) -> Result<Vec<Vec<f32>>> {
        let _ = replica;
        self.embed_images(batch)
    }

    /// [`Self::embed_texts`] on one of the copies, counted from 0.
    ///
    /// # Errors
    /// As there.
    fn embed_texts_on(&self, replica: usize, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>> {
        let _ = replica;
        self.embed_texts(batch)
    }

    /// Embeds pictures: one vector of `info().embedding_dim` for each, in order, not normalised.
    ///
    /// # Errors
    /// If the tensor library or the device fails.
    fn embed_images(&self, batch: &[&Patches]) -> Result<Vec<Vec<f32>>>;

    /// Embeds texts: one vector of `info().embedding_dim` for each, in order, not normalised.
    ///
    /// # Errors
    /// If the tensor library or the device fails.
    fn embed_texts(&self, batch: &[&TokenIds]) -> Result<Vec<Vec<f32>>>;
}
