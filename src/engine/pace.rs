//! How fast a lane of a model is, and whether a request can be finished before its deadline.

use std::time::Duration;

/// Batches that must have been measured before anything is refused.
const ENOUGH: u32 = 3;
/// How much of the difference to a slower measurement is believed. Small batches are slower for each token than full
/// ones, so that a slow one says little and a fast one much: the estimate is of a busy lane.
const SLOWER: f64 = 0.05;
/// Only what would take this much longer than there is time is refused: estimates are not that good.
const MARGIN: f64 = 1.5;

/// Tokens a second of the workers of a lane, each for itself.
#[derive(Debug, Default)]
pub(super) struct Pace {
    tokens_per_second: f64,
    batches: u32,
}

/// Whether a request can be finished in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// As far as is known.
    InTime,
    /// Not behind what is queued now: about so many of its inputs would be, all of them after a while.
    Busy { fits: usize, wait: Duration },
    /// Not even alone: about so many of its inputs would be.
    Never { fits: usize },
}

/// What a request wants of a model, in tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    pub(super) inputs: usize,
    pub(super) own: u64,
    /// What is computed before the last of it.
    pub(super) ahead: u64,
}

impl Pace {
    /// A worker computed so many tokens in that time.
    pub(super) fn measured(&mut self, tokens: usize, took: Duration) {
        if tokens == 0 || took.is_zero() {
            return;
        }
        let measured = tokens as f64 / took.as_secs_f64();
        self.batches = self.batches.saturating_add(1);
        if measured >= self.tokens_per_second {
            self.tokens_per_second = measured;
        } else {
            self.tokens_per_second += SLOWER * (measured - self.tokens_per_second);
        }
    }

    /// How a request does with `workers` at once, if it has `left` of the `allowed` time.
    pub(super) fn outlook(
        &self,
        demand: Demand,
        workers: usize,
        left: Duration,
        allowed: Duration,
    ) -> Outlook {
        if self.batches < ENOUGH || demand.inputs == 0 {
            return Outlook::InTime;
        }
        let rate = self.tokens_per_second * workers.max(1) as f64;
        let seconds = |tokens: u64| tokens as f64 / rate;
        let mean = demand.own.max(1) as f64 / demand.inputs as f64;
        let fits = |time: f64| ((time.max(0.0) * rate / mean) as usize).min(demand.inputs - 1);
        let (left, allowed) = (left.as_secs_f64(), allowed.as_secs_f64());
        if seconds(demand.own) > allowed * MARGIN {
            Outlook::Never { fits: fits(allowed) }
        } else if seconds(demand.own + demand.ahead) > left * MARGIN {
            let wait = Duration::try_from_secs_f64(seconds(demand.ahead)).unwrap_or(Duration::MAX);
            Outlook::Busy { fits: fits(left - seconds(demand.ahead)), wait }
        } else {
            Outlook::InTime
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn measured() -> Pace {
        let mut pace = Pace::default();
        (0..ENOUGH).for_each(|_| pace.measured(1000, SECOND));
        pace
    }

    fn demand(inputs: usize, own: u64, ahead: u64) -> Demand {
        Demand { inputs, own, ahead }
    }

    #[test]
    fn nothing_is_refused_before_enough_is_known() {
        let mut pace = Pace::default();
        pace.measured(1, SECOND * 100);
        let outlook = pace.outlook(demand(10, 1_000_000, 0), 1, SECOND, SECOND);
        assert_eq!(outlook, Outlook::InTime);
    }

    #[test]
    fn what_cannot_be_finished_is_told_with_what_would_fit() {
        let pace = measured();
        let minute = SECOND * 60;
        // 300 pictures of 1,000 tokens each take 300 s.
        assert_eq!(pace.outlook(demand(300, 300_000, 0), 1, minute, minute), Outlook::Never { fits: 60 });
        assert_eq!(pace.outlook(demand(300, 300_000, 0), 8, minute, minute), Outlook::InTime);
        // 50 of them do, but not behind 80 others.
        let busy = pace.outlook(demand(50, 50_000, 80_000), 1, minute, minute);
        assert_eq!(busy, Outlook::Busy { fits: 0, wait: SECOND * 80 });
        let busy = pace.outlook(demand(80, 80_000, 20_000), 1, minute, minute);
        assert_eq!(busy, Outlook::Busy { fits: 40, wait: SECOND * 20 });
        // A little too much is tried.
        assert_eq!(pace.outlook(demand(80, 80_000, 0), 1, minute, minute), Outlook::InTime);
    }

    #[test]
    fn slow_batches_say_little_and_fast_ones_much() {
        let mut pace = measured();
        pace.measured(10, SECOND);
        let minute = SECOND * 60;
        assert_eq!(pace.outlook(demand(80, 80_000, 0), 1, minute, minute), Outlook::InTime);
        pace.measured(100_000, SECOND);
        assert_eq!(pace.outlook(demand(300, 300_000, 0), 1, minute, minute), Outlook::InTime);
    }
}
