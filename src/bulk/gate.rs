//! The memory of what is read ahead: the reader waits until what came before is done with.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A number of bytes that may be held at once.
pub(super) struct Gate {
    most: u64,
    held: Mutex<u64>,
    freed: Condvar,
}

/// Bytes that are held. Dropping it gives them back.
pub(super) struct Permit {
    gate: Arc<Gate>,
    bytes: u64,
}

impl Gate {
    pub(super) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, held: Mutex::new(0), freed: Condvar::new() })
    }

    /// Waits until there is room for `bytes`. What needs more than all of it gets all of it, alone.
    pub(super) fn acquire(self: &Arc<Self>, bytes: u64) -> Permit {
        let bytes = bytes.min(self.most);
        let mut held = self.held();
        while *held + bytes > self.most {
            held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        *held += bytes;
        Permit { gate: Arc::clone(self), bytes }
    }

    fn held(&self) -> MutexGuard<'_, u64> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Holds `bytes` more, for which it waits. All together get no more than there is.
    pub(super) fn grow(&mut self, bytes: u64) {
        let more = bytes.min(self.gate.most - self.bytes);
        let mut other = self.gate.acquire(more);
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.gate.held() -= self.bytes;
        self.gate.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_does_not_fit_waits_until_something_is_given_back() {
        let gate = Gate::new(100);
        let (first, second) = (gate.acquire(60), gate.acquire(40));
        let through = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let permit = gate.acquire(50);
                through.store(true, Ordering::SeqCst);
                permit
            });
            drop(second);
            std::thread::sleep(Duration::from_millis(20));
            assert!(!through.load(Ordering::SeqCst), "40 bytes are free");
            drop(first);
            drop(waiting.join().unwrap());
        });
        // More than all of it gets all of it.
        drop(gate.acquire(1000));
        let mut permit = gate.acquire(60);
        permit.grow(30);
        assert_eq!(*gate.held(), 90);
        permit.grow(1000);
        assert_eq!(*gate.held(), 100);
        drop(permit);
        assert_eq!(*gate.held(), 0);
    }
}
