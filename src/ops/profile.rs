//! Where the time of the processor's operations goes, while someone asks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static ON: AtomicBool = AtomicBool::new(false);
static FOUND: Mutex<BTreeMap<String, Operation>> = Mutex::new(BTreeMap::new());

/// All calls of one kind of operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Operation {
    /// How many.
    pub calls: u64,
    /// From begin to end of each, added up: tasks on other threads are waited for.
    pub time: Duration,
    /// Multiplications of the matrix products, each with an addition.
    pub multiplications: u64,
}

/// Runs `run` and counts it under a name, if [`of`] is asking.
pub(super) fn timed<T>(name: impl FnOnce() -> String, multiplications: usize, run: impl FnOnce() -> T) -> T {
    if !ON.load(Ordering::Relaxed) {
        return run();
    }
    let started = Instant::now();
    let result = run();
    let time = started.elapsed();
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let operation = found.entry(name()).or_default();
    operation.calls += 1;
    operation.time += time;
    operation.multiplications += multiplications as u64;
    result
}

/// Runs `run`, and says what the processor's operations did meanwhile, in this process as a whole: by name, the longest
/// first. There is nothing to say of a GPU.
pub fn of<T>(run: impl FnOnce() -> T) -> (T, Vec<(String, Operation)>) {
    /// One at a time, whatever happens to it.
    static TURN: Mutex<()> = Mutex::new(());
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            ON.store(false, Ordering::Relaxed);
        }
    }

    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    FOUND.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let off = Off;
    ON.store(true, Ordering::Relaxed);
    let result = run();
    drop(off);
    let found = std::mem::take(&mut *FOUND.lock().unwrap_or_else(PoisonError::into_inner));
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|(_, operation)| std::cmp::Reverse(operation.time));
    (result, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_counted_while_someone_asks() {
        // Other tests may run operations meanwhile; none is called so.
        let name = || "a test's own".to_owned();
        let mine = |found: &[(String, Operation)]| found.iter().find(|(n, _)| *n == name()).map(|(_, o)| *o);
        assert_eq!(timed(name, 5, || 1), 1);
        let (result, found) = of(|| timed(name, 7, || 2) + timed(name, 8, || 3));
        let operation = mine(&found).expect("it was counted");
        assert_eq!((result, operation.calls, operation.multiplications), (5, 2, 15));
        assert_eq!(mine(&of(|| ()).1), None);
    }
}
