//! One lane of one model: what waits for preparation, what is ready, and how much of it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::budget::BatchBudget;
use super::cache::TextKey;
use super::fair::FairQueue;
use super::job::Class;
use super::metrics::LaneMetrics;
use super::request::{Request, Ticket};
use super::views::FoundSlot;
use crate::image::{Patches, ViewOptions};
use crate::model::PatchVectors;
use crate::text::TokenIds;

/// An input as it was sent.
pub(super) enum Work {
    Image {
        bytes: Bytes,
        max_num_patches: Option<usize>,
        patches: Option<PatchVectors>,
    },
    /// A picture of which views are embedded; the rest of what was found out about it goes into the slot.
    Views {
        bytes: Bytes,
        views: ViewOptions,
        max_num_patches: Option<usize>,
        found: FoundSlot,
    },
    Text(Arc<TextKey>),
}

/// An input that waits for a preparation thread.
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    /// Of what it becomes beside the first: the other views of a picture.
    pub(super) others: Vec<Ticket>,
    pub(super) work: Work,
    /// Tokens that it will become, at most.
    pub(super) tokens: usize,
    /// Bytes of its pixels while it is prepared.
    pub(super) decode_bytes: usize,
}

impl Waiting {
    /// The tickets of everything that it becomes.
    pub(super) fn into_tickets(self) -> impl Iterator<Item = Ticket> {
        std::iter::once(self.ticket).chain(self.others)
    }
}

/// An input that the model takes as it is.
pub(super) enum Prepared {
    /// With what is wanted of each patch.
    Image(Patches, Option<PatchVectors>),
    Text(TokenIds, Arc<TextKey>),
}

/// An input that waits for a worker.
pub(super) struct Ready {
    pub(super) ticket: Ticket,
    pub(super) prepared: Prepared,
}

impl Ready {
    /// Tokens that it takes in a batch.
    pub(super) fn tokens(&self) -> usize {
        match &self.prepared {
            Prepared::Image(patches, _) => patches.grid.len(),
            Prepared::Text(ids, _) => ids.ids.len(),
        }
    }
}

/// The queues of a lane, for each class.
pub(super) struct LaneState {
    classes: [ClassQueues; 2],
    workers: usize,
    pub(super) budget: BatchBudget,
    metrics: Arc<LaneMetrics>,
}

/// What one class has in a lane. The classes are bounded apart, so that background work which is ready keeps no
/// interactive input from being prepared.
struct ClassQueues {
    waiting: FairQueue<Waiting>,
    ready: FairQueue<Ready>,
    /// Tokens in `ready` and on preparation threads.
    prepared_tokens: usize,
}

impl ClassQueues {
    fn new() -> Self {
        Self { waiting: FairQueue::new(), ready: FairQueue::new(), prepared_tokens: 0 }
    }

    /// The next input to prepare, if it fits within `ahead` tokens.
    fn peek_waiting(&self, ahead: usize) -> Option<&Waiting> {
        let next = self.waiting.peek()?;
        (self.prepared_tokens == 0 || self.prepared_tokens + next.tokens <= ahead).then_some(next)
    }

    fn take_out(&mut self, waiting: Vec<Waiting>, ready: Vec<Ready>) -> Vec<Ticket> {
        self.prepared_tokens -= ready.iter().map(Ready::tokens).sum::<usize>();
        waiting
            .into_iter()
            .flat_map(Waiting::into_tickets)
            .chain(ready.into_iter().map(|item| item.ticket))
            .collect()
    }
}

impl LaneState {
    /// A lane whose batches `workers` threads compute.
    pub(super) fn new(workers: usize, budget: BatchBudget, metrics: Arc<LaneMetrics>) -> Self {
        Self { classes: [ClassQueues::new(), ClassQueues::new()], workers, budget, metrics }
    }

    pub(super) fn push_waiting(&mut self, item: Waiting) {
        self.classes[item.ticket.class() as usize].waiting.push(item.ticket.client(), item);
        self.show_depth();
    }

    /// The next input to prepare, if as much may be ready at once. Background work only where there is no interactive
    /// work to prepare.
    pub(super) fn peek_waiting(&self) -> Option<&Waiting> {
        // Upper bound of `prepared_tokens`: one batch per worker plus one.
        let ahead = self.budget.last().saturating_mul(self.workers.saturating_add(1));
        self.classes.iter().find_map(|class| class.peek_waiting(ahead))
    }

    /// Takes what [`LaneState::peek_waiting`] showed and reserves its tokens.
    pub(super) fn pop_waiting(&mut self) -> Option<Waiting> {
        let class = self.peek_waiting()?.ticket.class() as usize;
        let item = self.classes[class].waiting.pop()?;
        self.classes[class].prepared_tokens += item.tokens;
        self.show_depth();
        Some(item)
    }

    /// Gives back what [`LaneState::pop_waiting`] reserved.
    pub(super) fn release(&mut self, class: Class, tokens: usize) {
        self.classes[class as usize].prepared_tokens -= tokens;
    }

    pub(super) fn push_ready(&mut self, item: Ready) {
        let class = &mut self.classes[item.ticket.class() as usize];
        class.prepared_tokens += item.tokens();
        class.ready.push(item.ticket.client(), item);
        self.show_depth();
    }

    /// Tokens that are computed, at most, before the last of `own` that a client queues now and waits for.
    pub(super) fn ahead_of(&self, client: u64, own: u64) -> u64 {
        let class = &self.classes[Class::Interactive as usize];
        class.waiting.ahead_of(client, own) + class.ready.ahead_of(client, own)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.classes.iter().all(|class| class.waiting.is_empty() && class.ready.is_empty())
    }

    pub(super) fn has_ready(&self, class: Class) -> bool {
        !self.classes[class as usize].ready.is_empty()
    }

    /// Takes a batch of one class: in turn over the clients, at least one, else up to the budget as `cost` counts
    /// tokens. What is dead is taken and costs nothing.
    pub(super) fn pop_batch(
        &mut self,
        class: Class,
        now: Instant,
        cost: &mut dyn FnMut(&Ready) -> usize,
    ) -> Vec<Ready> {
        let budget = self.budget.tokens(now);
        let class = &mut self.classes[class as usize];
        let (mut batch, mut used) = (Vec::new(), 0);
        while let Some(next) = class.ready.peek() {
            let tokens = if next.ticket.is_dead(now) { 0 } else { cost(next) };
            if used > 0 && used + tokens > budget {
                break;
            }
            used += tokens;
            let Some(item) = class.ready.pop() else { break };
            class.prepared_tokens -= item.tokens();
            batch.push(item);
        }
        self.show_depth();
        batch
    }

    /// Takes out what belongs to a request that nobody waits for.
    pub(super) fn forget(&mut self, request: &Arc<Request>) -> Vec<Ticket> {
        let class = &mut self.classes[request.class as usize];
        let waiting = class.waiting.remove(request.client, |item| item.ticket.belongs_to(request));
        let ready = class.ready.remove(request.client, |item| item.ticket.belongs_to(request));
        let tickets = class.take_out(waiting, ready);
        self.show_depth();
        tickets
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<Ticket> {
        let clear = |class: &mut ClassQueues| {
            let (waiting, ready) = (class.waiting.clear(), class.ready.clear());
            class.take_out(waiting, ready)
        };
        let tickets = self.classes.iter_mut().flat_map(clear).collect();
        self.show_depth();
        tickets
    }

    fn show_depth(&self) {
        let depth: usize = self.classes.iter().map(|class| class.waiting.len() + class.ready.len()).sum();
        self.metrics.queue_depth.set(depth as f64);
    }
}
