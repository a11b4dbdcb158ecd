//! One lane of one model: what waits for preparation, what is ready, and how much of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cache::TextKey;
use super::fair::FairQueue;
use super::metrics::LaneMetrics;
use super::request::{Request, Ticket};
use crate::image::Patches;
use crate::text::TokenIds;

/// An input as it was sent.
pub(super) enum Work {
    Image { bytes: Bytes, max_num_patches: Option<usize> },
    Text(Arc<TextKey>),
}

/// An input that waits for a preparation thread.
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) work: Work,
    /// Tokens that it will become, at most.
    pub(super) tokens: usize,
    /// Bytes of its pixels while it is prepared.
    pub(super) decode_bytes: usize,
}

/// An input that the model takes as it is.
pub(super) enum Prepared {
    Image(Patches),
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
            Prepared::Image(patches) => patches.grid.len(),
            Prepared::Text(ids, _) => ids.ids.len(),
        }
    }
}

/// Both queues of a lane.
pub(super) struct LaneState {
    waiting: FairQueue<Waiting>,
    ready: FairQueue<Ready>,
    /// Tokens in `ready` and on preparation threads.
    prepared_tokens: usize,
    /// Upper bound of `prepared_tokens`: one batch per worker plus one.
    ahead: usize,
    pub(super) budget: Budget,
    metrics: Arc<LaneMetrics>,
}

impl LaneState {
    pub(super) fn new(ahead: usize, budget: Budget, metrics: Arc<LaneMetrics>) -> Self {
        Self {
            waiting: FairQueue::new(),
            ready: FairQueue::new(),
            prepared_tokens: 0,
            ahead,
            budget,
            metrics,
        }
    }

    pub(super) fn push_waiting(&mut self, item: Waiting) {
        self.waiting.push(item.ticket.client(), item);
        self.show_depth();
    }

    /// The next input to prepare, if as much may be ready at once.
    pub(super) fn peek_waiting(&self) -> Option<&Waiting> {
        let next = self.waiting.peek()?;
        (self.prepared_tokens == 0 || self.prepared_tokens + next.tokens <= self.ahead).then_some(next)
    }

    /// Takes what [`LaneState::peek_waiting`] showed and reserves its tokens.
    pub(super) fn pop_waiting(&mut self) -> Option<Waiting> {
        let item = self.waiting.pop()?;
        self.prepared_tokens += item.tokens;
        self.show_depth();
        Some(item)
    }

    /// Gives back what [`LaneState::pop_waiting`] reserved.
    pub(super) fn release(&mut self, tokens: usize) {
        self.prepared_tokens -= tokens;
    }

    pub(super) fn push_ready(&mut self, item: Ready) {
        self.prepared_tokens += item.tokens();
        self.ready.push(item.ticket.client(), item);
        self.show_depth();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_empty()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes a batch: in turn over the clients, at least one, else up to the budget as `cost`
    /// counts tokens. What is dead is taken and costs nothing.
    pub(super) fn pop_batch(&mut self, now: Instant, cost: &mut dyn FnMut(&Ready) -> usize) -> Vec<Ready> {
        let budget = self.budget.tokens(now);
        let (mut batch, mut used) = (Vec::new(), 0);
        while let Some(next) = self.ready.peek() {
            let tokens = if next.ticket.is_dead(now) { 0 } else { cost(next) };
            if used > 0 && used + tokens > budget {
                break;
            }
            used += tokens;
            let Some(item) = self.ready.pop() else { break };
            self.prepared_tokens -= item.tokens();
            batch.push(item);
        }
        self.show_depth();
        batch
    }

    /// Takes out what belongs to a request that nobody waits for.
    pub(super) fn forget(&mut self, request: &Arc<Request>) -> Vec<Ticket> {
        let waiting = self.waiting.remove(request.client, |item| item.ticket.belongs_to(request));
        let ready = self.ready.remove(request.client, |item| item.ticket.belongs_to(request));
        self.prepared_tokens -= ready.iter().map(Ready::tokens).sum::<usize>();
        self.show_depth();
        waiting.into_iter().map(|item| item.ticket).chain(ready.into_iter().map(|item| item.ticket)).collect()
    }

    /// Takes out everything.
    pub(super) fn clear(&mut self) -> Vec<Ticket> {
        let (waiting, ready) = (self.waiting.clear(), self.ready.clear());
        self.prepared_tokens -= ready.iter().map(Ready::tokens).sum::<usize>();
        self.show_depth();
        waiting.into_iter().map(|item| item.ticket).chain(ready.into_iter().map(|item| item.ticket)).collect()
    }

    fn show_depth(&self) {
        self.metrics.queue_depth.set((self.waiting.len() + self.ready.len()) as f64);
    }
}

/// How many tokens a batch may have: fewer for a while after the device ran out of memory.
pub(super) struct Budget {
    full: usize,
    now: usize,
    backoff: Duration,
    grows_at: Option<Instant>,
}

impl Budget {
    pub(super) fn new(full: usize, backoff: Duration) -> Self {
        let full = full.max(1);
        Self { full, now: full, backoff, grows_at: None }
    }

    pub(super) fn tokens(&mut self, now: Instant) -> usize {
        if self.grows_at.is_some_and(|at| at <= now) {
            self.now = self.now.saturating_mul(2).min(self.full);
            self.grows_at = (self.now < self.full).then(|| now + self.backoff);
        }
        self.now
    }

    /// So many tokens were too many.
    pub(super) fn shrink(&mut self, tokens: usize, now: Instant) {
        self.now = self.now.min(tokens / 2).max(1);
        self.grows_at = Some(now + self.backoff);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_small_for_a_while_and_grows_back() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut budget = Budget::new(1000, second * 60);
        budget.shrink(800, start);
        assert_eq!(budget.tokens(start + second * 59), 400);
        assert_eq!(budget.tokens(start + second * 60), 800);
        assert_eq!(budget.tokens(start + second * 119), 800);
        assert_eq!(budget.tokens(start + second * 120), 1000);
        assert_eq!(budget.tokens(start + second * 1000), 1000);
        budget.shrink(1, start);
        assert_eq!(budget.tokens(start), 1, "never nothing");
    }
}
