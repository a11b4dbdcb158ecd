//! What a batch did on the stream, written down while it runs, so that it can become a CUDA graph.
//!
//! A batch is not captured as candle runs it. candle allocates and frees on the stream (`cuMemAllocAsync`), so that in a
//! capture every tensor would become an allocation node, a tensor that another thread drops meanwhile a free node of memory
//! that the graph does not own, and layouts that candle copies from pageable memory would be read again after they are gone.
//! Instead the launches of one ordinary run are noted with their addresses, each address is traced to the buffer that it lies
//! in, the buffers get places in one block of memory of the graph's own ([`super::arena`]), and only then are the same launches
//! captured, on a stream that nothing else uses ([`super::graph`]). In the capture there is nothing but kernels and products.
//!
//! An address that is neither of a buffer made by this run nor of a constant is a flaw: such a batch gets no graph. What is
//! left is memory that a plain candle operation took over from a tensor of this run; the towers have none between their
//! kernels, and a graph is compared with ordinary runs before it is used ([`super::runner`]).

use std::cell::RefCell;

use candle_core::Tensor;
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, LaunchConfig};

use super::arena::Lifetime;
use super::launch::Argument;
use super::lt::{Algorithm, Operands, Product};

/// One launch.
#[derive(Clone)]
pub(super) enum Step {
    Kernel { function: CudaFunction, config: LaunchConfig, arguments: Vec<Argument> },
    Product { product: Product, operands: Operands, algorithm: Algorithm },
}

impl Step {
    fn addresses(&self) -> Vec<u64> {
        match self {
            Self::Kernel { arguments, .. } => arguments
                .iter()
                .filter_map(|argument| match argument {
                    Argument::Address(address) => Some(*address),
                    _ => None,
                })
                .collect(),
            Self::Product { operands: o, .. } => vec![o.x, o.weight, o.bias, o.residual, o.y],
        }
    }

    /// The same launch with other addresses, in the order of [`Self::addresses`].
    fn at(&self, addresses: &[u64]) -> Self {
        let mut step = self.clone();
        match &mut step {
            Self::Kernel { arguments, .. } => {
                let places = arguments.iter_mut().filter_map(|argument| match argument {
                    Argument::Address(address) => Some(address),
                    _ => None,
                });
                places.zip(addresses).for_each(|(place, address)| *place = *address);
            }
            Self::Product { operands: o, .. } => {
                let places = [&mut o.x, &mut o.weight, &mut o.bias, &mut o.residual, &mut o.y];
                places.into_iter().zip(addresses).for_each(|(place, address)| *place = *address);
            }
        }
        step
    }
}

/// What an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Null or a constant.
    Fixed(u64),
    Buffer {
        index: usize,
        offset: u64,
    },
}

/// The launches of one run. Buffer 0 is its input.
pub(super) struct Tape {
    /// Address and bytes.
    buffers: Vec<(u64, u64)>,
    /// Constants, kept alive, with address and bytes.
    held: Vec<(Tensor, u64, u64)>,
    steps: Vec<(Step, Vec<Place>)>,
    flaw: Option<String>,
}

thread_local! {
    static RECORDING: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

/// Ends the recording of this thread when it is dropped.
pub(super) struct Recording(());

impl Recording {
    /// What was recorded.
    pub(super) fn finish(self) -> Option<Tape> {
        RECORDING.take()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDING.set(None);
    }
}

/// Starts writing down what this thread launches. The input of the run lies at `address`.
pub(super) fn record(address: u64, bytes: usize) -> Recording {
    RECORDING.set(Some(Tape::new(address, bytes)));
    Recording(())
}

fn with(f: impl FnOnce(&mut Tape)) {
    RECORDING.with_borrow_mut(|tape| {
        if let Some(tape) = tape {
            f(tape);
        }
    });
}

/// A result was given room.
pub(super) fn made(address: u64, bytes: usize) {
    with(|tape| tape.buffers.push((address, bytes as u64)));
}

/// A tensor that is the same for every batch of this shape is at `address`.
pub(super) fn hold(tensor: &Tensor, address: u64) {
    with(|tape| {
        let bytes = (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64;
        if !tape.held.iter().any(|(_, known, size)| (*known, *size) == (address, bytes)) {
            tape.held.push((tensor.clone(), address, bytes));
        }
    });
}

/// Something was launched.
pub(super) fn step(step: impl FnOnce() -> Step) {
    with(|tape| tape.push(step()));
}

impl Tape {
    fn new(input: u64, bytes: usize) -> Self {
        Self { buffers: vec![(input, bytes as u64)], held: Vec::new(), steps: Vec::new(), flaw: None }
    }

    fn push(&mut self, step: Step) {
        let places: Option<Vec<Place>> =
            step.addresses().into_iter().map(|address| self.place(address)).collect();
        match places {
            Some(places) => self.steps.push((step, places)),
            None => {
                self.flaw.get_or_insert_with(|| {
                    format!(
                        "launch {} takes a tensor that is neither of this batch nor constant",
                        self.steps.len()
                    )
                });
            }
        }
    }

    fn place(&self, address: u64) -> Option<Place> {
        let within = |start: u64, bytes: u64| (start..start + bytes).contains(&address);
        // Constants are alive: whatever else had their memory is gone.
        if address == 0 || self.held.iter().any(|(_, start, bytes)| within(*start, *bytes)) {
            return Some(Place::Fixed(address));
        }
        // Memory that was freed is given out again: the latest buffer is the one that is alive.
        let index = self.buffers.iter().rposition(|(start, bytes)| within(*start, *bytes))?;
        Some(Place::Buffer { index, offset: address - self.buffers[index].0 })
    }

    /// Why there can be no graph of this run.
    pub(super) fn flaw(&self) -> Option<&str> {
        self.flaw.as_deref()
    }

    /// Which buffer begins at an address, the latest of them.
    pub(super) fn buffer_at(&self, address: u64) -> Option<usize> {
        self.buffers.iter().rposition(|(start, _)| *start == address)
    }

    /// How long each buffer is in use; `output` to the end.
    pub(super) fn lifetimes(&self, output: usize) -> Vec<Lifetime> {
        let mut lifetimes: Vec<Lifetime> =
            self.buffers.iter().map(|_| Lifetime { bytes: 0, first: usize::MAX, last: 0 }).collect();
        // The input is there before the first step.
        lifetimes[0] = Lifetime { bytes: self.buffers[0].1 as usize, first: 0, last: 0 };
        for (number, (_, places)) in self.steps.iter().enumerate() {
            for place in places {
                if let Place::Buffer { index, .. } = place {
                    let life = &mut lifetimes[*index];
                    // What no step uses takes no room.
                    life.bytes = self.buffers[*index].1 as usize;
                    life.first = life.first.min(number);
                    life.last = life.last.max(number);
                }
            }
        }
        lifetimes[output].last = self.steps.len();
        lifetimes
    }

    /// The launches with buffers at these addresses.
    pub(super) fn moved(&self, buffers: &[u64]) -> impl Iterator<Item = Step> {
        self.steps.iter().map(|(step, places)| {
            let addresses: Vec<u64> = places
                .iter()
                .map(|place| match place {
                    Place::Fixed(address) => *address,
                    Place::Buffer { index, offset } => buffers[*index] + offset,
                })
                .collect();
            step.at(&addresses)
        })
    }

    /// The constants, which must live as long as the launches are repeated.
    pub(super) fn into_constants(self) -> Vec<Tensor> {
        self.held.into_iter().map(|(tensor, ..)| tensor).collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::ops::cuda::lt::{Fused, product};

    fn multiply(x: u64, weight: u64, y: u64) -> Step {
        Step::Product {
            product: product((4, 4, 4), DType::F32, Fused::Nothing),
            operands: Operands { x, weight, bias: 0, residual: 0, y },
            algorithm: Algorithm::default(),
        }
    }

    /// Weights at 9000, input at 1000; two products, the second over the first's memory, which was freed and given out again.
    fn tape() -> Tape {
        let mut tape = Tape::new(1000, 64);
        let weight = Tensor::zeros((4, 4), DType::F32, &Device::Cpu).unwrap();
        tape.held.push((weight, 9000, 64));
        tape.buffers.push((2000, 64));
        tape.push(multiply(1000, 9000, 2000));
        tape.buffers.push((3000, 64));
        tape.push(multiply(2000, 9000, 3000));
        tape.buffers.push((2000, 32));
        tape.push(multiply(3000, 9016, 2000));
        tape
    }

    #[test]
    fn addresses_are_traced_to_the_buffer_that_is_alive() {
        let tape = tape();
        assert_eq!(tape.flaw(), None);
        assert_eq!(tape.buffer_at(2000), Some(3));
        let places: Vec<&[Place]> = tape.steps.iter().map(|(_, places)| places.as_slice()).collect();
        assert_eq!(places[0][4], Place::Buffer { index: 1, offset: 0 });
        assert_eq!(places[1][0], Place::Buffer { index: 1, offset: 0 });
        assert_eq!(places[2][4], Place::Buffer { index: 3, offset: 0 });
        assert_eq!(places[2][1], Place::Fixed(9016));
        assert_eq!(places[2][2], Place::Fixed(0));
    }

    #[test]
    fn lifetimes_span_first_and_last_use() {
        let life = |bytes, first, last| Lifetime { bytes, first, last };
        assert_eq!(tape().lifetimes(3), [life(64, 0, 0), life(64, 0, 1), life(64, 1, 2), life(32, 2, 3)]);
    }

    #[test]
    fn launches_move_with_their_buffers() {
        let steps: Vec<Step> = tape().moved(&[10, 20, 30, 40]).collect();
        assert_eq!(steps[0].addresses(), [10, 9000, 0, 0, 20]);
        assert_eq!(steps[2].addresses(), [30, 9016, 0, 0, 40]);
    }

    #[test]
    fn an_unknown_address_is_a_flaw() {
        let mut tape = tape();
        tape.push(multiply(5000, 9000, 2000));
        assert!(tape.flaw().unwrap().starts_with("launch 3 takes"));
    }

    #[test]
    fn a_recording_ends_with_its_guard() {
        let recording = record(1000, 64);
        made(2000, 8);
        assert_eq!(recording.finish().unwrap().buffers, [(1000, 64), (2000, 8)]);
        drop(record(1000, 64));
        step(|| unreachable!("nothing is recorded"));
    }
}
