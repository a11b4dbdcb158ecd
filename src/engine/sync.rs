//! Locks, condition variables and threads of the engine: those of the standard library, or under the feature
//! `model-check` those of shuttle, which tries many interleavings of them (`tests/model-check`).

use std::sync::PoisonError;
use std::time::Duration;

#[cfg(feature = "model-check")]
pub(super) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};
#[cfg(not(feature = "model-check"))]
pub(super) use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

/// Locks. Nothing that is kept behind these locks is left half changed by a panic, so poison says nothing.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits to be notified; may wake up without.
pub(super) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// Waits to be notified, but no longer than `timeout`, which shuttle does not know: there it waits for ever.
pub(super) fn wait_for<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
}

/// Whether a thread has ended, as far as that is known without joining it.
pub(super) fn is_finished(thread: &JoinHandle<()>) -> bool {
    #[cfg(feature = "model-check")]
    {
        let _ = thread;
        false
    }
    #[cfg(not(feature = "model-check"))]
    thread.is_finished()
}

/// Starts a named thread.
///
/// # Panics
/// If the system gives no thread.
pub(super) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name(name).spawn(body).expect("the system gives a thread")
}
