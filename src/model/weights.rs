//! Where the towers get their tensors from.

use candle_core::Tensor;

use super::error::{ModelError, Result};

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

    /// A tensor of which single rows are wanted, `[rows, width]`: it stays in its file where that is possible.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    fn table(&self, name: &str, shape: [usize; 2]) -> Result<Box<dyn Table>> {
        let values = self.tensor(name, &shape)?.flatten_all()?.to_vec1()?;
        Ok(Box::new(Values::new(values, shape[1])))
    }
}

/// Rows of a tensor, read one at a time.
pub trait Table: Send + Sync {
    /// Writes row `index` as f32 to `row`, which is as wide as the table.
    ///
    /// # Errors
    /// If there is no such row, or if the file that holds it cannot be read any more.
    fn read(&self, index: usize, row: &mut [f32]) -> Result<()>;
}

/// A table in memory.
pub struct Values {
    values: Vec<f32>,
    width: usize,
}

impl Values {
    /// From rows of `width` values each.
    pub fn new(values: Vec<f32>, width: usize) -> Self {
        Self { values, width }
    }
}

impl Table for Values {
    fn read(&self, index: usize, row: &mut [f32]) -> Result<()> {
        let values = self.values.chunks_exact(self.width.max(1)).nth(index);
        row.copy_from_slice(
            values.ok_or_else(|| ModelError::Input(format!("the table has no row {index}")))?,
        );
        Ok(())
    }
}
