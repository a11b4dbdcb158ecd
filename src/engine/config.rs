//! What bounds the engine.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::budget::MemoryBudget;
use crate::pipeline::DeviceKind;

/// Tokens of one batch on a processor.
const CPU_BATCH_TOKENS: usize = 4096;
/// Tokens of one batch on a GPU: 256 pictures of base/16-224, 1024 texts, 89 pictures of so400m/14-384. What a batch works
/// in is then 0.7 GB for base, 1.0 GB for so400m and 1.4 GB for giant-opt in bf16 (at most four tensors of the width and
/// the MLP's are alive at once: 11, 15 and 22 KB per token), beside weights of 0.8 to 3.7 GB: little on any GPU that
/// serves. Where it is too much, the engine halves batches.
const GPU_BATCH_TOKENS: usize = 65_536;
/// Workers of each GPU: while one waits for its batch, the other's bytes go up and its launches queue.
const GPU_WORKERS: usize = 2;

/// Bounds and sizes of the engine. Every queue has one.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Inputs in the engine at once, over all models: waiting, in preparation, and in a batch.
    pub max_queue_items: usize,
    /// Bytes of the patches or token ids that those inputs become, while they wait.
    pub max_queue_bytes: usize,
    /// Bytes of decoded pixels on the preparation threads at once. A picture that needs more than
    /// all of it is decoded alone.
    pub max_decode_bytes: usize,
    /// What waiting inputs and decoded pixels are charged to, with everything else that requests make the process hold.
    /// Only a picture that is decoded alone may exceed it.
    pub memory: MemoryBudget,
    /// Tokens of one batch, in either lane; `None` for what suits the model's device. An input with more than that makes
    /// a batch of its own.
    pub max_batch_tokens: Option<usize>,
    /// How long a batch on a processor should take, where [`Self::max_batch_tokens`] is not given: what comes next waits
    /// for it. The tokens of a batch follow from the measured time per token.
    pub batch_time: Duration,
    /// Threads that decode and resize pictures.
    pub prepare_threads: usize,
    /// Threads that canonicalise and tokenise texts; apart, so that no text waits behind a JPEG.
    pub tokenize_threads: usize,
    /// Worker threads of each replica of a model; `None` for what suits its device. The towers' own threads come on top.
    pub workers_per_replica: Option<usize>,
    /// Bytes of the cache of text embeddings, over all models; 0 for none.
    pub cache_bytes: usize,
    /// How long the smaller batches last that an out-of-memory error led to; then the budget is
    /// doubled, until it is whole again.
    pub oom_backoff: Duration,
    /// Whether each model runs one batch in each lane before [`Engine::ready`](super::Engine::ready).
    pub warm_up: bool,
    /// Towers that nobody has used for so long leave the memory; `None` for never.
    pub idle_unload: Option<Duration>,
    /// Bytes that the towers of all models may take together, as [`Model::memory_bytes`](super::Model::memory_bytes) has
    /// them. Those used least recently make room.
    pub max_model_memory: Option<u64>,
    /// How often towers that failed are tried again while nothing is asked of them.
    pub retry: Duration,
}

impl EngineConfig {
    /// Tokens of one batch on such a device.
    pub fn batch_tokens_on(&self, device: DeviceKind) -> usize {
        self.max_batch_tokens.unwrap_or(match device {
            DeviceKind::Cpu => CPU_BATCH_TOKENS,
            DeviceKind::Cuda => GPU_BATCH_TOKENS,
        })
    }

    /// What bounds the time of one batch on such a device.
    pub fn batch_time_on(&self, device: DeviceKind) -> Option<Duration> {
        (device == DeviceKind::Cpu && self.max_batch_tokens.is_none()).then_some(self.batch_time)
    }

    /// Worker threads of each replica on such a device.
    pub fn workers_on(&self, device: DeviceKind) -> usize {
        let usual = match device {
            DeviceKind::Cpu => 1,
            DeviceKind::Cuda => GPU_WORKERS,
        };
        self.workers_per_replica.unwrap_or(usual).max(1)
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(4, NonZeroUsize::get);
        Self {
            max_queue_items: 2048,
            max_queue_bytes: 1 << 30,
            max_decode_bytes: 1 << 30,
            memory: MemoryBudget::new(usize::MAX),
            max_batch_tokens: None,
            batch_time: Duration::from_millis(250),
            prepare_threads: cores,
            tokenize_threads: (cores / 4).max(1),
            workers_per_replica: None,
            cache_bytes: 64 << 20,
            oom_backoff: Duration::from_secs(60),
            warm_up: true,
            idle_unload: None,
            max_model_memory: None,
            retry: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_larger_on_a_gpu_unless_they_were_given() {
        let sizes = |max_batch_tokens, device| {
            let config = EngineConfig { max_batch_tokens, ..EngineConfig::default() };
            (config.batch_tokens_on(device), config.workers_on(device))
        };
        assert_eq!(sizes(None, DeviceKind::Cpu), (4096, 1));
        assert_eq!(sizes(None, DeviceKind::Cuda), (65_536, 2));
        assert_eq!(sizes(Some(500), DeviceKind::Cuda), (500, 2));
        assert_eq!(sizes(Some(500), DeviceKind::Cpu), (500, 1));
        let time = |max_batch_tokens, device| {
            EngineConfig { max_batch_tokens, ..EngineConfig::default() }.batch_time_on(device)
        };
        assert_eq!(time(None, DeviceKind::Cpu), Some(Duration::from_millis(250)));
        assert_eq!((time(Some(500), DeviceKind::Cpu), time(None, DeviceKind::Cuda)), (None, None));
    }
}
