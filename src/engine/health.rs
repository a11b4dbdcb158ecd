//! Whether the towers on one device work. A lost device shows as batches that fail whole, one after the other.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::Result;
use super::sync::{Mutex, lock};

/// After so many whole batches failed in a row the towers are tried with inputs that are known to be good: what clients
/// send must not be able to take the service out.
const SUSPICIOUS: usize = 3;

/// What the batches of one replica say about it.
#[derive(Debug)]
pub(super) struct Health {
    failures: AtomicUsize,
    verdict: Mutex<Verdict>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// It has computed nothing yet.
    Cold,
    Works,
    /// It failed on inputs that are known to be good, and has not worked since.
    Failing(String),
}

impl Health {
    /// `cold` if it is to be tried before it counts as working.
    pub(super) fn new(cold: bool) -> Self {
        let verdict = if cold { Verdict::Cold } else { Verdict::Works };
        Self { failures: AtomicUsize::new(0), verdict: Mutex::new(verdict) }
    }

    /// Whether it has computed nothing yet.
    pub(super) fn is_cold(&self) -> bool {
        *self.verdict() == Verdict::Cold
    }

    /// Whether it failed on inputs that are known to be good, and has not worked since.
    pub(super) fn is_failing(&self) -> bool {
        matches!(*self.verdict(), Verdict::Failing(_))
    }

    /// Why it fails, if it does.
    pub(super) fn failure(&self) -> Option<String> {
        match &*self.verdict() {
            Verdict::Failing(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// After a batch: `worked` if its vectors could be used, `probe` computes known inputs; at once where another replica
    /// takes the work meanwhile (`spare`). `true` if the verdict has changed.
    pub(super) fn after_batch(
        &self,
        name: &str,
        worked: bool,
        spare: bool,
        probe: impl FnOnce() -> Result<()>,
    ) -> bool {
        if worked {
            return self.works(name);
        }
        let suspicious = self.failures.fetch_add(1, Ordering::AcqRel) + 1 >= SUSPICIOUS || spare;
        suspicious && !self.is_failing() && self.probe(name, probe)
    }

    /// Finds out by known inputs. `true` if the verdict has changed.
    pub(super) fn probe(&self, name: &str, probe: impl FnOnce() -> Result<()>) -> bool {
        match probe() {
            Ok(()) => self.works(name),
            Err(error) => {
                let before = std::mem::replace(&mut *self.verdict(), Verdict::Failing(error.to_string()));
                let changed = !matches!(before, Verdict::Failing(_));
                if changed {
                    tracing::error!(model = name, %error, "the model fails on known inputs; it is tried again every few seconds");
                }
                changed
            }
        }
    }

    fn works(&self, name: &str) -> bool {
        self.failures.store(0, Ordering::Release);
        let before = std::mem::replace(&mut *self.verdict(), Verdict::Works);
        if matches!(before, Verdict::Failing(_)) {
            tracing::info!(model = name, "the model works again");
        }
        before != Verdict::Works
    }

    fn verdict(&self) -> super::sync::MutexGuard<'_, Verdict> {
        lock(&self.verdict)
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
        let health = Health::new(false);
        for _ in 0..10 {
            assert!(!health.after_batch("m", false, false, || Ok(())));
        }
        assert!(!health.is_failing());
    }

    #[test]
    fn a_model_that_fails_on_known_inputs_is_failing_until_it_works() {
        let health = Health::new(false);
        health.after_batch("m", false, false, || unreachable!("one failure says nothing"));
        health.after_batch("m", false, false, || unreachable!("nor do two"));
        health.after_batch("m", true, false, || unreachable!("it worked"));
        for _ in 0..2 {
            health.after_batch("m", false, false, || unreachable!("counted from the start again"));
        }
        assert!(health.after_batch("m", false, false, broken));
        assert!(health.is_failing() && health.failure().unwrap().contains("illegal memory"));
        assert!(!health.probe("m", broken), "nothing new");
        assert!(health.is_failing());
        assert!(health.probe("m", || Ok(())));
        assert!(!health.is_failing() && health.failure().is_none());
        health.after_batch("m", false, true, broken);
        assert!(health.is_failing(), "with a spare one failure is enough to look");
    }

    #[test]
    fn a_warm_up_that_fails_is_a_failed_probe() {
        let health = Health::new(true);
        assert!(health.is_cold() && !health.is_failing());
        health.probe("m", broken);
        assert!(!health.is_cold() && health.is_failing());
        health.probe("m", || Ok(()));
        assert!(!health.is_cold() && !health.is_failing());
    }
}
