//! Attention within the items of a packed batch.

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};

use super::{Segments, cpu, has_cpu_kernel};

/// Scores of the reference take at most this many values at a time.
const REFERENCE_SCORES: usize = 1 << 26;

/// Multi-head self-attention: every token sees all tokens of its own item and no other.
///
/// `qkv` `[rows, 3 · width]` holds queries, keys and values side by side, each with its heads side by
/// side; the result is `[rows, width]`. Scores are scaled by `1/√head_dim`; softmax is in f32.
pub fn attention(qkv: &Tensor, segments: &Segments, heads: usize) -> Result<Tensor> {
    check(qkv, segments, 3 * heads)?;
    if has_cpu_kernel(qkv) {
        qkv.contiguous()?.apply_op1_no_bwd(&Kernel { segments, heads })
    } else {
        attention_reference(qkv, segments, heads)
    }
}

/// [`attention`] in plain candle.
pub fn attention_reference(qkv: &Tensor, segments: &Segments, heads: usize) -> Result<Tensor> {
    let width = qkv.dim(1)? / 3;
    let head_dim = width / heads;
    let longest = segments.iter().map(|rows| rows.len()).max().unwrap_or(1).max(1);
    let limit = REFERENCE_SCORES / (longest * longest * heads).max(1);
    let mut outputs = Vec::new();
    for (start, count, length) in segments.groups(limit.max(1)) {
        let part = qkv.narrow(0, start, count * length)?.reshape((count, length, 3, heads, head_dim))?;
        let pick = |i| part.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (q, k, v): (Tensor, Tensor, Tensor) = (pick(0)?, pick(1)?, pick(2)?);
        let scores = (q.matmul(&k.t()?)?.to_dtype(DType::F32)? * (1.0 / (head_dim as f64).sqrt()))?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(qkv.dtype())?;
        let y = weights.matmul(&v)?.transpose(1, 2)?.reshape((count * length, width))?;
        outputs.push(y);
    }
    if outputs.is_empty() {
        return Tensor::zeros((0, width), qkv.dtype(), qkv.device());
    }
    Tensor::cat(&outputs, 0)
}

/// Attention of one constant query to the tokens of each item: the heart of MAP pooling.
///
/// `query` `[width]` is the projected probe, `kv` `[rows, 2 · width]` keys and values side by side.
/// Gives the pooled values `[items, width]`, and, one tensor `[heads, tokens]` (f32) an item, how
/// much each head looked at each token.
pub fn probe_attention(
    query: &Tensor,
    kv: &Tensor,
    segments: &Segments,
    heads: usize,
) -> Result<(Tensor, Vec<Tensor>)> {
    check(kv, segments, 2 * heads)?;
    let width = kv.dim(1)? / 2;
    let head_dim = width / heads;
    let query = query.reshape((1, heads, 1, head_dim))?;
    let (mut outputs, mut maps) = (Vec::new(), Vec::new());
    for (start, count, length) in segments.groups(usize::MAX) {
        let part = kv.narrow(0, start, count * length)?.reshape((count, length, 2, heads, head_dim))?;
        let pick = |i| part.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (k, v): (Tensor, Tensor) = (pick(0)?, pick(1)?);
        let q = query.broadcast_as((count, heads, 1, head_dim))?.contiguous()?;
        let scores = (q.matmul(&k.t()?)?.to_dtype(DType::F32)? * (1.0 / (head_dim as f64).sqrt()))?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        outputs.push(weights.to_dtype(kv.dtype())?.matmul(&v)?.reshape((count, width))?);
        let weights = weights.squeeze(2)?;
        for item in 0..count {
            maps.push(weights.get(item)?);
        }
    }
    if outputs.is_empty() {
        return Ok((Tensor::zeros((0, width), kv.dtype(), kv.device())?, maps));
    }
    Ok((Tensor::cat(&outputs, 0)?, maps))
}

fn check(x: &Tensor, segments: &Segments, parts: usize) -> Result<()> {
    let (rows, columns) = x.dims2()?;
    if rows != segments.rows() {
        candle_core::bail!("attention: {rows} rows, but segments of {} rows", segments.rows());
    }
    if columns % parts != 0 {
        candle_core::bail!("attention: {columns} columns are not a multiple of {parts}");
    }
    if segments.iter().any(|rows| rows.is_empty()) {
        candle_core::bail!("attention: an item without tokens");
    }
    Ok(())
}

struct Kernel<'a> {
    segments: &'a Segments,
    heads: usize,
}

impl CustomOp1 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let y = cpu::attention::attention(cpu::slice(qkv, layout)?, columns / 3, self.segments, self.heads)?;
        Ok((CpuStorage::F32(y), Shape::from((rows, columns / 3))))
    }
}
