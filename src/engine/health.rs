//! Whether a model works. A device that is lost shows as batches that fail whole, one after the other.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::Result;

/// After so many whole batches failed in a row the model is tried with inputs that are known to be good: what clients
/// send must not be able to take the service out.
const SUSPICIOUS: usize = 3;
/// How often a model that failed is tried again while nothing is asked of it.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// What the batches of one model say about it.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures: AtomicUsize,
    failing: AtomicBool,
}

impl Health {
    /// Whether the model failed on inputs that are known to be good, and has not worked since.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// After a batch: `worked` if at least one input came out, `probe` computes known inputs.
    pub(super) fn after_batch(&self, name: &str, worked: bool, probe: impl FnOnce() -> Result<()>) {
        if worked {
            self.works(name);
        } else if self.failures.fetch_add(1, Ordering::AcqRel) + 1 >= SUSPICIOUS && !self.is_failing() {
            self.probe(name, probe);
        }
    }

    /// Finds out by known inputs.
    pub(super) fn probe(&self, name: &str, probe: impl FnOnce() -> Result<()>) {
        match probe() {
            Ok(()) => self.works(name),
            Err(error) => {
                if !self.failing.swap(true, Ordering::AcqRel) {
                    tracing::error!(model = name, %error, "the model fails on every batch: not ready until it works again");
                }
            }
        }
    }

    fn works(&self, name: &str) {
        self.failures.store(0, Ordering::Release);
        if self.failing.swap(false, Ordering::AcqRel) {
            tracing::info!(model = name, "the model works again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineError;

    fn broken() -> Result<()> {
        Err(EngineError::Worker("an illegal memory access was encountered".to_owned()).into())
    }

    #[test]
    fn inputs_that_fail_are_not_a_model_that_fails() {
        let health = Health::default();
        for _ in 0..10 {
            health.after_batch("m", false, || Ok(()));
        }
        assert!(!health.is_failing());
    }

    #[test]
    fn a_model_that_fails_on_known_inputs_is_failing_until_it_works() {
        let health = Health::default();
        health.after_batch("m", false, || unreachable!("one failure says nothing"));
        health.after_batch("m", false, || unreachable!("nor do two"));
        health.after_batch("m", true, || unreachable!("it worked"));
        for _ in 0..2 {
            health.after_batch("m", false, || unreachable!("counted from the start again"));
        }
        health.after_batch("m", false, broken);
        assert!(health.is_failing());
        health.probe("m", broken);
        assert!(health.is_failing());
        health.probe("m", || Ok(()));
        assert!(!health.is_failing());
    }
}
