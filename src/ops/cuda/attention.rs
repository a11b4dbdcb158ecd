//! Attention over segments.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::LaunchConfig;
use candle_core::{CudaStorage, DType, Layout, Result, Shape};

use super::launch::Argument::{Address, Float, Int};
use super::{Context, int, kernel};
use crate::ops::Segments;

/// Largest head dim of the kernels: `PLAIN_LARGEST_DIM` and `PROBE_LARGEST_DIM`.
pub(in crate::ops) const LARGEST_HEAD_DIM: usize = 128;
/// Queries of a block: `ATTENTION_QUERIES` of `kernels/attention.cu`.
pub(in crate::ops) const TILE: usize = 64;
/// `ATTENTION_KEYS` and `ATTENTION_THREADS` there.
const KEYS: usize = 64;
const THREADS: u32 = 128;
/// `PLAIN_QUERIES`, `PLAIN_KEYS` and `PLAIN_THREADS` of `kernels/attention_plain.cu`.
const PLAIN_QUERIES: usize = 16;
const PLAIN_KEYS: usize = 32;
const PLAIN_THREADS: u32 = 128;
/// `PROBE_THREADS` of `kernels/probe.cu`.
const PROBE_THREADS: u32 = 256;

/// How one call is computed.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    kernel: &'static str,
    /// Blocks that each tile of queries is cut into once more.
    parts: usize,
    threads: u32,
    shared_bytes: usize,
}

/// The kernel for a type and head dim on a GPU of a major compute capability; `aligned`: to 16 bytes.
fn plan(dtype: DType, head_dim: usize, major: i32, aligned: bool) -> Result<Plan> {
    let tensor_cores = match (dtype, head_dim) {
        _ if major < 8 || !aligned => None,
        (DType::F16, 64) => Some("attention_f16_64"),
        (DType::F16, 72) => Some("attention_f16_72"),
        (DType::F16, 96) => Some("attention_f16_96"),
        (DType::BF16, 64) => Some("attention_bf16_64"),
        (DType::BF16, 72) => Some("attention_bf16_72"),
        (DType::BF16, 96) => Some("attention_bf16_96"),
        _ => None,
    };
    if let Some(kernel) = tensor_cores {
        // Rows of keys and of values, padded to 16 and then by 8.
        let row = head_dim.next_multiple_of(16) + 8;
        return Ok(Plan { kernel, parts: 1, threads: THREADS, shared_bytes: 2 * KEYS * row * 2 });
    }
    if head_dim > LARGEST_HEAD_DIM {
        candle_core::bail!("attention: no kernel for heads of {head_dim}");
    }
    Ok(Plan {
        kernel: kernel!("attention_plain", dtype),
        parts: TILE / PLAIN_QUERIES,
        threads: PLAIN_THREADS,
        shared_bytes: (PLAIN_QUERIES * head_dim + PLAIN_KEYS * (2 * head_dim + 1)) * size_of::<f32>(),
    })
}

/// Scale of the scores, for powers of two instead of e.
fn scale(head_dim: usize) -> f32 {
    std::f32::consts::LOG2_E / (head_dim as f32).sqrt()
}

/// `qkv` `[rows, 3 · width]` → `[rows, width]`; see [`crate::ops::attention()`].
pub(in crate::ops) fn attention(
    qkv: &CudaStorage,
    layout: &Layout,
    segments: &Segments,
    heads: usize,
) -> Result<(CudaStorage, Shape)> {
    let (rows, columns) = layout.shape().dims2()?;
    let width = columns / 3;
    let shape = Shape::from((rows, width));
    let (device, dtype) = (&qkv.device, qkv.dtype());
    let context = Context::of(device)?;
    let (y, to) = context.output(device, &shape, dtype)?;
    if rows * width == 0 {
        return Ok((y, shape));
    }
    let head_dim = width / heads;
    let from = context.address(qkv, layout)?;
    let plan = plan(dtype, head_dim, context.major, (from | to).is_multiple_of(16))?;
    let table = segments.on_device(&candle_core::Device::Cuda(device.clone()))?;
    // The tiles follow the offsets.
    let tiles = context.constant_address(&table, device, DType::U32)? + 4 * (segments.len() as u64 + 1);
    let count = (table.elem_count() - segments.len() - 1) / 3;
    let function = context.function(plan.kernel)?;
    let config = LaunchConfig {
        grid_dim: (int(count)? as u32, int(heads)? as u32, plan.parts as u32),
        block_dim: (plan.threads, 1, 1),
        shared_mem_bytes: plan.shared_bytes as u32,
    };
    let (heads, dim, scale) = (int(heads)?, int(head_dim)?, scale(head_dim));
    let mut arguments = vec![Address(from), Address(to), Address(tiles), Int(heads)];
    // The tensor-core kernels know their head dim.
    if plan.parts > 1 {
        arguments.push(Int(dim));
    }
    arguments.push(Float(scale));
    // SAFETY: the tiles lie within the rows of `qkv` and `y` (`Segments` made them, and the caller compared its rows with
    // the tensor's), whose widths are those of `heads` times `head_dim`; the table lives as long as `segments`, and what
    // frees it is on the same stream.
    unsafe { context.launch(&function, config, &arguments)? };
    Ok((y, shape))
}

/// `query` `[width]`, the same for every item, or `[items, width]`, and `kv` `[rows, 2 · width]` → f32: pooled values `[items, width]`, then for each item how much each
/// head looks at each token `[heads, tokens]`; see [`crate::ops::probe_attention`].
pub(in crate::ops) fn probe(
    query: (&CudaStorage, &Layout),
    kv: (&CudaStorage, &Layout),
    segments: &Segments,
    heads: usize,
) -> Result<(CudaStorage, Shape)> {
    let (rows, columns) = kv.1.shape().dims2()?;
    let (width, items) = (columns / 2, segments.len());
    let shape = Shape::from(items * width + heads * rows);
    let (device, dtype) = (&kv.0.device, kv.0.dtype());
    let stride = match query.1.shape().dims() {
        [one] if *one == width => 0,
        [count, one] if *one == width && *count == items => width,
        other => candle_core::bail!("probe attention: queries {other:?} for {items} items of width {width}"),
    };
    if query.0.dtype() != dtype {
        candle_core::bail!("probe attention: a query of another type than the keys");
    }
    let context = Context::of(device)?;
    let (y, pooled) = context.output(device, &shape, DType::F32)?;
    if shape.elem_count() == 0 {
        return Ok((y, shape));
    }
    let head_dim = width / heads;
    let maps = pooled + 4 * (items * width) as u64;
    let (query, from) = (context.address(query.0, query.1)?, context.address(kv.0, kv.1)?);
    let table = segments.on_device(&candle_core::Device::Cuda(device.clone()))?;
    let offsets = context.constant_address(&table, device, DType::U32)?;
    let function = context.function(kernel!("probe", dtype))?;
    let config = LaunchConfig {
        grid_dim: (int(items)? as u32, int(heads)? as u32, 1),
        block_dim: (PROBE_THREADS, 1, 1),
        shared_mem_bytes: PROBE_THREADS / 32 * (int(head_dim)? as u32 + 1) * 4,
    };
    let (heads, dim, stride, scale) = (int(heads)?, int(head_dim)?, int(stride)?, scale(head_dim));
    let arguments = [
        Address(query),
        Address(from),
        Address(offsets),
        Address(pooled),
        Address(maps),
        Int(heads),
        Int(dim),
        Int(stride),
        Float(scale),
    ];
    // SAFETY: as in `attention`; the result has `items · width` values and `heads` for each row.
    unsafe { context.launch(&function, config, &arguments)? };
    Ok((y, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_kernels() {
        let has = |file: &str, name: &str, value: usize| {
            assert!(file.contains(&format!("constexpr int {name} = {value};")), "{name} is not {value}");
        };
        let file = include_str!("kernels/attention.cu");
        has(file, "ATTENTION_QUERIES", TILE);
        has(file, "ATTENTION_KEYS", KEYS);
        has(file, "ATTENTION_THREADS", THREADS as usize);
        let file = include_str!("kernels/attention_plain.cu");
        has(file, "PLAIN_QUERIES", PLAIN_QUERIES);
        has(file, "PLAIN_KEYS", PLAIN_KEYS);
        has(file, "PLAIN_THREADS", PLAIN_THREADS as usize);
        has(file, "PLAIN_LARGEST_DIM", LARGEST_HEAD_DIM);
        let file = include_str!("kernels/probe.cu");
        has(file, "PROBE_THREADS", PROBE_THREADS as usize);
        has(file, "PROBE_LARGEST_DIM", LARGEST_HEAD_DIM);
        has(
            include_str!("kernels/elementwise.cu"),
            "ELEMENTWISE_THREADS",
            crate::ops::cuda::launch::ELEMENTWISE_THREADS as usize,
        );
        has(
            include_str!("kernels/rows.cu"),
            "ROWS_THREADS",
            crate::ops::cuda::launch::ELEMENTWISE_THREADS as usize,
        );
        has(include_str!("kernels/norm.cu"), "NORM_ROWS", crate::ops::cuda::norm::ROWS);
    }

    #[test]
    fn tensor_cores_where_there_are_any() {
        assert_eq!(plan(DType::BF16, 72, 9, true).unwrap().kernel, "attention_bf16_72");
        // 64 keys and 64 values in rows of 80 + 8.
        assert_eq!(plan(DType::BF16, 72, 9, true).unwrap().shared_bytes, 2 * 64 * 88 * 2);
        for (dtype, dim, major, aligned) in [
            (DType::F32, 64, 9, true),
            (DType::F16, 64, 7, true),
            (DType::F16, 48, 9, true),
            (DType::F16, 64, 9, false),
        ] {
            let plan = plan(dtype, dim, major, aligned).unwrap();
            assert!(plan.kernel.starts_with("attention_plain"), "{plan:?}");
            assert_eq!(plan.parts, 4);
        }
        assert!(plan(DType::F32, 129, 9, true).is_err());
    }

    #[test]
    fn no_kernel_needs_more_shared_memory_than_every_gpu_gives() {
        for dim in 1..=LARGEST_HEAD_DIM {
            for dtype in [DType::F32, DType::BF16] {
                assert!(plan(dtype, dim, 9, true).unwrap().shared_bytes <= 48 << 10, "{dtype:?} {dim}");
            }
        }
    }
}
