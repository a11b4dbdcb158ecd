//! Freed memory goes back to the system.

/// Asks the allocator to give back what is free. Large models leave gigabytes behind that it would keep for a while, in
/// each of the threads that read their weights.
pub(super) fn give_back() {
    // A model checker has threads of its own.
    if cfg!(not(feature = "model-check")) {
        collect();
        rayon::broadcast(|_| collect());
    }
}

fn collect() {
    // SAFETY: it has no preconditions. Where mimalloc is not the program's allocator, as in tests, it holds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
