//! Where the towers get their tensors from.

use candle_core::Tensor;

use crate::Result;

/// A source of named tensors, implemented by the checkpoint layouts and by tests.
///
/// Names are the canonical ones, those of the Hugging Face layout
/// (`vision_model.encoder.layers.0.self_attn.q_proj.weight`), whatever the file calls them, and so
/// are shapes: linear weights are `[out, in]`. The patch embedding is always
/// `vision_model.embeddings.patch_embedding.weight` as `[width, patch·patch·3]` with its input in
/// (y, x, channel) order; a convolution's weight is permuted by the source.
pub trait Weights: Send + Sync {
    /// Reads one tensor as f32 on the CPU.
    ///
    /// # Errors
    /// If there is no such tensor, or if its shape is not `shape`; the message names the file, the
    /// tensor, and the expected and the found shape.
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor>;
}
