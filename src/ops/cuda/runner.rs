//! Runs a tower over batches: as it is, or, small batches that come again, as a CUDA graph.
//!
//! A graph is used only after it gave, bit for bit, what ordinary runs give, for the batch that it was made from and for another
//! one of the same shape, with its memory filled with ones before each: a launch that is left out, an address that is wrong
//! or an input that is not taken over shows. If that fails, or the driver refuses anything, the tower goes on without graphs
//! and says why, once.

use std::sync::{Arc, Mutex};

use candle_core::{CudaDevice, DType, Error, Result, Tensor};

use super::cache::{Bounds, Cache};
use super::graph::Graph;
use super::transfer::{DeviceBytes, Landing};
use super::{Context, lock, tape};
use crate::ops::{Batch, Input};

/// Tokens of the largest batch that becomes a graph. Above, the GPU takes longer over a batch than the processor over its
/// launches, which then are ahead of it anyway.
pub(crate) const LARGEST_ROWS: usize = 4096;
/// Graphs of a tower. A batch of 4096 tokens works in up to 70 MB (so400m), one picture of base/16 in 3.
const BOUNDS: Bounds = Bounds { entries: 32, bytes: 512 << 20, met: 256 };

/// One tower on one GPU.
pub struct Runner<K> {
    context: Arc<Context>,
    device: CudaDevice,
    state: Mutex<State<K>>,
}

struct State<K> {
    graphs: Cache<K, Graph>,
    on: bool,
}

impl<K: PartialEq + Clone> Runner<K> {
    /// For a tower on a GPU that [`super::open`] opened.
    ///
    /// # Errors
    /// If it is not.
    pub fn new(device: &CudaDevice) -> Result<Self> {
        let context = Context::of(device)?;
        let state = State { graphs: Cache::new(BOUNDS), on: context.options.graphs };
        Ok(Self { context, device: device.clone(), state: Mutex::new(state) })
    }

    /// How many shapes run as graphs now.
    pub fn graphs(&self) -> usize {
        lock(&self.state).graphs.len()
    }

    /// What `forward` gives of a batch (f32, on the device), on the host.
    ///
    /// # Errors
    /// Those of `forward`, and of the device.
    pub fn run<E: From<Error>>(
        &self,
        batch: &Batch<'_, K>,
        forward: &dyn Fn(&Input<'_>) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Vec<f32>, E> {
        // Before the turn: bytes go up while another batch is computed.
        let bytes = DeviceBytes::upload(batch.pieces, &self.device)?;
        let turn = lock(&self.context.turn);
        let mut state = lock(&self.state);
        if state.on && batch.rows <= LARGEST_ROWS {
            if let Some(graph) = state.graphs.get(&batch.key) {
                match graph.replay(&bytes) {
                    Ok(landing) => {
                        drop(bytes);
                        drop((state, turn));
                        return Ok(landing.wait()?);
                    }
                    Err(error) => state.give_up(&error),
                }
            } else if state.graphs.comes_again(&batch.key) {
                return self.capture(&mut state, batch, bytes, forward);
            }
        }
        let input = Input::Device(bytes);
        let landing = match forward(&input) {
            Ok(y) => self.download(&y, batch.rows)?,
            Err(error) => {
                // It may have been memory.
                state.graphs.clear();
                return Err(error);
            }
        };
        // From here on another thread's batch may follow on the stream.
        drop(input);
        drop((state, turn));
        Ok(landing.wait()?)
    }

    fn download(&self, y: &Tensor, rows: usize) -> Result<Landing> {
        let address = self.context.tensor_address(y, &self.device, DType::F32)?;
        // SAFETY: the tensor has so many values; it is freed behind the copy, on the same stream.
        unsafe { self.context.download(address, y.elem_count(), rows > LARGEST_ROWS) }
    }

    /// Runs the batch as it is, and makes a graph of that.
    fn capture<E: From<Error>>(
        &self,
        state: &mut State<K>,
        batch: &Batch<'_, K>,
        bytes: DeviceBytes,
        forward: &dyn Fn(&Input<'_>) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Vec<f32>, E> {
        let recording = tape::record(bytes.address()?, bytes.count());
        let input = Input::Device(bytes);
        let y = forward(&input)?;
        let tape = recording.finish();
        let values = self.download(&y, batch.rows)?.wait()?;
        let Input::Device(bytes) = &input else { return Ok(values) };
        let made = || -> Result<Graph> {
            let Some(tape) = tape else { candle_core::bail!("nothing was recorded") };
            let output = self.context.tensor_address(&y, &self.device, DType::F32)?;
            let mut graph = Graph::capture(&self.context, tape, output, y.elem_count())?;
            let other = Input::Device(DeviceBytes::upload(&[&(batch.other)()], &self.device)?);
            let expected = match forward(&other) {
                Ok(y) => self.download(&y, batch.rows)?.wait()?,
                Err(_) => candle_core::bail!("the tower fails on another batch of the same shape"),
            };
            if same(&expected, &values) {
                candle_core::bail!("its result does not depend on its input");
            }
            for (input, expected) in [(&other, &expected), (&input, &values)] {
                let Input::Device(bytes) = input else { candle_core::bail!("an input on the host") };
                graph.scrub()?;
                if !same(&graph.replay(bytes)?.wait()?, expected) {
                    candle_core::bail!("it gives other vectors than an ordinary run");
                }
            }
            Ok(graph)
        };
        match made() {
            Ok(graph) => {
                let held = graph.bytes();
                tracing::debug!(
                    rows = batch.rows,
                    bytes = held,
                    input = bytes.count(),
                    "a CUDA graph is in use"
                );
                state.graphs.insert(batch.key.clone(), graph, held);
            }
            Err(error) => state.give_up(&error),
        }
        Ok(values)
    }
}

impl<K: PartialEq + Clone> State<K> {
    /// No graphs from now on.
    fn give_up(&mut self, error: &Error) {
        self.on = false;
        self.graphs.clear();
        let error = error.to_string();
        let cause = error.lines().next().unwrap_or_default();
        tracing::warn!(
            cause,
            "CUDA graphs are off for this tower: its batches are launched kernel by kernel"
        );
    }
}

/// Whether two results are the same, bit for bit.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}
