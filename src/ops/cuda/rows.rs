//! Rows put where they belong: token embeddings, repeated tables, last rows, means, and changes of type.

use candle_core::{DType, Device, Result, Tensor};

use super::launch::Argument::{self, Address, Int, Size};
use super::launch::elementwise_grid;
use super::transfer::DeviceBytes;
use super::{Context, int, kernel};
use crate::ops::Segments;

/// `tokens` `[vocab, width]` at ids (u32, one a token) plus `positions` `[context, width]`, over and over → `[ids, width]`.
/// The ids must lie within the vocabulary.
pub(in crate::ops) fn embed(ids: &DeviceBytes, tokens: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let (device, dtype) = (tokens.device().as_cuda_device()?, tokens.dtype());
    let ((_, width), (length, expected)) = (tokens.dims2()?, positions.dims2()?);
    let rows = ids.count() / size_of::<u32>();
    if width != expected || length == 0 {
        candle_core::bail!("tokens {width} wide, {length} positions {expected} wide");
    }
    let context = Context::of(device)?;
    let (y, to) = context.matrix(device, (rows, width), dtype)?;
    if rows * width > 0 {
        let tokens = context.constant_address(tokens, device, dtype)?;
        let positions = context.constant_address(positions, device, dtype)?;
        let function = context.function(kernel!("embed", dtype))?;
        let arguments = [
            Address(ids.address()?),
            Address(tokens),
            Address(positions),
            Address(to),
            Size(rows),
            Int(int(length)?),
            Int(int(width)?),
        ];
        // SAFETY: there are `rows` ids, each of a row of `tokens` (the caller's), and `rows · width` values in `y`.
        unsafe { context.launch(&function, elementwise_grid(rows * width, 0), &arguments)? };
    }
    Ok(y)
}

/// Tables `[rows, width]` of one width, each repeated so many times, one behind the other.
pub(in crate::ops) fn stack(tables: &[(Tensor, usize)]) -> Result<Tensor> {
    let Some((first, _)) = tables.first() else { candle_core::bail!("no tables to stack") };
    let (device, dtype, width) = (first.device().as_cuda_device()?, first.dtype(), first.dim(1)?);
    let rows = tables.iter().map(|(table, count)| Ok(table.dim(0)? * count)).sum::<Result<usize>>()?;
    let context = Context::of(device)?;
    let (y, mut to) = context.matrix(device, (rows, width), dtype)?;
    let function = context.function(kernel!("repeat", dtype))?;
    for (table, count) in tables {
        if table.dim(1)? != width {
            candle_core::bail!("tables of other widths");
        }
        let from = context.constant_address(table, device, dtype)?;
        let size = table.elem_count();
        if size * count > 0 {
            let arguments = [Address(from), Address(to), Size(size), Size(*count)];
            // SAFETY: `y` has room for every table as often as it is repeated; this one begins behind those before it.
            unsafe { context.launch(&function, elementwise_grid(size * count, 0), &arguments)? };
        }
        to += (size * count * dtype.size_in_bytes()) as u64;
    }
    Ok(y)
}

/// The last row of each item of `x` `[rows, width]` → `[items, width]`.
pub(in crate::ops) fn last(x: &Tensor, segments: &Segments) -> Result<Tensor> {
    of_items(kernel!("last_rows", x.dtype()), x, segments)
}

/// The mean of each item's rows of `x` `[rows, width]` → `[items, width]`.
pub(in crate::ops) fn mean(x: &Tensor, segments: &Segments) -> Result<Tensor> {
    of_items(kernel!("mean_rows", x.dtype()), x, segments)
}

fn of_items(kernel: &'static str, x: &Tensor, segments: &Segments) -> Result<Tensor> {
    let (device, dtype) = (x.device().as_cuda_device()?, x.dtype());
    let (rows, width) = x.dims2()?;
    if rows != segments.rows() || segments.iter().any(|item| item.is_empty()) {
        candle_core::bail!("{rows} rows, but segments of {} rows, or an empty item", segments.rows());
    }
    let items = segments.len();
    let context = Context::of(device)?;
    let from = context.tensor_address(x, device, dtype)?;
    let (y, to) = context.matrix(device, (items, width), dtype)?;
    if items * width > 0 {
        let table = segments.on_device(&Device::Cuda(device.clone()))?;
        let offsets = context.constant_address(&table, device, DType::U32)?;
        let function = context.function(kernel)?;
        let arguments = [Address(from), Address(offsets), Address(to), Size(items), Int(int(width)?)];
        // SAFETY: the offsets are those of `x`'s rows (checked above), and no item is empty; `y` has `items · width` values.
        unsafe { context.launch(&function, elementwise_grid(items * width, 0), &arguments)? };
    }
    Ok(y)
}

/// `x` in f32 in another type, or in another type in f32.
pub(in crate::ops) fn convert(x: &Tensor, to: DType) -> Result<Tensor> {
    let name = match (x.dtype(), to) {
        (from, to) if from == to => return Ok(x.clone()),
        (from, DType::F32) => kernel!("widen", from),
        (DType::F32, to) => kernel!("round", to),
        (from, to) => candle_core::bail!("no kernel turns {from:?} into {to:?}"),
    };
    let device = x.device().as_cuda_device()?;
    let (rows, width) = x.dims2()?;
    let context = Context::of(device)?;
    let from = context.tensor_address(x, device, x.dtype())?;
    let (y, address) = context.matrix(device, (rows, width), to)?;
    let count = rows * width;
    if count > 0 {
        let function = context.function(name)?;
        let arguments: [Argument; 3] = [Address(from), Address(address), Size(count)];
        // SAFETY: both have `count` values of the kernel's types.
        unsafe { context.launch(&function, elementwise_grid(count, 0), &arguments)? };
    }
    Ok(y)
}
