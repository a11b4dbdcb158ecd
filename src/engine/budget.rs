//! How many tokens a batch may have: as many as take a given time, fewer for a while after the device ran out of memory.

use std::time::{Duration, Instant};

/// Weight of a measurement against those before.
const WEIGHT: f64 = 0.3;
/// However slow the device is, a batch of several inputs may have so many tokens.
const LEAST: usize = 64;

/// The token budget of the batches of one lane.
pub(super) struct BatchBudget {
    most: usize,
    /// How long a batch should take, where that bounds it.
    time: Option<Duration>,
    seconds_per_token: Option<f64>,
    /// What `time` allows, at most `most`.
    full: usize,
    now: usize,
    backoff: Duration,
    grows_at: Option<Instant>,
}

impl BatchBudget {
    /// At most `most` tokens, and no more than take `time`, once that is measured. After running out of memory the
    /// budget stays small for `backoff`, then doubles.
    pub(super) fn new(most: usize, time: Option<Duration>, backoff: Duration) -> Self {
        let most = most.max(1);
        Self { most, time, seconds_per_token: None, full: most, now: most, backoff, grows_at: None }
    }

    /// Tokens of a batch that is made now.
    pub(super) fn tokens(&mut self, now: Instant) -> usize {
        if self.grows_at.is_some_and(|at| at <= now) {
            self.now = self.now.saturating_mul(2).min(self.full);
            self.grows_at = (self.now < self.full).then(|| now + self.backoff);
        }
        self.now
    }

    /// The same at the last look.
    pub(super) fn last(&self) -> usize {
        self.now
    }

    /// Whether the time per token bounds a batch and is not known yet.
    pub(super) fn is_unmeasured(&self) -> bool {
        self.time.is_some() && self.seconds_per_token.is_none()
    }

    /// So many tokens took that long.
    pub(super) fn measured(&mut self, tokens: usize, took: Duration) {
        let Some(time) = self.time else { return };
        if tokens == 0 || took.is_zero() {
            return;
        }
        let measured = took.as_secs_f64() / tokens as f64;
        let seconds_per_token = match self.seconds_per_token {
            None => measured,
            // A small batch takes longer per token than a full one: it says something only if it was faster.
            Some(before) if tokens.saturating_mul(2) < self.now && measured > before => return,
            Some(before) => before + WEIGHT * (measured - before),
        };
        self.seconds_per_token = Some(seconds_per_token);
        // A float that is too large becomes the largest integer.
        let fits = (time.as_secs_f64() / seconds_per_token).round() as usize;
        self.full = fits.max(LEAST).min(self.most);
        self.now = if self.grows_at.is_some() { self.now.min(self.full) } else { self.full };
    }

    /// So many tokens did not fit on the device.
    pub(super) fn shrink(&mut self, tokens: usize, now: Instant) {
        self.now = self.now.min(tokens / 2).max(1);
        self.grows_at = Some(now + self.backoff);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_budget_is_small_for_a_while_and_grows_back() {
        let start = Instant::now();
        let mut budget = BatchBudget::new(1000, None, SECOND * 60);
        budget.shrink(800, start);
        assert_eq!(budget.tokens(start + SECOND * 59), 400);
        assert_eq!(budget.tokens(start + SECOND * 60), 800);
        assert_eq!(budget.tokens(start + SECOND * 119), 800);
        assert_eq!(budget.tokens(start + SECOND * 120), 1000);
        assert_eq!(budget.tokens(start + SECOND * 1000), 1000);
        budget.shrink(1, start);
        assert_eq!(budget.tokens(start), 1, "never nothing");
    }

    #[test]
    fn a_batch_has_as_many_tokens_as_its_time_allows() {
        let now = Instant::now();
        let mut budget = BatchBudget::new(4096, Some(SECOND / 4), SECOND * 60);
        assert_eq!(budget.tokens(now), 4096, "nothing was measured");
        // A picture of 196 tokens in 50 ms: 980 tokens in a quarter of a second.
        budget.measured(196, SECOND / 20);
        assert_eq!(budget.tokens(now), 980);
        // A small batch that was slower says nothing, one that was faster does.
        budget.measured(196, SECOND / 10);
        assert_eq!(budget.tokens(now), 980);
        for _ in 0..50 {
            budget.measured(980, SECOND / 8);
        }
        assert!((1950..=1960).contains(&budget.tokens(now)), "{}", budget.tokens(now));
        for _ in 0..50 {
            budget.measured(1960, SECOND / 1000);
        }
        assert_eq!(budget.tokens(now), 4096, "never more than the most");
        for _ in 0..50 {
            budget.measured(4096, SECOND * 60);
        }
        assert_eq!(budget.tokens(now), LEAST, "nor so few that nothing shares a batch");
    }

    #[test]
    fn without_a_time_the_budget_is_what_was_asked_for() {
        let mut budget = BatchBudget::new(500, None, SECOND);
        budget.measured(500, SECOND * 10);
        assert_eq!(budget.tokens(Instant::now()), 500);
    }

    #[test]
    fn a_measurement_does_not_undo_what_memory_taught() {
        let now = Instant::now();
        let mut budget = BatchBudget::new(4096, Some(SECOND), SECOND * 60);
        budget.shrink(800, now);
        budget.measured(400, SECOND / 100);
        assert_eq!(budget.tokens(now), 400);
    }
}
