//! Kernels for the processor, f32, over plain slices.

pub mod attention;
pub mod linear;
pub mod math;
pub mod norm;

use candle_core::{CpuStorage, Layout, Result, Storage};

/// The values behind a contiguous layout.
pub(super) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("a kernel was given a tensor that is not contiguous"),
    }
}

/// The same for a tensor's own storage.
pub(super) fn tensor_slice<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => slice(storage, layout),
        _ => candle_core::bail!("a CPU kernel was given a tensor on another device"),
    }
}
