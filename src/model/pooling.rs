//! From patch tokens to one vector.

use candle_core::Tensor;

use super::encoder::Mlp;
use super::error::Result;
use super::loader::Loader;
use super::{EncoderSpec, ImagePooling};
use crate::ops::rows::mean_rows;
use crate::ops::{Epilogue, LayerNorm, Linear, Probe, Segments};

/// How tokens `[rows, width]` become `[items, width]`.
pub(super) enum Pooling {
    MapHead(Box<MapHead>),
    Mean,
}

/// Multi-head attention pooling: a learned probe attends to all tokens of an item; then
/// `y + mlp(norm(y))`, where the residual is the attention's output, not the probe.
/// Source: big_vision, `models/vit.py`, `MAPHead`.
pub(super) struct MapHead {
    probe: Probe,
    out: Linear,
    norm: LayerNorm,
    mlp: Mlp,
}

impl Pooling {
    pub(super) fn load(at: &Loader<'_>, spec: &EncoderSpec, pooling: ImagePooling) -> Result<Self> {
        match pooling {
            ImagePooling::Mean => Ok(Self::Mean),
            ImagePooling::MapHead => Ok(Self::MapHead(Box::new(MapHead::load(&at.at("head"), spec)?))),
        }
    }

    /// Pools the tokens of each item; with the maps `[heads, tokens]` of the probe's attention,
    /// where there is a probe.
    pub(super) fn forward(&self, tokens: &Tensor, segments: &Segments) -> Result<(Tensor, Vec<Tensor>)> {
        match self {
            Self::MapHead(head) => head.forward(tokens, segments),
            Self::Mean => Ok((mean_rows(tokens, segments)?, Vec::new())),
        }
    }
}

impl MapHead {
    fn load(at: &Loader<'_>, spec: &EncoderSpec) -> Result<Self> {
        let width = spec.width;
        let attention = at.at("attention");
        let weight = attention.host("in_proj_weight", &[3 * width, width])?;
        let bias = attention.host("in_proj_bias", &[3 * width])?;
        let probe = at.host("probe", &[1, 1, width])?.reshape((1, width))?;
        let query = Linear::new(weight.narrow(0, 0, width)?.contiguous()?, Some(bias.narrow(0, 0, width)?));
        let query = query.forward(&probe, Epilogue::None)?.reshape(width)?;
        let (weight, bias) = (weight.narrow(0, width, 2 * width)?, bias.narrow(0, width, 2 * width)?);
        Ok(Self {
            probe: Probe::new(&query, &weight, &bias, spec.heads, at.numerics())?,
            out: attention.linear("out_proj", width, width)?.wide(),
            norm: at.layer_norm("layernorm", width, spec.norm_eps)?,
            mlp: Mlp::load(&at.at("mlp"), spec)?,
        })
    }

    fn forward(&self, tokens: &Tensor, segments: &Segments) -> Result<(Tensor, Vec<Tensor>)> {
        let (pooled, maps) = self.probe.forward(tokens, segments)?;
        let pooled = self.out.forward(&pooled, Epilogue::None)?;
        Ok((self.mlp.forward(&self.norm.forward(&pooled)?, &pooled)?, maps))
    }
}
