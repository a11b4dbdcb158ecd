//! The transformer encoder that both towers have.

use candle_core::Tensor;
use rayon::prelude::*;

use super::EncoderSpec;
use super::error::Result;
use super::loader::Loader;
use crate::ops::Activation;
use crate::ops::{Epilogue, LayerNorm, Linear, Segments, attention};

/// Pre-norm blocks (`x += attention(norm(x)); x += mlp(norm(x))`), without the final norm.
/// Source: big_vision, `models/vit.py`, `Encoder1DBlock`.
pub(super) struct Encoder {
    blocks: Vec<Block>,
    heads: usize,
}

struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
    mlp: Mlp,
}

/// Two linear layers with the activation between them.
pub(super) struct Mlp {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Mlp {
    pub(super) fn load(at: &Loader<'_>, spec: &EncoderSpec) -> Result<Self> {
        Ok(Self {
            fc1: at.linear("fc1", spec.width, spec.mlp)?,
            fc2: at.linear("fc2", spec.mlp, spec.width)?,
            activation: spec.activation,
        })
    }

    /// `residual + mlp(x)`, both `[rows, width]`.
    pub(super) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let hidden = self.fc1.forward(x, Epilogue::Activation(self.activation))?;
        Ok(self.fc2.forward(&hidden, Epilogue::Residual(residual))?)
    }
}

impl Encoder {
    /// Reads `layers.0` and on below `at`.
    pub(super) fn load(at: &Loader<'_>, spec: &EncoderSpec) -> Result<Self> {
        let width = spec.width;
        let block = |i| -> Result<Block> {
            let at = at.at("layers").at(i);
            let attention = at.at("self_attn");
            Ok(Block {
                norm1: at.layer_norm("layer_norm1", width, spec.norm_eps)?,
                qkv: attention.fused_linear(&["q_proj", "k_proj", "v_proj"], width, width)?,
                out: attention.linear("out_proj", width, width)?,
                norm2: at.layer_norm("layer_norm2", width, spec.norm_eps)?,
                mlp: Mlp::load(&at.at("mlp"), spec)?,
            })
        };
        Ok(Self {
            blocks: (0..spec.depth).into_par_iter().map(block).collect::<Result<_>>()?,
            heads: spec.heads,
        })
    }

    /// `x` `[rows, width]` → the same shape.
    pub(super) fn forward(&self, x: Tensor, segments: &Segments) -> Result<Tensor> {
        let mut x = x;
        for block in &self.blocks {
            let qkv = block.qkv.forward(&block.norm1.forward(&x)?, Epilogue::None)?;
            let attended = attention(&qkv, segments, self.heads)?;
            x = block.out.forward(&attended, Epilogue::Residual(&x))?;
            x = block.mlp.forward(&block.norm2.forward(&x)?, &x)?;
        }
        Ok(x)
    }
}
