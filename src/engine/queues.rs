//! The queues of one model behind one lock, and who is woken when.
//!
//! The lock is held to move items between queues, never to prepare, compute or answer. Whoever takes something and
//! leaves more behind wakes the next one, so one `notify_one` per event is enough.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::EngineConfig;
use super::job::Lane;
use super::lane::{Budget, LaneState, Ready, Waiting};
use super::metrics::LaneMetrics;
use super::request::{Request, Ticket};
use super::sync::{Condvar, Mutex, MutexGuard, lock, wait, wait_for};

pub(super) struct ModelQueues {
    state: Mutex<State>,
    /// Workers wait here for something ready.
    ready: Condvar,
    /// Workers of failing replicas wait here, kept apart from `ready`: a wake-up must not go to a worker that will not
    /// take the batch.
    paused: Condvar,
}

struct State {
    lanes: [LaneState; 2],
    /// The lane that the last batch came from.
    last: Lane,
    /// Counts how often the towers were loaded: workers of an earlier generation end.
    generation: u64,
    /// Inputs on preparation threads.
    preparing: usize,
    /// Batches on workers.
    running: usize,
    closed: bool,
}

/// A batch as it was taken; some of it may be dead. Empty only where the wait for one was bounded.
pub(super) struct Batch {
    pub(super) lane: Lane,
    pub(super) items: Vec<Ready>,
}

impl ModelQueues {
    /// The queues of a model that `workers` threads compute, with batches of up to `batch_tokens`.
    pub(super) fn new(
        metrics: &[Arc<LaneMetrics>; 2],
        workers: usize,
        batch_tokens: usize,
        config: &EngineConfig,
    ) -> Self {
        let lane = |metrics: &Arc<LaneMetrics>| {
            let ahead = batch_tokens.saturating_mul(workers.saturating_add(1));
            LaneState::new(ahead, Budget::new(batch_tokens, config.oom_backoff), Arc::clone(metrics))
        };
        let state = State {
            lanes: [lane(&metrics[0]), lane(&metrics[1])],
            last: Lane::Texts,
            generation: 0,
            preparing: 0,
            running: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), ready: Condvar::new(), paused: Condvar::new() }
    }

    /// Queues the inputs of a request for preparation and says which lanes have more now; gives them back if the
    /// queues are closed.
    pub(super) fn enqueue(&self, items: Vec<(Lane, Waiting)>) -> Result<[bool; 2], Vec<Ticket>> {
        let mut state = self.state();
        if state.closed {
            return Err(items.into_iter().map(|(_, item)| item.ticket).collect());
        }
        let mut lanes = [false; 2];
        for (lane, item) in items {
            lanes[lane as usize] = true;
            state.lane(lane).push_waiting(item);
        }
        Ok(lanes)
    }

    /// Bytes of pixels that the next input to prepare needs; `None` if nothing is to be prepared now.
    pub(super) fn next_decode_bytes(&self, lane: Lane) -> Option<usize> {
        self.state().lane(lane).peek_waiting().map(|item| item.decode_bytes)
    }

    /// Takes the input of [`Self::next_decode_bytes`] and reserves its tokens until [`Self::prepared`].
    pub(super) fn pop_waiting(&self, lane: Lane) -> Option<Waiting> {
        let mut state = self.state();
        let item = state.lane(lane).pop_waiting()?;
        state.preparing += 1;
        Some(item)
    }

    /// Gives back the tokens that were reserved for an input, and queues what it became, if anything, for the workers.
    pub(super) fn prepared(&self, lane: Lane, reserved: usize, item: Option<Ready>) {
        let mut state = self.state();
        state.preparing -= 1;
        state.lane(lane).release(reserved);
        let Some(item) = item else { return };
        // Under the lock: whoever left before was not found in a queue, whoever leaves later will be.
        let dead = item.ticket.is_dead(Instant::now());
        if state.closed || dead {
            drop(state);
            return if dead { item.ticket.answer_dead() } else { item.ticket.stop() };
        }
        state.lane(lane).push_ready(item);
        drop(state);
        self.ready.notify_one();
    }

    /// Waits for a batch; `None` once the queues are closed or the towers of `generation` are to go. Lanes that both
    /// have something ready take turns. `cost` counts the tokens of an item. An empty batch if nothing came for
    /// `patience`. A batch with items is running until [`Self::finished`].
    pub(super) fn next_batch(
        &self,
        generation: u64,
        cost: &mut dyn FnMut(&Ready) -> usize,
        patience: Option<Duration>,
    ) -> Option<Batch> {
        let give_up = patience.map(|patience| Instant::now() + patience);
        let mut state = self.state();
        loop {
            if state.is_over(generation) {
                return None;
            }
            let last = state.last;
            let turn = [last.other(), last].into_iter().find(|&lane| state.lane(lane).has_ready());
            if let Some(lane) = turn {
                state.last = lane;
                let items = state.lane(lane).pop_batch(Instant::now(), cost);
                state.running += 1;
                let more = state.lanes.iter().any(LaneState::has_ready);
                drop(state);
                if more {
                    self.ready.notify_one();
                }
                return Some(Batch { lane, items });
            }
            let Some(give_up) = give_up else {
                state = wait(&self.ready, state);
                continue;
            };
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(Batch { lane: last, items: Vec::new() });
            }
            state = wait_for(&self.ready, state, left);
        }
    }

    /// A batch of [`Self::next_batch`] is done with.
    pub(super) fn finished(&self) {
        self.state().running -= 1;
    }

    /// Waits for `patience`; `false` if the workers of `generation` are to end.
    pub(super) fn pause(&self, generation: u64, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_over(generation) {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            state = wait_for(&self.paused, state, left);
        }
    }

    /// Batches of so many tokens did not fit on the device.
    pub(super) fn shrink(&self, lane: Lane, tokens: usize) {
        self.state().lane(lane).budget.shrink(tokens, Instant::now());
    }

    /// Takes out what a request has queued.
    pub(super) fn forget(&self, request: &Arc<Request>) -> Vec<Ticket> {
        self.state().lanes.iter_mut().flat_map(|lane| lane.forget(request)).collect()
    }

    /// Takes nothing any more, ends the workers once they are done with what they have, and takes out what waits.
    pub(super) fn close(&self) -> Vec<Ticket> {
        let mut state = self.state();
        state.closed = true;
        let tickets = state.lanes.iter_mut().flat_map(LaneState::clear).collect();
        drop(state);
        self.wake_all();
        tickets
    }

    /// Ends the workers once they are done with what they have, and gives the number of the next generation. What
    /// waits stays.
    pub(super) fn next_generation(&self) -> u64 {
        let mut state = self.state();
        state.generation += 1;
        let generation = state.generation;
        drop(state);
        self.wake_all();
        generation
    }

    /// Whether nothing waits, is prepared or computed.
    pub(super) fn is_idle(&self) -> bool {
        let state = self.state();
        state.preparing == 0 && state.running == 0 && state.lanes.iter().all(LaneState::is_empty)
    }

    fn wake_all(&self) {
        self.ready.notify_all();
        self.paused.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[lane as usize]
    }

    fn is_over(&self, generation: u64) -> bool {
        self.closed || self.generation != generation
    }
}
