//! Bytes to the GPU and values back, through pinned memory.
//!
//! Inputs go up on a stream of their own, so that one batch's bytes travel while another is computed. Two events order the two
//! streams: `uploaded`, which the computing stream waits for before it reads, and `used`, which the copying stream waits for
//! before it overwrites. Each input in flight has a slot (pinned memory, device memory, both events); there are as many slots as
//! threads upload at once.

use std::sync::{Arc, Mutex};

use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, PinnedHostSlice, result, sys,
};
use candle_core::{CudaDevice, Error, Result};
use rayon::prelude::*;

use super::{Context, lock};

/// Bytes that one thread copies; fewer are not worth another thread.
const PIECE: usize = 256 << 10;
/// Bytes of the smallest slot.
const SMALLEST: usize = 64 << 10;

/// The copying stream and what is free to be used on it.
pub(super) struct Transfers {
    stream: Arc<CudaStream>,
    slots: Mutex<Vec<Slot>>,
    landings: Mutex<Vec<PinnedHostSlice<f32>>>,
}

/// Room for one input.
struct Slot {
    host: PinnedHostSlice<u8>,
    device: CudaSlice<u8>,
    /// Behind the last upload, on the copying stream.
    uploaded: CudaEvent,
    /// Behind the last use, on the computing stream.
    used: CudaEvent,
}

impl Transfers {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self> {
        let stream = context.new_stream().map_err(Error::wrap)?;
        Ok(Self { stream, slots: Mutex::default(), landings: Mutex::default() })
    }

    /// A slot of at least so many bytes that nothing uses any more, as far as the host goes.
    fn slot(&self, bytes: usize) -> Result<Slot> {
        let free = {
            let mut slots = lock(&self.slots);
            // One that is large enough, or else any: it grows, so that there are not more of them over time.
            let at = slots.iter().position(|slot| slot.host.len() >= bytes);
            at.or(slots.len().checked_sub(1)).map(|at| slots.swap_remove(at))
        };
        if let Some(slot) = free {
            // The pinned bytes may be overwritten once they have gone up.
            slot.uploaded.synchronize().map_err(Error::wrap)?;
            if slot.host.len() >= bytes {
                return Ok(slot);
            }
            // Its device memory is freed on the copying stream, which the computing stream must be done with.
            slot.used.synchronize().map_err(Error::wrap)?;
        }
        let capacity = bytes.max(SMALLEST).next_power_of_two();
        let context = self.stream.context();
        // SAFETY: bytes are written before they are read: `upload` fills what it copies, and what was copied is all that
        // `DeviceBytes` names.
        let (host, device) = unsafe {
            (
                context.alloc_pinned_with_flags(capacity, 0).map_err(Error::wrap)?,
                self.stream.alloc::<u8>(capacity).map_err(Error::wrap)?,
            )
        };
        let event = || context.new_event(None).map_err(Error::wrap);
        Ok(Slot { host, device, uploaded: event()?, used: event()? })
    }
}

impl Context {
    /// Starts copying `count` values at an address to the host, behind what is on the computing stream. `patient`: the
    /// thread sleeps while it waits, instead of polling.
    ///
    /// # Safety
    /// There must be so many values, which nothing on another stream overwrites.
    pub(super) unsafe fn download(
        self: &Arc<Self>,
        address: u64,
        count: usize,
        patient: bool,
    ) -> Result<Landing> {
        let stream = &self.stream;
        let free = {
            let mut landings = lock(&self.transfers.landings);
            landings.iter().position(|host| host.len() >= count).map(|at| landings.swap_remove(at))
        };
        let mut host = match free {
            Some(host) => host,
            None => {
                let capacity = count.max(1024).next_power_of_two();
                // SAFETY: written by the copy below before it is read.
                unsafe { stream.context().alloc_pinned_with_flags(capacity, 0) }.map_err(Error::wrap)?
            }
        };
        let to = &mut host.as_mut_slice().map_err(Error::wrap)?[..count];
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let flags = patient.then_some(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC);
        let event = stream.context().new_event(flags).map_err(Error::wrap)?;
        // SAFETY: the source is the caller's; the pinned memory stays with the landing, whose drop waits for the event.
        unsafe { result::memcpy_dtoh_async(to, address, stream.cu_stream()) }.map_err(Error::wrap)?;
        let landing = Landing { context: Arc::clone(self), host: Some(host), count, event };
        landing.event.record(stream).map_err(Error::wrap)?;
        Ok(landing)
    }
}

/// Values on their way to the host.
pub(super) struct Landing {
    context: Arc<Context>,
    host: Option<PinnedHostSlice<f32>>,
    count: usize,
    event: CudaEvent,
}

impl Landing {
    /// Waits for the values.
    pub(super) fn wait(mut self) -> Result<Vec<f32>> {
        self.event.synchronize().map_err(Error::wrap)?;
        let Some(host) = self.host.take() else { return Ok(Vec::new()) };
        let values = host.as_slice().map_err(Error::wrap)?[..self.count].to_vec();
        lock(&self.context.transfers.landings).push(host);
        Ok(values)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        // The memory is not freed under a copy. If even waiting fails, the device is lost and copies nothing any more.
        if self.host.is_some() {
            let _ = self.event.synchronize();
        }
    }
}

/// Bytes of a batch on the device; they may still be on their way.
pub struct DeviceBytes {
    context: Arc<Context>,
    slot: Option<Slot>,
    count: usize,
}

impl DeviceBytes {
    /// Starts copying pieces, one behind the other, to the device.
    ///
    /// # Errors
    /// If there is no memory for them, or the device fails.
    pub fn upload(pieces: &[&[u8]], device: &CudaDevice) -> Result<Self> {
        let context = Context::of(device)?;
        let count = pieces.iter().map(|piece| piece.len()).sum();
        let transfers = &context.transfers;
        let mut slot = transfers.slot(count)?;
        fill(&mut slot.host.as_mut_slice().map_err(Error::wrap)?[..count], pieces);
        // What was computed from the slot's last bytes must have read them.
        transfers.stream.wait(&slot.used).map_err(Error::wrap)?;
        if count > 0 {
            let host = &slot.host.as_slice().map_err(Error::wrap)?[..count];
            let mut part = slot.device.slice_mut(..count);
            transfers.stream.memcpy_htod(host, &mut part).map_err(Error::wrap)?;
        }
        slot.uploaded.record(&transfers.stream).map_err(Error::wrap)?;
        Ok(Self { context, slot: Some(slot), count })
    }

    /// Number of bytes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their address, for work that is put on the computing stream after this call.
    pub(super) fn address(&self) -> Result<u64> {
        let Some(slot) = &self.slot else { candle_core::bail!("bytes that are not on a device") };
        self.context.stream.wait(&slot.uploaded).map_err(Error::wrap)?;
        Ok(slot.device.device_ptr(&self.context.stream).0)
    }
}

impl Drop for DeviceBytes {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        // Everything that reads the bytes is on the stream by now.
        match slot.used.record(&self.context.stream) {
            Ok(()) => lock(&self.context.transfers.slots).push(slot),
            // The device is lost. Memory that it may still read is not freed.
            Err(_) => std::mem::forget(slot),
        }
    }
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
