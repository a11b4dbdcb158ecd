//! The text tower: token ids in, one vector a text out.

use candle_core::{DType, Device, Tensor};

use super::encoder::Encoder;
use super::loader::Loader;
use super::{Table, TextTowerSpec, Weights};
use crate::ops::{Epilogue, LayerNorm, Linear, Numerics, Segments};
use crate::{Error, Result};

/// A transformer without a causal mask over texts that are always padded to the context: the padding
/// is attended to, and the vector is that of the last position, which is padding for most texts.
/// Source: big_vision, `models/proj/image_text/text_transformer.py` (`pool_type = "last"`).
pub struct TextTower {
    spec: TextTowerSpec,
    tokens: Tokens,
    /// `[context, width]`.
    positions: Tensor,
    encoder: Encoder,
    norm: LayerNorm,
    head: Option<Linear>,
    device: Device,
}

/// The vocabulary's table `[vocab, width]`, the largest tensor of most checkpoints.
enum Tokens {
    /// On the processor: a batch needs few of its rows.
    Rows(Box<dyn Table>),
    /// On a GPU.
    Whole(Tensor),
}

impl TextTower {
    /// Reads the tower's tensors.
    ///
    /// # Errors
    /// If a tensor is missing or misshapen.
    pub fn load(spec: &TextTowerSpec, weights: &dyn Weights, numerics: &Numerics) -> Result<Self> {
        let at = Loader::new(weights, numerics).at("text_model");
        let width = spec.encoder.width;
        let embeddings = at.at("embeddings");
        Ok(Self {
            tokens: {
                let at = embeddings.at("token_embedding");
                if numerics.device().is_cpu() {
                    Tokens::Rows(at.table("weight", [spec.vocab, width])?)
                } else {
                    Tokens::Whole(at.tensor("weight", &[spec.vocab, width])?)
                }
            },
            positions: embeddings.at("position_embedding").tensor("weight", &[spec.context, width])?,
            encoder: Encoder::load(&at.at("encoder"), &spec.encoder)?,
            norm: at.layer_norm("final_layer_norm", width, spec.encoder.norm_eps)?,
            head: spec
                .projection
                .map(|out| Ok::<_, Error>(at.linear("head", width, out)?.wide()))
                .transpose()?,
            spec: spec.clone(),
            device: numerics.device().clone(),
        })
    }

    /// Texts of exactly the context's length each → `[texts, width of the head]`, f32, not normalised.
    ///
    /// # Errors
    /// If a text has another length or an id outside the vocabulary, or if the device fails.
    pub fn forward(&self, texts: &[&[u32]]) -> Result<Tensor> {
        let context = self.spec.context;
        for ids in texts {
            if ids.len() != context {
                return Err(Error::Request(format!(
                    "a text of {} ids was given to a tower with a context of {context}",
                    ids.len()
                )));
            }
            if let Some(id) = ids.iter().find(|&&id| id as usize >= self.spec.vocab) {
                return Err(Error::Request(format!(
                    "token id {id} is outside the vocabulary of {}",
                    self.spec.vocab
                )));
            }
        }
        let count = texts.len();
        let width = self.spec.encoder.width;
        let ids = texts.concat();
        let x = match &self.tokens {
            Tokens::Rows(table) => {
                let mut x = vec![0.0f32; ids.len() * width];
                for (row, &id) in x.chunks_exact_mut(width.max(1)).zip(&ids) {
                    table.read(id as usize, row);
                }
                Tensor::from_vec(x, (count, context, width), &self.device)?
            }
            Tokens::Whole(table) => {
                let ids = Tensor::from_vec(ids, count * context, &self.device)?;
                table.index_select(&ids, 0)?.reshape((count, context, width))?
            }
        };
        let x = x.broadcast_add(&self.positions)?.reshape((count * context, width))?;
        let x = self.encoder.forward(x, &Segments::uniform(count, context))?;
        let last = x.reshape((count, context, width))?.narrow(1, context - 1, 1)?.squeeze(1)?.contiguous()?;
        // The final norm is of each token alone: only the pooled one needs it.
        let pooled = self.norm.forward(&last)?;
        let pooled = match &self.head {
            Some(head) => head.forward(&pooled, Epilogue::None)?,
            None => pooled,
        };
        Ok(pooled.to_dtype(DType::F32)?)
    }
}
