//! Kernels for the processor, over plain slices.
//!
//! [`micro`] holds the inner loops, one file an instruction set ([`isa`]); [`panels`] packs what they read, [`quantize`] makes bytes of it; [`linear`]
//! and [`attention`] are written once over all of them. [`weight`] chooses.

pub mod attention;
pub mod buffer;
pub mod cache;
pub mod isa;
pub mod kernel;
pub mod linear;
pub mod math;
pub mod micro;
pub mod norm;
pub mod panels;
pub mod peak;
pub mod plan;
pub mod pooling;
pub mod quantize;
pub mod vectorised;
pub mod weight;
pub mod words;

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, Layout, Result, Storage, WithDType};
use half::bf16;

pub use isa::Isa;
pub use weight::{PackedWeight, WeightFormat};

/// The values behind a contiguous layout.
pub(super) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let values = storage.as_slice::<T>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("a kernel was given a tensor that is not contiguous"),
    }
}

/// The same for a tensor's own storage.
pub(super) fn tensor_slice<'a, T: WithDType>(storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    match storage {
        Storage::Cpu(storage) => slice(storage, layout),
        _ => candle_core::bail!("a CPU kernel was given a tensor on another device"),
    }
}

/// A vector of values that `fill` writes, without zeros before.
///
/// # Safety
/// If `fill` succeeds, it must have written every value.
unsafe fn collected<T>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<T>]) -> Result<()>) -> Result<Vec<T>> {
    let mut values = Vec::with_capacity(len);
    fill(&mut values.spare_capacity_mut()[..len])?;
    // SAFETY: the capacity is at least `len`, and the caller promises that they are written.
    unsafe { values.set_len(len) };
    Ok(values)
}

/// A result of `len` values, bf16 or f32, that `fill` writes.
///
/// # Safety
/// As [`collected`].
unsafe fn collected_as(
    narrow: bool,
    len: usize,
    fill: impl FnOnce(linear::Output) -> Result<()>,
) -> Result<CpuStorage> {
    // SAFETY: the caller promises that every value is written; a `MaybeUninit<T>` lies as a `T`.
    unsafe {
        if narrow {
            let fill = |y: &mut [MaybeUninit<bf16>]| fill(linear::Output::Bf16(y.as_mut_ptr().cast()));
            collected(len, fill).map(CpuStorage::BF16)
        } else {
            let fill = |y: &mut [MaybeUninit<f32>]| fill(linear::Output::F32(y.as_mut_ptr().cast()));
            collected(len, fill).map(CpuStorage::F32)
        }
    }
}
