//! The transformer encoder that both towers have, and its form for a tower that pools the last row.

use candle_core::Tensor;
use rayon::prelude::*;

use super::error::Result;
use super::loader::Loader;
use super::{EncoderSpec, Pause, coarse};
use crate::ops::rows::last_rows;
use crate::ops::{Activation, Epilogue, LayerNorm, Linear, Segments, attention, query_attention};

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

/// The same blocks where only each item's last row is wanted afterwards.
///
/// The last block computes keys and values of every row, since they are attended to, and everything else for those rows
/// only. Rows are computed independently, so that what it gives for them does not change.
pub(super) struct LastRowEncoder {
    /// All blocks but the last.
    encoder: Encoder,
    /// Missing only if there are no blocks.
    last: Option<LastBlock>,
}

struct LastBlock {
    norm1: LayerNorm,
    query: Linear,
    kv: Linear,
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

    /// The same with the norm before it, `norm` below `at`.
    fn load_normed(at: &Loader<'_>, norm: &str, spec: &EncoderSpec) -> Result<(LayerNorm, Self)> {
        let sizes = (spec.width, spec.mlp);
        let (normed, mut fc1) = at.normed_linears(norm, spec.norm_eps, &[&["mlp.fc1"]], sizes)?;
        let (mut fc1, mlp) = (fc1.remove(0), at.at("mlp"));
        let fc2 = match at.numerics().is_coarse() {
            false => mlp.linear("fc2", spec.mlp, spec.width)?,
            true => {
                let (first, second) = (mlp.at("fc1"), mlp.at("fc2"));
                let own = first.host("bias", &[spec.mlp])?;
                let bias = at.at(norm).host("bias", &[spec.width])?;
                let weight = first.host("weight", &[spec.mlp, spec.width])?;
                let centre = coarse::centre(&weight, &own, &bias, spec.activation)?;
                let weight = second.host("weight", &[spec.width, spec.mlp])?;
                let moved = weight.matmul(&centre.unsqueeze(1)?)?.squeeze(1)?;
                fc1 = fc1.centred(centre)?;
                at.numerics().linear(&weight, &(second.host("bias", &[spec.width])? + moved)?)?
            }
        };
        Ok((normed, Self { fc1, fc2, activation: spec.activation }))
    }

    /// `residual + mlp(x)`, both `[rows, width]`.
    pub(super) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let hidden = self.fc1.forward(x, Epilogue::Activation(self.activation))?;
        Ok(self.fc2.forward(&hidden, Epilogue::Residual(residual))?)
    }
}

impl Block {
    /// Reads what is below `at`.
    fn load(at: &Loader<'_>, spec: &EncoderSpec) -> Result<Self> {
        let names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        let sizes = (spec.width, spec.width);
        let (norm1, mut linears) = at.normed_linears("layer_norm1", spec.norm_eps, &[&names], sizes)?;
        let (norm2, mlp) = Mlp::load_normed(at, "layer_norm2", spec)?;
        let out = at.linear("self_attn.out_proj", spec.width, spec.width)?;
        Ok(Self { norm1, qkv: linears.remove(0), out, norm2, mlp })
    }
}

impl LastBlock {
    /// Reads what is below `at`.
    fn load(at: &Loader<'_>, spec: &EncoderSpec) -> Result<Self> {
        let names: [&[&str]; 2] = [&["self_attn.q_proj"], &["self_attn.k_proj", "self_attn.v_proj"]];
        let sizes = (spec.width, spec.width);
        let (norm1, mut linears) = at.normed_linears("layer_norm1", spec.norm_eps, &names, sizes)?;
        let (norm2, mlp) = Mlp::load_normed(at, "layer_norm2", spec)?;
        let out = at.linear("self_attn.out_proj", spec.width, spec.width)?;
        let kv = linears.remove(1);
        Ok(Self { norm1, query: linears.remove(0), kv, out, norm2, mlp })
    }

    /// `x` `[rows, width]` → `[items, width]`.
    fn forward(&self, x: &Tensor, segments: &Segments, heads: usize) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let kv = self.kv.forward(&normed, Epilogue::None)?;
        let query = self.query.forward(&last_rows(&normed, segments)?, Epilogue::None)?;
        let attended = query_attention(&query, &kv, segments, heads)?;
        let x = self.out.forward(&attended, Epilogue::Residual(&last_rows(x, segments)?))?;
        self.mlp.forward(&self.norm2.forward(&x)?, &x)
    }
}

impl Encoder {
    /// Reads `layers.0` and on below `at`.
    pub(super) fn load(at: &Loader<'_>, spec: &EncoderSpec) -> Result<Self> {
        Self::first(at, spec, spec.depth)
    }

    /// Reads the first `depth` layers.
    fn first(at: &Loader<'_>, spec: &EncoderSpec, depth: usize) -> Result<Self> {
        let block = |i| Block::load(&at.at("layers").at(i), spec);
        let blocks = (0..depth).into_par_iter().map(block).collect::<Result<_>>()?;
        Ok(Self { blocks, heads: spec.heads })
    }

    /// `x` `[rows, width]` → the same shape.
    pub(super) fn forward(&self, x: Tensor, segments: &Segments) -> Result<Tensor> {
        self.forward_pausing(x, segments, &|| ())
    }

    /// The same, with a pause after each block.
    pub(super) fn forward_pausing(
        &self,
        x: Tensor,
        segments: &Segments,
        pause: &Pause<'_>,
    ) -> Result<Tensor> {
        let mut x = x;
        for block in &self.blocks {
            let qkv = block.qkv.forward(&block.norm1.forward(&x)?, Epilogue::None)?;
            let attended = attention(&qkv, segments, self.heads)?;
            x = block.out.forward(&attended, Epilogue::Residual(&x))?;
            x = block.mlp.forward(&block.norm2.forward(&x)?, &x)?;
            pause();
        }
        Ok(x)
    }
}

impl LastRowEncoder {
    /// Reads `layers.0` and on below `at`.
    pub(super) fn load(at: &Loader<'_>, spec: &EncoderSpec) -> Result<Self> {
        let Some(last) = spec.depth.checked_sub(1) else {
            return Ok(Self { encoder: Encoder::load(at, spec)?, last: None });
        };
        let (encoder, last) = rayon::join(
            || Encoder::first(at, spec, last),
            || LastBlock::load(&at.at("layers").at(last), spec),
        );
        Ok(Self { encoder: encoder?, last: Some(last?) })
    }

    /// `x` `[rows, width]` → the last row of each item `[items, width]`.
    pub(super) fn forward(&self, x: Tensor, segments: &Segments) -> Result<Tensor> {
        let x = self.encoder.forward(x, segments)?;
        match &self.last {
            Some(last) => last.forward(&x, segments, self.encoder.heads),
            None => Ok(last_rows(&x, segments)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::model::Weights;
    use crate::ops::{Numerics, WeightFormat};

    /// Numbers between −1 and 1 that depend on the name.
    struct MadeUp;

    impl Weights for MadeUp {
        fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
            let seed = name.bytes().fold(7u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
            Ok(Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu)?)
        }
    }

    fn values(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn the_last_block_for_the_last_rows_alone_gives_the_same_bits() {
        for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
            for (depth, activation) in
                [(0, Activation::GeluTanh), (1, Activation::GeluErf), (3, Activation::GeluTanh)]
            {
                let spec = EncoderSpec { width: 40, depth, heads: 5, mlp: 70, activation, norm_eps: 1e-6 };
                let numerics = Numerics::cpu(format);
                let at = Loader::new(&MadeUp, &numerics).at("text_model.encoder");
                let (whole, last) =
                    (Encoder::load(&at, &spec).unwrap(), LastRowEncoder::load(&at, &spec).unwrap());
                for lengths in [&[64; 20][..], &[1], &[64], &[5, 1, 90, 7]] {
                    let segments = Segments::new(lengths.iter().copied());
                    let rows = segments.rows();
                    let x = Tensor::from_vec(values(rows * 40, 3), (rows, 40), &Device::Cpu).unwrap();
                    let expected =
                        last_rows(&whole.forward(x.clone(), &segments).unwrap(), &segments).unwrap();
                    let found = last.forward(x, &segments).unwrap();
                    assert_eq!(
                        found.to_vec2::<f32>().unwrap(),
                        expected.to_vec2::<f32>().unwrap(),
                        "{format:?}, {depth} blocks, {lengths:?}"
                    );
                }
            }
        }
    }
}
