//! A recorded batch as a CUDA graph: one launch instead of a hundred.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaSlice, CudaStream, DevicePtr, result, sys};
use candle_core::{Error, Result, Tensor};

use super::arena::{ALIGNMENT, pack};
use super::tape::{Step, Tape};
use super::transfer::{DeviceBytes, Landing};
use super::{Context, launch};

/// A graph with the memory that it works in.
pub(super) struct Graph {
    graph: CudaGraph,
    context: Arc<Context>,
    /// Freed on the computing stream, behind the graph's last launch.
    arena: CudaSlice<u8>,
    /// Address and bytes.
    input: (u64, usize),
    /// Address and values (f32).
    output: (u64, usize),
    _constants: Vec<Tensor>,
}

// SAFETY: the graph's handles may be used by any thread, by one at a time ("Graphs thread safety" of the driver's
// documentation): a graph lies behind the lock of its `Runner`.
unsafe impl Send for Graph {}

impl Graph {
    /// Captures what was recorded, with its `output` (f32, `count` values) at this address.
    ///
    /// # Errors
    /// If the recording has a flaw, or there is no memory, or the driver refuses.
    pub(super) fn capture(context: &Arc<Context>, tape: Tape, output: u64, count: usize) -> Result<Self> {
        if let Some(flaw) = tape.flaw() {
            candle_core::bail!("{flaw}");
        }
        let Some(output) = tape.buffer_at(output) else {
            candle_core::bail!("the result is not made by a recorded launch");
        };
        let lifetimes = tape.lifetimes(output);
        if lifetimes[output].bytes != count * size_of::<f32>() {
            candle_core::bail!("the result is not {count} values");
        }
        let (offsets, total) = pack(&lifetimes);
        // SAFETY: the first launch writes what later ones read, but for the input, which `replay` writes.
        let arena = unsafe { context.stream.alloc::<u8>(total + ALIGNMENT) }.map_err(Error::wrap)?;
        let base = arena.device_ptr(&context.stream).0.next_multiple_of(ALIGNMENT as u64);
        let places: Vec<u64> = offsets.iter().map(|offset| base + *offset as u64).collect();
        // A stream of its own: nobody else's work can get into the capture.
        let stream = context.stream.context().new_stream().map_err(Error::wrap)?;
        let thread_local = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(thread_local).map_err(Error::wrap)?;
        let captured = tape.moved(&places).try_for_each(|step| put(context, &stream, &step));
        // Ends the capture in either case; what went wrong first is what is told.
        let graph = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        captured?;
        let Some(graph) = graph.map_err(Error::wrap)? else { candle_core::bail!("nothing was captured") };
        Ok(Self {
            graph,
            context: Arc::clone(context),
            arena,
            input: (places[0], lifetimes[0].bytes),
            output: (places[output], count),
            _constants: tape.into_constants(),
        })
    }

    /// Bytes of device memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// Fills its memory with ones (NaN in every type), so that nothing of an earlier launch is left, and its input with
    /// zeros: if the graph does not get its input, it must not take a token id from outside the vocabulary, since an illegal
    /// address is the end of the process's work on the GPU.
    pub(super) fn scrub(&mut self) -> Result<()> {
        let stream = &self.context.stream;
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        let (address, bytes) = (self.arena.device_ptr(stream).0, self.arena.len());
        // SAFETY: the arena is alive, the input lies in it, and this is the stream that it is used on.
        unsafe {
            result::memset_d8_async(address, 0xFF, bytes, stream.cu_stream()).map_err(Error::wrap)?;
            result::memset_d8_async(self.input.0, 0, self.input.1, stream.cu_stream()).map_err(Error::wrap)
        }
    }

    /// Puts one run over `input` on the stream, and the download of its result behind it.
    pub(super) fn replay(&self, input: &DeviceBytes) -> Result<Landing> {
        if input.count() != self.input.1 {
            candle_core::bail!("a graph for {} bytes was given {}", self.input.1, input.count());
        }
        let stream = &self.context.stream;
        let from = input.address()?;
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        // SAFETY: both ranges are alive and of this size; the graph uses memory of the arena and constants that it holds, on
        // this stream only, and is launched by one thread at a time.
        unsafe {
            result::memcpy_dtod_async(self.input.0, from, self.input.1, stream.cu_stream())
                .map_err(Error::wrap)?;
            result::graph::launch(self.graph.cu_graph_exec(), stream.cu_stream()).map_err(Error::wrap)?;
        }
        let (output, count) = self.output;
        // SAFETY: the result has so many values; the next launch overwrites them behind this copy, on the same stream.
        unsafe { self.context.download(output, count, false) }
    }
}

/// Puts a launch on a stream that captures.
fn put(context: &Context, stream: &CudaStream, step: &Step) -> Result<()> {
    match step {
        // SAFETY: the launch was made before with buffers of the same sizes; these are in the arena, where those that are
        // used together do not overlap.
        Step::Kernel { function, config, arguments } => unsafe {
            launch::start(stream, function, *config, arguments)
        },
        Step::Product { product, operands, algorithm } => {
            // SAFETY: as above.
            unsafe { context.lt.start(stream, product, *operands, *algorithm) }
        }
    }
}
