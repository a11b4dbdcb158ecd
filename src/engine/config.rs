//! What bounds the engine.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Bounds and sizes of the engine. Every queue has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineConfig {
    /// Inputs in the engine at once, over all models: waiting, in preparation, and in a batch.
    pub max_queue_items: usize,
    /// Bytes that those inputs hold while they wait: the files as they were sent, and the patches
    /// or token ids that they become.
    pub max_queue_bytes: usize,
    /// Bytes of decoded pixels on the preparation threads at once. A picture that needs more than
    /// all of it is decoded alone.
    pub max_decode_bytes: usize,
    /// Tokens of one batch, in either lane. An input with more than that makes a batch of its own.
    pub max_batch_tokens: usize,
    /// Threads that decode and resize pictures.
    pub prepare_threads: usize,
    /// Threads that canonicalise and tokenise texts; apart, so that no text waits behind a JPEG.
    pub tokenize_threads: usize,
    /// Worker threads of each model. The model's own threads come on top.
    pub workers_per_model: usize,
    /// Bytes of the cache of text embeddings, over all models; 0 for none.
    pub cache_bytes: usize,
    /// How long the smaller batches last that an out-of-memory error led to; then the budget is
    /// doubled, until it is whole again.
    pub oom_backoff: Duration,
    /// Whether each model runs one batch in each lane before [`Engine::ready`](super::Engine::ready).
    pub warm_up: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(4, NonZeroUsize::get);
        Self {
            max_queue_items: 2048,
            max_queue_bytes: 1 << 30,
            max_decode_bytes: 1 << 30,
            max_batch_tokens: 4096,
            prepare_threads: cores,
            tokenize_threads: (cores / 4).max(1),
            workers_per_model: 1,
            cache_bytes: 64 << 20,
            oom_backoff: Duration::from_secs(60),
            warm_up: true,
        }
    }
}
