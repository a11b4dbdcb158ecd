//! Bytes become values on the device.

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::launch::Argument::{Address, Size};
use super::launch::elementwise_grid;
use super::transfer::DeviceBytes;
use super::{Context, kernel};

/// Bytes `[rows, columns]`, channels innermost, through `table` `[3, 256]` (f32) on the device.
///
/// # Errors
/// If there are not `rows · columns` bytes, a multiple of 3.
pub(in crate::ops) fn normalize(
    bytes: &DeviceBytes,
    rows: usize,
    columns: usize,
    table: &Tensor,
    device: &CudaDevice,
    dtype: DType,
) -> Result<Tensor> {
    let count = rows * columns;
    if bytes.count() != count || !columns.is_multiple_of(3) {
        candle_core::bail!("{rows} x {columns} pixels are not what there are bytes of");
    }
    let context = Context::of(device)?;
    let (y, to) = context.matrix(device, (rows, columns), dtype)?;
    if count > 0 {
        let from = bytes.address()?;
        let table = context.constant_address(table, device, DType::F32)?;
        let function = context.function(kernel!("normalize", dtype))?;
        let arguments = [Address(from), Address(table), Address(to), Size(count)];
        // SAFETY: there are `count` bytes and values, and 3 · 256 values in the table, which is also the shared memory;
        // `bytes` is not overwritten before the stream has come this far.
        unsafe { context.launch(&function, elementwise_grid(count, 3 * 256 * 4), &arguments)? };
    }
    Ok(y)
}
