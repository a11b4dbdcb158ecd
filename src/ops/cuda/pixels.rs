//! Bytes go up through pinned memory, and become values on the device.

use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaStream, DevicePtr, PinnedHostSlice, PushKernelArg,
};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, DType, Error, Result, Shape, Storage, Tensor};
use rayon::prelude::*;

use super::linear::elementwise_grid;
use super::{Context, kernel, lock};

/// Bytes that one thread copies; fewer are not worth another thread.
const PIECE: usize = 256 << 10;

/// Pinned memory of one upload, used again for the next.
#[derive(Default)]
pub(super) struct Staging {
    host: Option<PinnedHostSlice<u8>>,
    /// Behind the last upload in the stream.
    uploaded: Option<CudaEvent>,
}

impl Staging {
    /// The first `count` bytes, once the device has read what was in them.
    fn room(&mut self, stream: &CudaStream, count: usize) -> Result<&mut [u8]> {
        if let Some(event) = &self.uploaded {
            event.synchronize().map_err(Error::wrap)?;
        }
        if self.host.as_ref().is_none_or(|host| host.len() < count) {
            self.host = None;
            // SAFETY: the bytes are written before they are read: `upload` fills what it copies.
            let host = unsafe { stream.context().alloc_pinned_with_flags(count.next_power_of_two(), 0) };
            self.host = Some(host.map_err(Error::wrap)?);
        }
        match &mut self.host {
            Some(host) => Ok(&mut host.as_mut_slice().map_err(Error::wrap)?[..count]),
            None => unreachable!("made above"),
        }
    }
}

/// Bytes `[rows, columns]`, channels innermost, through `table` `[3, 256]` (f32) on the device.
///
/// # Errors
/// If the pieces do not have `rows · columns` bytes, a multiple of 3.
pub(in crate::ops) fn normalize(
    pieces: &[&[u8]],
    rows: usize,
    columns: usize,
    table: &Tensor,
    device: &CudaDevice,
    dtype: DType,
) -> Result<Tensor> {
    let count = rows * columns;
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() != count || !columns.is_multiple_of(3) {
        candle_core::bail!("{rows} x {columns} pixels are not what there are bytes of");
    }
    let context = Context::of(device)?;
    let shape = Shape::from((rows, columns));
    let (y, to) = context.output(device, &shape, dtype)?;
    if count > 0 {
        // SAFETY: the upload writes every byte before the kernel, behind it on the stream, reads one.
        let mut bytes = unsafe { device.alloc::<u8>(count) }?;
        {
            let mut staging = lock(&context.staging);
            let host = staging.room(&context.stream, count)?;
            fill(host, pieces);
            context.stream.memcpy_htod(&*host, &mut bytes).map_err(Error::wrap)?;
            staging.uploaded = Some(context.stream.record_event(None).map_err(Error::wrap)?);
        }
        let from = bytes.device_ptr(&context.stream).0;
        let table = context.tensor_address(table, device, DType::F32)?;
        let function = context.function(kernel!("normalize", dtype))?;
        // SAFETY: there are `count` bytes and values, and 3 · 256 values in the table, which is also the shared memory;
        // `bytes` is freed on the same stream, behind the kernel.
        unsafe {
            context.launch(&function, elementwise_grid(count, 3 * 256 * 4), |call| {
                call.arg(&from).arg(&table).arg(&to).arg(&count);
            })?;
        }
    }
    Ok(Tensor::from_storage(Storage::Cuda(y), shape, BackpropOp::none(), false))
}

/// Copies pieces one after another, large ones on several threads.
fn fill(mut to: &mut [u8], pieces: &[&[u8]]) {
    let mut copies = Vec::new();
    for piece in pieces {
        for from in piece.chunks(PIECE) {
            let (part, rest) = std::mem::take(&mut to).split_at_mut(from.len());
            copies.push((part, from));
            to = rest;
        }
    }
    if copies.len() > 1 {
        copies.into_par_iter().for_each(|(to, from)| to.copy_from_slice(from));
    } else {
        copies.into_iter().for_each(|(to, from)| to.copy_from_slice(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_packed_in_their_order() {
        let large: Vec<u8> = (0..2 * PIECE + 5).map(|i| i as u8).collect();
        let pieces = [&large[..], &[], &[1, 2, 3], &large[7..19]];
        let mut packed = vec![0; pieces.concat().len()];
        fill(&mut packed, &pieces);
        assert_eq!(packed, pieces.concat());
    }
}
