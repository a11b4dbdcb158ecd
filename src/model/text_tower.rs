//! The text tower: token ids in, one vector a text out.

use candle_core::{DType, Device, Tensor};

use super::encoder::LastRowEncoder;
use super::error::{ModelError, Result};
use super::loader::Loader;
use super::{Table, TextTowerSpec, Weights};
use crate::ops::rows::{convert, embed_tokens, id_bytes};
use crate::ops::{Batch, Epilogue, Input, LayerNorm, Linear, Numerics, Runner, Segments};

/// A transformer without a causal mask over texts that are always padded to the context: the padding
/// is attended to, and the vector is that of the last position, which is padding for most texts.
/// Source: big_vision, `models/proj/image_text/text_transformer.py` (`pool_type = "last"`).
pub struct TextTower {
    spec: TextTowerSpec,
    tokens: Tokens,
    /// `[context, width]`.
    positions: Tensor,
    encoder: LastRowEncoder,
    norm: LayerNorm,
    /// The head, and a second one for long texts.
    heads: Vec<Linear>,
    /// Batches of as many texts are computed alike.
    runner: Runner<usize>,
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
        let fine = numerics.fine();
        let fine = Loader::new(weights, &fine).at("text_model");
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
            encoder: LastRowEncoder::load(&at.at("encoder"), &spec.encoder)?,
            norm: at.layer_norm("final_layer_norm", width, spec.encoder.norm_eps)?,
            heads: {
                let head = spec.projection.map(|out| ("head", width, out));
                let long = spec.long_head.then(|| ("long_head", spec.out_dim(), spec.out_dim()));
                let linear = |(name, from, to)| Ok::<_, ModelError>(fine.linear(name, from, to)?.wide());
                head.into_iter().chain(long).map(linear).collect::<Result<_>>()?
            },
            spec: spec.clone(),
            runner: Runner::new(numerics.device())?,
            device: numerics.device().clone(),
        })
    }

    /// As [`Self::forward`], on the host, and on a GPU in less time.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn embed(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        self.check(texts)?;
        let ids = || texts.iter().copied().flatten().copied();
        let bytes = id_bytes(ids());
        let batch = Batch {
            key: texts.len(),
            rows: texts.len() * self.spec.context,
            pieces: &[&bytes],
            other: &|| id_bytes(ids().map(|id| (id + 1) % self.spec.vocab as u32)),
        };
        let values = self.runner.run(&batch, &|input| self.outputs(input, texts.len()))?;
        Ok(values.chunks(self.spec.out_dim()).map(<[f32]>::to_vec).collect())
    }

    /// How many sizes of batches run as CUDA graphs.
    pub fn graphs(&self) -> usize {
        self.runner.graphs()
    }

    /// Texts of exactly the context's length each → `[texts, width of the head]`, f32, not normalised.
    ///
    /// # Errors
    /// If a text has another length or an id outside the vocabulary, or if the device fails.
    pub fn forward(&self, texts: &[&[u32]]) -> Result<Tensor> {
        self.check(texts)?;
        let bytes = id_bytes(texts.iter().copied().flatten().copied());
        self.outputs(&Input::new(&[&bytes], &self.device)?, texts.len())
    }

    fn check(&self, texts: &[&[u32]]) -> Result<()> {
        let context = self.spec.context;
        for ids in texts {
            if ids.len() != context {
                return Err(ModelError::Input(format!(
                    "a text of {} ids was given to a tower with a context of {context}",
                    ids.len()
                )));
            }
            if let Some(id) = ids.iter().find(|&&id| id as usize >= self.spec.vocab) {
                return Err(ModelError::Input(format!(
                    "token id {id} is outside the vocabulary of {}",
                    self.spec.vocab
                )));
            }
        }
        Ok(())
    }

    /// Token embeddings from a table on the processor, with their positions.
    fn embed_rows(&self, ids: &[u32], table: &dyn Table) -> Result<Tensor> {
        let (context, width) = (self.spec.context, self.spec.encoder.width);
        let mut x = vec![0.0f32; ids.len() * width];
        for (row, &id) in x.chunks_exact_mut(width).zip(ids) {
            table.read(id as usize, row)?;
        }
        let x = Tensor::from_vec(x, (ids.len() / context, context, width), &self.device)?;
        Ok(x.broadcast_add(&self.positions)?.reshape((ids.len(), width))?)
    }

    /// `input` holds the ids of `count` texts that were checked.
    fn outputs(&self, input: &Input<'_>, count: usize) -> Result<Tensor> {
        let segments = Segments::uniform(count, self.spec.context);
        let x = match &self.tokens {
            Tokens::Rows(table) => self.embed_rows(&input.ids()?, table.as_ref())?,
            Tokens::Whole(table) => embed_tokens(input, table, &self.positions)?,
        };
        // The final norm is of each token alone: only the pooled one needs it.
        let mut pooled = self.norm.forward(&self.encoder.forward(x, &segments)?)?;
        for head in &self.heads {
            pooled = head.forward(&pooled, Epilogue::None)?;
        }
        Ok(convert(&pooled, DType::F32)?)
    }
}
