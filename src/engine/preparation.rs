//! Which input the preparation threads take next: the models in turn, within the bytes that may be decoded at once.
//!
//! The threads are shared by all models. Lock order: this pool's, then a model's queues; never the other way. Whoever
//! makes something preparable (a new input, room among what is ready, freed pixels) calls [`Preparation::wake`]
//! afterwards, without a lock of the queues.

use std::sync::Arc;

use super::job::{Class, Lane};
use super::lane::{Ready, Waiting};
use super::runtime::ModelRuntime;
use super::sync::{Condvar, Mutex, MutexGuard, lock, wait};
use crate::budget::{Charge, MemoryBudget, MemoryKind};

pub(super) struct Preparation {
    state: Mutex<State>,
    /// Threads of each lane wait here.
    threads: [Condvar; 2],
    max_decode_bytes: usize,
    memory: MemoryBudget,
}

struct State {
    models: Vec<Arc<ModelRuntime>>,
    /// The model whose turn it is, in each lane.
    next: [usize; 2],
    /// Bytes of pixels on the threads.
    decode_bytes: usize,
    closed: bool,
}

/// An input on a preparation thread: its share of the bounds, given back when dropped.
pub(super) struct Preparing<'a> {
    pool: &'a Preparation,
    pub(super) model: Arc<ModelRuntime>,
    lane: Lane,
    class: Class,
    tokens: usize,
    decode_bytes: usize,
    charge: Option<Charge>,
    released: bool,
}

impl Preparation {
    pub(super) fn new(max_decode_bytes: usize, memory: MemoryBudget) -> Self {
        let state = State { models: Vec::new(), next: [0; 2], decode_bytes: 0, closed: false };
        Self { state: Mutex::new(state), threads: [Condvar::new(), Condvar::new()], max_decode_bytes, memory }
    }

    /// Prepares for this model too.
    pub(super) fn add(&self, model: Arc<ModelRuntime>) {
        self.state().models.push(model);
        Lane::ALL.into_iter().for_each(|lane| self.wake(lane));
    }

    /// Prepares no longer for this model.
    pub(super) fn remove(&self, model: &Arc<ModelRuntime>) {
        self.state().models.retain(|known| !Arc::ptr_eq(known, model));
    }

    /// Every model that inputs are prepared for.
    pub(super) fn models(&self) -> Vec<Arc<ModelRuntime>> {
        self.state().models.clone()
    }

    /// Waits for the next input of a lane; `None` once the pool is closed.
    pub(super) fn next(&self, lane: Lane) -> Option<(Waiting, Preparing<'_>)> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some((model, item)) = state.pop(lane, self) {
                if state.choose(lane, self).is_some() {
                    self.threads[lane as usize].notify_one();
                }
                let class = item.ticket.class();
                let (tokens, decode_bytes) = (item.tokens, item.decode_bytes);
                let charge = self.memory.charge(item.ticket.client(), MemoryKind::Decode, decode_bytes).ok();
                let preparing = Preparing {
                    pool: self,
                    model,
                    lane,
                    class,
                    tokens,
                    decode_bytes,
                    charge,
                    released: false,
                };
                return Some((item, preparing));
            }
            state = wait(&self.threads[lane as usize], state);
        }
    }

    /// Something of this lane may be preparable now.
    pub(super) fn wake(&self, lane: Lane) {
        // The lock is taken so that no thread is between its look at the queues and its wait.
        drop(self.state());
        self.threads[lane as usize].notify_one();
    }

    /// Ends the threads once they are done with what they have; gives the models that were prepared for.
    pub(super) fn close(&self) -> Vec<Arc<ModelRuntime>> {
        let mut state = self.state();
        state.closed = true;
        let models = std::mem::take(&mut state.models);
        drop(state);
        self.threads.iter().for_each(Condvar::notify_all);
        models
    }

    /// Bytes of pixels on the threads.
    pub(super) fn decode_bytes(&self) -> usize {
        self.state().decode_bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// The model whose input of this lane is to be prepared next. A picture too large for the pixels in flight holds
    /// up the others, or it would never have its turn.
    fn choose(&self, lane: Lane, pool: &Preparation) -> Option<usize> {
        let count = self.models.len();
        let turns = (0..count).map(|i| (self.next[lane as usize] + i) % count);
        let preparable = |index: usize| Some((index, self.models[index].queues.next_decode_bytes(lane)?));
        let (index, (bytes, client)) = turns.filter_map(preparable).next()?;
        // Alone it goes in any case, or it would wait for memory that nobody gives back.
        let fits = self.decode_bytes == 0
            || bytes == 0
            || (self.decode_bytes.saturating_add(bytes) <= pool.max_decode_bytes
                && pool.memory.check(client, bytes).is_ok());
        fits.then_some(index)
    }

    fn pop(&mut self, lane: Lane, pool: &Preparation) -> Option<(Arc<ModelRuntime>, Waiting)> {
        loop {
            let index = self.choose(lane, pool)?;
            let model = Arc::clone(&self.models[index]);
            // It may have been forgotten since; then there may be another.
            let Some(item) = model.queues.pop_waiting(lane) else { continue };
            self.decode_bytes += item.decode_bytes;
            self.next[lane as usize] = (index + 1) % self.models.len();
            return Some((model, item));
        }
    }
}

impl Preparing<'_> {
    /// Puts what the input became where the workers find it.
    pub(super) fn done(mut self, items: Vec<Ready>) {
        self.release(items);
    }

    fn release(&mut self, items: Vec<Ready>) {
        if std::mem::replace(&mut self.released, true) {
            return;
        }
        self.charge = None;
        self.pool.state().decode_bytes -= self.decode_bytes;
        self.model.queues.prepared(self.lane, self.class, self.tokens, items);
        self.pool.wake(self.lane);
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        self.release(Vec::new());
    }
}
