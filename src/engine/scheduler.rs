//! The lanes of every model behind one lock, and who is woken when.
//!
//! The lock is held to move items between queues, never to prepare, compute or answer. Whoever takes
//! something and leaves more behind wakes the next one, so that one wake-up an event is enough.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::EngineConfig;
use super::lane::{Budget, Lane, LaneState, Ready, Waiting};
use super::metrics::LaneMetrics;
use super::request::{Request, Ticket};

pub(super) struct Scheduler {
    state: Mutex<State>,
    max_decode_bytes: usize,
    /// Preparation threads of each lane wait here.
    to_prepare: [Condvar; 2],
    /// Workers of each model wait here.
    to_embed: Vec<Condvar>,
    /// Workers of replicas that fail wait here: what wakes a worker must reach one that takes the batch.
    paused: Condvar,
}

struct State {
    models: Vec<Model>,
    /// The model whose turn it is in the preparation of each lane.
    next_model: [usize; 2],
    decode_bytes: usize,
    closed: bool,
}

struct Model {
    lanes: [LaneState; 2],
    /// The lane that the last batch came from.
    last: Lane,
}

/// An input on a preparation thread: its share of the bounds, given back when dropped.
pub(super) struct Preparing<'a> {
    scheduler: &'a Scheduler,
    model: usize,
    lane: Lane,
    tokens: usize,
    decode_bytes: usize,
    released: bool,
}

/// A batch as it was taken; some of it may be dead. Empty only where the wait for one was bounded.
pub(super) struct Batch {
    pub(super) lane: Lane,
    pub(super) items: Vec<Ready>,
}

impl Scheduler {
    /// `metrics` has the two lanes of every model, `workers` the number of its workers.
    pub(super) fn new(metrics: &[[Arc<LaneMetrics>; 2]], workers: &[usize], config: &EngineConfig) -> Self {
        let lane = |metrics: &Arc<LaneMetrics>, workers: usize| {
            let ahead = config.max_batch_tokens.saturating_mul(workers.saturating_add(1));
            let budget = Budget::new(config.max_batch_tokens, config.oom_backoff);
            LaneState::new(ahead, budget, Arc::clone(metrics))
        };
        let models = metrics
            .iter()
            .zip(workers)
            .map(|([images, texts], &workers)| Model {
                lanes: [lane(images, workers), lane(texts, workers)],
                last: Lane::Texts,
            })
            .collect();
        Self {
            state: Mutex::new(State { models, next_model: [0; 2], decode_bytes: 0, closed: false }),
            max_decode_bytes: config.max_decode_bytes,
            to_prepare: [Condvar::new(), Condvar::new()],
            to_embed: metrics.iter().map(|_| Condvar::new()).collect(),
            paused: Condvar::new(),
        }
    }

    /// Queues the inputs of a request; gives them back if the engine has stopped.
    pub(super) fn enqueue(&self, model: usize, items: Vec<(Lane, Waiting)>) -> Result<(), Vec<Ticket>> {
        let mut state = self.state();
        if state.closed {
            return Err(items.into_iter().map(|(_, item)| item.ticket).collect());
        }
        let mut lanes = [false; 2];
        for (lane, item) in items {
            lanes[lane as usize] = true;
            state.models[model].lanes[lane as usize].push_waiting(item);
        }
        drop(state);
        for lane in Lane::ALL {
            if lanes[lane as usize] {
                self.to_prepare[lane as usize].notify_one();
            }
        }
        Ok(())
    }

    /// Waits for the next input of a lane to prepare, of the models in turn; `None` at the end.
    pub(super) fn next_to_prepare(&self, lane: Lane) -> Option<(Waiting, Preparing<'_>)> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some((model, item)) = state.pop_waiting(lane, self.max_decode_bytes) {
                if state.choose(lane, self.max_decode_bytes).is_some() {
                    self.to_prepare[lane as usize].notify_one();
                }
                let (tokens, decode_bytes) = (item.tokens, item.decode_bytes);
                let place = Preparing { scheduler: self, model, lane, tokens, decode_bytes, released: false };
                return Some((item, place));
            }
            state = wait(&self.to_prepare[lane as usize], state);
        }
    }

    /// Waits for a batch of a model; `None` at the end. Lanes that both have something ready take
    /// turns. `cost` counts the tokens of an item. An empty batch if nothing came for `patience`.
    pub(super) fn next_batch(
        &self,
        model: usize,
        cost: &mut dyn FnMut(&Ready) -> usize,
        patience: Option<Duration>,
    ) -> Option<Batch> {
        let give_up = patience.map(|patience| Instant::now() + patience);
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            let Model { lanes, last } = &mut state.models[model];
            let turn = [last.other(), *last].into_iter().find(|&lane| lanes[lane as usize].has_ready());
            if let Some(lane) = turn {
                *last = lane;
                let items = lanes[lane as usize].pop_batch(Instant::now(), cost);
                if lanes.iter().any(LaneState::has_ready) {
                    self.to_embed[model].notify_one();
                }
                drop(state);
                self.to_prepare[lane as usize].notify_one();
                return Some(Batch { lane, items });
            }
            let Some(give_up) = give_up else {
                state = wait(&self.to_embed[model], state);
                continue;
            };
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(Batch { lane: *last, items: Vec::new() });
            }
            let waited = self.to_embed[model].wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits so long; `false` if the end came before.
    pub(super) fn pause(&self, patience: Duration) -> bool {
        let waited = self.paused.wait_timeout_while(self.state(), patience, |state| !state.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Batches of so many tokens did not fit on the device.
    pub(super) fn shrink(&self, model: usize, lane: Lane, tokens: usize) {
        self.state().models[model].lanes[lane as usize].budget.shrink(tokens, Instant::now());
    }

    /// Drops what a request has queued: nobody waits for it.
    pub(super) fn forget(&self, model: usize, request: &Arc<Request>) {
        let mut state = self.state();
        let tickets: Vec<Ticket> =
            state.models[model].lanes.iter_mut().flat_map(|lane| lane.forget(request)).collect();
        drop(state);
        if !tickets.is_empty() {
            // Room among what is ready.
            self.to_prepare.iter().for_each(Condvar::notify_one);
        }
        tickets.into_iter().for_each(Ticket::bury);
    }

    /// Ends the threads once they are done with what they have, and stops what is queued.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let lanes = state.models.iter_mut().flat_map(|model| &mut model.lanes);
        let tickets: Vec<Ticket> = lanes.flat_map(LaneState::clear).collect();
        drop(state);
        self.to_prepare.iter().chain(&self.to_embed).chain([&self.paused]).for_each(Condvar::notify_all);
        tickets.into_iter().for_each(Ticket::stop);
    }

    /// Bytes of pixels on the preparation threads.
    pub(super) fn decode_bytes(&self) -> usize {
        self.state().decode_bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The model whose input of this lane is to be prepared next. A picture too large for the
    /// pixels in flight holds up the others, or it would never have its turn.
    fn choose(&self, lane: Lane, max_decode_bytes: usize) -> Option<usize> {
        let count = self.models.len();
        let turns = (0..count).map(|i| (self.next_model[lane as usize] + i) % count);
        let ready = |model: usize| Some((model, self.models[model].lanes[lane as usize].peek_waiting()?));
        let (model, next) = turns.filter_map(ready).next()?;
        let fits = self.decode_bytes == 0
            || next.decode_bytes == 0
            || self.decode_bytes.saturating_add(next.decode_bytes) <= max_decode_bytes;
        fits.then_some(model)
    }

    fn pop_waiting(&mut self, lane: Lane, max_decode_bytes: usize) -> Option<(usize, Waiting)> {
        let model = self.choose(lane, max_decode_bytes)?;
        let item = self.models[model].lanes[lane as usize].pop_waiting()?;
        self.decode_bytes += item.decode_bytes;
        self.next_model[lane as usize] = (model + 1) % self.models.len();
        Some((model, item))
    }
}

impl Preparing<'_> {
    /// Index of the model.
    pub(super) fn model(&self) -> usize {
        self.model
    }

    /// Puts the prepared input where the workers find it.
    pub(super) fn done(mut self, item: Ready) {
        let mut state = self.scheduler.state();
        self.release(&mut state);
        // Under the lock: whoever left before was not found in a queue, whoever leaves later will be.
        let dead = item.ticket.is_dead(Instant::now());
        if state.closed || dead {
            drop(state);
            self.scheduler.to_prepare[self.lane as usize].notify_one();
            return if dead { item.ticket.bury() } else { item.ticket.stop() };
        }
        state.models[self.model].lanes[self.lane as usize].push_ready(item);
        drop(state);
        self.scheduler.to_embed[self.model].notify_one();
        self.scheduler.to_prepare[self.lane as usize].notify_one();
    }

    fn release(&mut self, state: &mut State) {
        self.released = true;
        state.decode_bytes -= self.decode_bytes;
        state.models[self.model].lanes[self.lane as usize].release(self.tokens);
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        if !self.released {
            let scheduler = self.scheduler;
            self.release(&mut scheduler.state());
            scheduler.to_prepare[self.lane as usize].notify_one();
        }
    }
}

fn wait<'a>(condvar: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condvar.wait(state).unwrap_or_else(PoisonError::into_inner)
}
