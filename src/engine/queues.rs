//! The queues of one model behind one lock, and who is woken when.
//!
//! The lock is held to move items between queues, never to prepare, compute or answer. Whoever takes something and
//! leaves more behind wakes the next one, so one `notify_one` per event is enough. Who takes something between the layers of
//! a batch wakes nobody: a worker that was woken for it looks again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::EngineConfig;
use super::budget::BatchBudget;
use super::fair::FairQueue;
use super::job::{Class, Lane};
use super::lane::{LaneState, Ready, Waiting};
use super::metrics::LaneMetrics;
use super::pace::{Demand, Outlook, Pace};
use super::request::{Request, Ticket};
use super::scoring::{ScoreJob, Waiter};
use super::sync::{Condvar, Mutex, MutexGuard, lock, wait, wait_for};
use super::turns::{Kind, Turns};
use crate::pipeline::DeviceKind;

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
    scores: FairQueue<ScoreJob>,
    /// Batches that a replica took and could not compute, for the others.
    handed_on: VecDeque<HandedOn>,
    /// Of each class.
    turns: [Turns; 2],
    /// How fast each lane is.
    pace: [Pace; 2],
    workers: usize,
    /// Counts how often the towers were loaded: workers of an earlier generation end.
    generation: u64,
    /// Inputs on preparation threads.
    preparing: usize,
    /// Batches and scoring jobs on workers.
    running: usize,
    closed: bool,
}

/// What a worker does next. It is running until [`ModelQueues::finished`].
pub(super) enum Work {
    Batch(Batch),
    Scores(ScoreJob),
}

/// Inputs of one lane and class; some may be dead.
pub(super) struct Batch {
    pub(super) lane: Lane,
    pub(super) class: Class,
    pub(super) items: Vec<Ready>,
    /// Another replica has failed on it.
    pub(super) retried: bool,
}

/// A batch that is not for the replica that it comes from, while another works.
struct HandedOn {
    from: usize,
    batch: Batch,
}

/// The worker that asks for work.
pub(super) struct Taker<'a> {
    /// Of its towers, see [`ModelQueues::next_generation`].
    pub(super) generation: u64,
    /// Its replica.
    pub(super) replica: usize,
    /// Whether another replica works.
    pub(super) another_works: &'a dyn Fn() -> bool,
}

impl ModelQueues {
    /// The queues of a model on such a device that `workers` threads compute.
    pub(super) fn new(
        metrics: &[Arc<LaneMetrics>; 2],
        workers: usize,
        device: DeviceKind,
        config: &EngineConfig,
    ) -> Self {
        let lane = |metrics: &Arc<LaneMetrics>| {
            let (tokens, time) = (config.batch_tokens_on(device), config.batch_time_on(device));
            LaneState::new(workers, BatchBudget::new(tokens, time, config.oom_backoff), Arc::clone(metrics))
        };
        let state = State {
            lanes: [lane(&metrics[0]), lane(&metrics[1])],
            scores: FairQueue::new(),
            handed_on: VecDeque::new(),
            turns: [Turns::default(), Turns::default()],
            pace: Default::default(),
            workers,
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
            return Err(items.into_iter().flat_map(|(_, item)| item.into_tickets()).collect());
        }
        let mut lanes = [false; 2];
        for (lane, item) in items {
            lanes[lane as usize] = true;
            state.lane(lane).push_waiting(item);
        }
        Ok(lanes)
    }

    /// Bytes of pixels that the next input to prepare needs, and the client they are for; `None` if nothing is to be
    /// prepared now.
    pub(super) fn next_decode_bytes(&self, lane: Lane) -> Option<(usize, u64)> {
        self.state().lane(lane).peek_waiting().map(|item| (item.decode_bytes, item.ticket.client()))
    }

    /// Takes the input of [`Self::next_decode_bytes`] and reserves its tokens until [`Self::prepared`].
    pub(super) fn pop_waiting(&self, lane: Lane) -> Option<Waiting> {
        let mut state = self.state();
        let item = state.lane(lane).pop_waiting()?;
        state.preparing += 1;
        Some(item)
    }

    /// Gives back the tokens that were reserved for an input, and queues what it became, if anything, for the workers. All
    /// of it is of one request.
    pub(super) fn prepared(&self, lane: Lane, class: Class, reserved: usize, items: Vec<Ready>) {
        let mut state = self.state();
        state.preparing -= 1;
        state.lane(lane).release(class, reserved);
        let Some(first) = items.first() else { return };
        // Under the lock: whoever left before was not found in a queue, whoever leaves later will be.
        let dead = first.ticket.is_dead(Instant::now());
        if state.closed || dead {
            drop(state);
            let end = if dead { Ticket::answer_dead } else { Ticket::stop };
            return items.into_iter().for_each(|item| end(item.ticket));
        }
        items.into_iter().for_each(|item| state.lane(lane).push_ready(item));
        drop(state);
        self.ready.notify_one();
    }

    /// Queues a scoring job; gives it back if the queues are closed.
    pub(super) fn enqueue_scores(&self, job: ScoreJob) -> Result<(), Box<ScoreJob>> {
        let mut state = self.state();
        if state.closed {
            return Err(Box::new(job));
        }
        state.scores.push(job.client, job);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for work; `None` once the queues are closed or the taker's towers are to go. What another replica handed on
    /// comes first. `cost` counts the tokens of an item. `Some(None)` if nothing came for `patience`.
    pub(super) fn next(
        &self,
        taker: &Taker<'_>,
        cost: &mut dyn FnMut(&Ready) -> usize,
        patience: Option<Duration>,
    ) -> Option<Option<Work>> {
        let give_up = patience.map(|patience| Instant::now() + patience);
        let mut state = self.state();
        loop {
            if state.is_over(taker.generation) {
                return None;
            }
            if let Some(work) = state.take_handed_on(taker).or_else(|| state.take(cost)) {
                state.running += 1;
                let more = state.has_work();
                drop(state);
                if more {
                    self.ready.notify_one();
                }
                return Some(Some(work));
            }
            let Some(give_up) = give_up else {
                state = wait(&self.ready, state);
                continue;
            };
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(None);
            }
            state = wait_for(&self.ready, state, left);
        }
    }

    /// What may be done before a batch of this kind and class goes on, which has kept its worker busy for `busy` since
    /// it was asked last: anything interactive before background work, what is usually shorter before interactive pictures,
    /// as turns have it. Never waits.
    pub(super) fn between(
        &self,
        generation: u64,
        (kind, class): (Kind, Class),
        busy: Duration,
        cost: &mut dyn FnMut(&Ready) -> usize,
    ) -> Option<Work> {
        let mut state = self.state();
        state.turns[class as usize].used(kind, busy);
        if state.is_over(generation) {
            return None;
        }
        let work = match class {
            Class::Background => state.take_of(Class::Interactive, None, cost),
            Class::Interactive => state.take_of(Class::Interactive, Some(kind), cost),
        }?;
        state.running += 1;
        Some(work)
    }

    /// Gives a batch that a replica took to the others; its own workers take it back only if no other works any more.
    pub(super) fn hand_on(&self, from: usize, batch: Batch) {
        let mut state = self.state();
        if state.closed {
            drop(state);
            return batch.items.into_iter().for_each(|item| item.ticket.stop());
        }
        state.handed_on.push_back(HandedOn { from, batch });
        drop(state);
        // Not every worker may take it.
        self.wake_all();
    }

    /// Work of [`Self::next`] is done with; it took so long.
    pub(super) fn finished(&self, kind: Kind, class: Class, took: Duration) {
        let mut state = self.state();
        state.running -= 1;
        state.turns[class as usize].used(kind, took);
    }

    /// Waits for `patience`, or until no other replica works; `false` if the taker's towers are to go.
    pub(super) fn pause(&self, taker: &Taker<'_>, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.state();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_over(taker.generation) {
                return false;
            }
            if left.is_zero() || !(taker.another_works)() {
                return true;
            }
            state = wait_for(&self.paused, state, left);
        }
    }

    /// Something changed that waiting workers look at: which replicas work.
    pub(super) fn wake_workers(&self) {
        // The lock is taken so that no worker is between its look and its wait.
        drop(self.state());
        self.wake_all();
    }

    /// Batches of so many tokens did not fit on the device.
    pub(super) fn shrink(&self, lane: Lane, tokens: usize) {
        self.state().lane(lane).budget.shrink(tokens, Instant::now());
    }

    /// Whether batches follow from a time per token that is not known yet.
    pub(super) fn is_unmeasured(&self) -> bool {
        self.state().lanes.iter().any(|lane| lane.budget.is_unmeasured())
    }

    /// A batch of so many tokens took that long.
    pub(super) fn measured(&self, lane: Lane, tokens: usize, took: Duration) {
        let mut state = self.state();
        state.lane(lane).budget.measured(tokens, took);
        state.pace[lane as usize].measured(tokens, took);
    }

    /// Whether `inputs` of `own` tokens, queued now by a client that waits for the answer, are finished in what is `left`
    /// of the `allowed` time.
    pub(super) fn outlook(
        &self,
        lane: Lane,
        client: u64,
        (inputs, own): (usize, u64),
        left: Duration,
        allowed: Duration,
    ) -> Outlook {
        let mut state = self.state();
        let ahead = state.lane(lane).ahead_of(client, own);
        let workers = state.workers;
        state.pace[lane as usize].outlook(Demand { inputs, own, ahead }, workers, left, allowed)
    }

    /// Takes out what a request has queued.
    pub(super) fn forget(&self, request: &Arc<Request>) -> Vec<Ticket> {
        let mut state = self.state();
        let mut tickets: Vec<Ticket> = state.lanes.iter_mut().flat_map(|lane| lane.forget(request)).collect();
        for handed_on in &mut state.handed_on {
            let items = &mut handed_on.batch.items;
            let gone = items.extract_if(.., |item| item.ticket.belongs_to(request));
            tickets.extend(gone.map(|item| item.ticket));
        }
        state.handed_on.retain(|handed_on| !handed_on.batch.items.is_empty());
        tickets
    }

    /// Takes out every input that waits.
    pub(super) fn clear(&self) -> Vec<Ticket> {
        self.state().clear()
    }

    /// Takes out every scoring job that waits.
    pub(super) fn clear_scores(&self) -> Vec<ScoreJob> {
        self.state().scores.clear()
    }

    /// Takes out the scoring job that nobody waits for any more.
    pub(super) fn forget_scores(&self, client: u64, waiter: &Arc<Waiter>) -> Vec<ScoreJob> {
        self.state().scores.remove(client, |job| job.belongs_to(waiter))
    }

    /// Takes nothing any more, ends the workers once they are done with what they have, and takes out what waits.
    pub(super) fn close(&self) -> Vec<Ticket> {
        let mut state = self.state();
        state.closed = true;
        let tickets = state.clear();
        let scores = state.scores.clear();
        drop(state);
        // Whoever waits for them notices.
        drop(scores);
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
        self.state().is_idle()
    }

    /// As [`Self::close`], if nothing waits, is prepared or computed: what comes after that look is not taken.
    pub(super) fn close_if_idle(&self) -> bool {
        let mut state = self.state();
        let idle = state.is_idle();
        state.closed |= idle;
        drop(state);
        if idle {
            self.wake_all();
        }
        idle
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

    fn is_idle(&self) -> bool {
        self.preparing == 0
            && self.running == 0
            && self.scores.is_empty()
            && self.handed_on.is_empty()
            && self.lanes.iter().all(LaneState::is_empty)
    }

    fn has_work(&self) -> bool {
        !self.scores.is_empty() || self.lanes.iter().any(|lane| Class::ALL.iter().any(|&c| lane.has_ready(c)))
    }

    /// The work whose turn it is, if there is any; background work only where there is no other. A batch is of one
    /// class: filled up with background work, one of interactive inputs would take longer.
    fn take(&mut self, cost: &mut dyn FnMut(&Ready) -> usize) -> Option<Work> {
        Class::ALL.into_iter().find_map(|class| self.take_of(class, None, cost))
    }

    /// Work of a class. If a batch of the kind `running` has not ended, nothing comes where it is that kind's turn.
    fn take_of(
        &mut self,
        class: Class,
        running: Option<Kind>,
        cost: &mut dyn FnMut(&Ready) -> usize,
    ) -> Option<Work> {
        let Self { lanes, scores, turns, .. } = self;
        let has_ready = |kind| match kind {
            Kind::Images => lanes[Lane::Images as usize].has_ready(class),
            Kind::Texts => lanes[Lane::Texts as usize].has_ready(class),
            Kind::Scores => class == Class::Interactive && !scores.is_empty(),
        };
        if running
            .is_some_and(|running| Kind::ALL.into_iter().all(|kind| kind == running || !has_ready(kind)))
        {
            return None;
        }
        let kind = turns[class as usize].choose(|kind| running == Some(kind) || has_ready(kind))?;
        if running == Some(kind) {
            return None;
        }
        let mut batch = |lane: Lane| {
            let items = lanes[lane as usize].pop_batch(class, Instant::now(), cost);
            Work::Batch(Batch { lane, class, items, retried: false })
        };
        match kind {
            Kind::Images => Some(batch(Lane::Images)),
            Kind::Texts => Some(batch(Lane::Texts)),
            Kind::Scores => scores.pop().map(Work::Scores),
        }
    }

    fn take_handed_on(&mut self, taker: &Taker<'_>) -> Option<Work> {
        let is_takers = |handed_on: &HandedOn| handed_on.from != taker.replica || !(taker.another_works)();
        let at = self.handed_on.iter().position(is_takers)?;
        self.handed_on.remove(at).map(|handed_on| Work::Batch(handed_on.batch))
    }

    fn clear(&mut self) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = self.lanes.iter_mut().flat_map(LaneState::clear).collect();
        let handed_on = self.handed_on.drain(..).flat_map(|handed_on| handed_on.batch.items);
        tickets.extend(handed_on.map(|item| item.ticket));
        tickets
    }

    fn is_over(&self, generation: u64) -> bool {
        self.closed || self.generation != generation
    }
}
