//! Attention within the items of a packed batch.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Layout, Result, Shape, Tensor};
use half::bf16;

use super::cpu::attention::Inputs;
use super::profile::timed;
use super::{Segments, cpu, on_gpu};

/// Scores of the reference take at most this many values at a time.
const REFERENCE_SCORES: usize = 1 << 26;

/// Multi-head self-attention: every token sees all tokens of its own item and no other.
///
/// `qkv` `[rows, 3 · width]` holds queries, keys and values side by side, each with its heads side by
/// side; the result is `[rows, width]`. Scores are scaled by `1/√head_dim`; softmax is in f32.
pub fn attention(qkv: &Tensor, segments: &Segments, heads: usize) -> Result<Tensor> {
    check(qkv, segments, 3 * heads)?;
    let on_cpu = qkv.device().is_cpu() && matches!(qkv.dtype(), DType::F32 | DType::BF16);
    if on_cpu || on_gpu(qkv) && has_head_dim(qkv.dim(1)? / (3 * heads)) {
        qkv.contiguous()?.apply_op1_no_bwd(&Kernel { segments, heads })
    } else {
        attention_reference(qkv, segments, heads)
    }
}

/// Whether there is a GPU kernel for heads of this dim.
#[cfg(feature = "cuda")]
fn has_head_dim(head_dim: usize) -> bool {
    head_dim <= super::cuda::attention::LARGEST_HEAD_DIM
}

#[cfg(not(feature = "cuda"))]
fn has_head_dim(_: usize) -> bool {
    false
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

/// Multi-head attention of one query of each item to all tokens of that item: what [`attention`] gives for that token.
///
/// `queries` is `[items, width]`, `kv` `[rows, 2 · width]` keys and values side by side; the result is `[items, width]`.
///
/// # Errors
/// If the shapes do not fit the segments, or an item has no tokens.
pub fn query_attention(queries: &Tensor, kv: &Tensor, segments: &Segments, heads: usize) -> Result<Tensor> {
    check(kv, segments, 2 * heads)?;
    let (items, width) = queries.dims2()?;
    if items != segments.len() || 2 * width != kv.dim(1)? {
        candle_core::bail!("attention: queries {:?} for keys and values {:?}", queries.shape(), kv.shape());
    }
    #[cfg(feature = "cuda")]
    if on_gpu(kv) && has_head_dim(width / heads) {
        return one_query_on_gpu(queries, kv, segments, heads).map(|(attended, _)| attended);
    }
    if kv.device().is_cpu() && queries.dtype() == kv.dtype() && matches!(kv.dtype(), DType::F32 | DType::BF16)
    {
        return queries.contiguous()?.apply_op2_no_bwd(&kv.contiguous()?, &Kernel { segments, heads });
    }
    query_attention_reference(queries, kv, segments, heads)
}

/// [`query_attention`] in plain candle.
pub fn query_attention_reference(
    queries: &Tensor,
    kv: &Tensor,
    segments: &Segments,
    heads: usize,
) -> Result<Tensor> {
    let mut outputs = Vec::new();
    for (item, rows) in segments.iter().enumerate() {
        let kv = kv.narrow(0, rows.start, rows.len())?;
        let (attended, _) =
            probe_attention_reference(&queries.get(item)?, &kv, &Segments::new([rows.len()]), heads)?;
        outputs.push(attended);
    }
    if outputs.is_empty() {
        return Tensor::zeros(queries.shape(), kv.dtype(), kv.device());
    }
    Tensor::cat(&outputs, 0)
}

/// Attention of one constant query to the tokens of each item: the heart of MAP pooling.
///
/// `query` `[width]` is the projected probe, the same for every batch, `kv` `[rows, 2 · width]` keys and values side by side.
/// Gives the pooled values `[items, width]`, and, one tensor `[heads, tokens]` (f32) an item, how
/// much each head looked at each token.
pub fn probe_attention(
    query: &Tensor,
    kv: &Tensor,
    segments: &Segments,
    heads: usize,
) -> Result<(Tensor, Vec<Tensor>)> {
    check(kv, segments, 2 * heads)?;
    #[cfg(feature = "cuda")]
    if on_gpu(kv) && has_head_dim(kv.dim(1)? / (2 * heads)) {
        let query = query.contiguous()?;
        super::cuda::constant(&query)?;
        return one_query_on_gpu(&query, kv, segments, heads);
    }
    probe_attention_reference(query, kv, segments, heads)
}

/// [`probe_attention`] in plain candle.
pub fn probe_attention_reference(
    query: &Tensor,
    kv: &Tensor,
    segments: &Segments,
    heads: usize,
) -> Result<(Tensor, Vec<Tensor>)> {
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

/// `queries` is `[width]`, for every item, or `[items, width]`, one for each.
#[cfg(feature = "cuda")]
fn one_query_on_gpu(
    queries: &Tensor,
    kv: &Tensor,
    segments: &Segments,
    heads: usize,
) -> Result<(Tensor, Vec<Tensor>)> {
    let (items, width) = (segments.len(), kv.dim(1)? / 2);
    let both = queries.contiguous()?.apply_op2_no_bwd(&kv.contiguous()?, &Probe { segments, heads })?;
    let pooled = both.narrow(0, 0, items * width)?.reshape((items, width))?;
    let pooled = super::rows::convert(&pooled, kv.dtype())?;
    let map = |rows: std::ops::Range<usize>| {
        let first = items * width + heads * rows.start;
        both.narrow(0, first, heads * rows.len())?.reshape((heads, rows.len()))
    };
    Ok((pooled, segments.iter().map(map).collect::<Result<_>>()?))
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

impl Kernel<'_> {
    fn attend<T: cpu::panels::Element>(&self, inputs: Inputs<'_, T>) -> Result<CpuStorage> {
        timed(
            || "attention".into(),
            inputs.multiplications(self.segments),
            || cpu::weight::attend(inputs, self.segments, self.heads, cpu::Isa::active()),
        )
    }
}

impl CustomOp2 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "query-attention"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        query_layout: &Layout,
        kv: &CpuStorage,
        kv_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (items, width) = query_layout.shape().dims2()?;
        let y = match kv {
            CpuStorage::BF16(_) => {
                let (queries, kv) = (cpu::slice(queries, query_layout)?, cpu::slice(kv, kv_layout)?);
                self.attend::<bf16>(Inputs::one_query(queries, kv, width, self.segments)?)?
            }
            _ => {
                let (queries, kv) = (cpu::slice(queries, query_layout)?, cpu::slice(kv, kv_layout)?);
                self.attend::<f32>(Inputs::one_query(queries, kv, width, self.segments)?)?
            }
        };
        Ok((y, Shape::from((items, width))))
    }
}

impl CustomOp1 for Kernel<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let width = columns / 3;
        let y = match qkv {
            CpuStorage::BF16(_) => {
                self.attend::<bf16>(Inputs::every_row(cpu::slice(qkv, layout)?, width, self.segments)?)?
            }
            _ => self.attend::<f32>(Inputs::every_row(cpu::slice(qkv, layout)?, width, self.segments)?)?,
        };
        Ok((y, Shape::from((rows, width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, qkv: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        super::cuda::attention::attention(qkv, layout, self.segments, self.heads)
    }
}

/// Pooled values and maps in one tensor: a custom op has one result.
#[cfg(feature = "cuda")]
struct Probe<'a> {
    segments: &'a Segments,
    heads: usize,
}

#[cfg(feature = "cuda")]
impl CustomOp2 for Probe<'_> {
    fn name(&self) -> &'static str {
        "probe-attention"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("probe attention on the processor is plain candle")
    }

    fn cuda_fwd(
        &self,
        query: &CudaStorage,
        query_layout: &Layout,
        kv: &CudaStorage,
        kv_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        super::cuda::attention::probe((query, query_layout), (kv, kv_layout), self.segments, self.heads)
    }
}
