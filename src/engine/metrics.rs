//! Handles of the engine's metrics, made once so that no hot path looks up a name.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::telemetry;

/// The metrics of one lane of one model.
pub(super) struct LaneMetrics {
    pub(super) queue_depth: Gauge,
    pub(super) queue_wait: Histogram,
    pub(super) prepare: Histogram,
    pub(super) inference: Histogram,
    pub(super) batch_items: Histogram,
    pub(super) batch_tokens: Histogram,
    pub(super) out_of_memory: Counter,
    pub(super) batch_panics: Counter,
    pub(super) prepare_panics: Counter,
    /// Batches that a replica could not compute and another one was given.
    pub(super) handed_on: Counter,
    /// Vectors that no client may have.
    pub(super) unusable_vectors: Counter,
    pub(super) cache_hits: Counter,
    pub(super) cache_misses: Counter,
    outcomes: [Counter; Outcome::ALL.len()],
}

/// The metrics of a model's towers.
pub(super) struct TowerMetrics {
    /// Bytes of the towers while they are in memory.
    pub(super) memory: Gauge,
    /// How often they were loaded.
    pub(super) loads: Counter,
    /// How often they were dropped because nobody asked for a while.
    pub(super) idle: Counter,
    /// How often they were dropped to make room for others.
    pub(super) evicted: Counter,
}

impl TowerMetrics {
    pub(super) fn new(model: &str) -> Self {
        let unloads = |reason: &'static str| counter!(telemetry::MODEL_UNLOADS, "model" => model.to_owned(), "reason" => reason);
        Self {
            memory: gauge!(telemetry::MODEL_MEMORY, "model" => model.to_owned()),
            loads: counter!(telemetry::MODEL_LOADS, "model" => model.to_owned()),
            idle: unloads("idle"),
            evicted: unloads("memory"),
        }
    }
}

/// How an input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With a vector that the model computed.
    Ok,
    /// With a vector from the cache.
    Cached,
    /// With an error that is its own: a bad picture or text.
    Invalid,
    /// With an error that is the model's.
    Failed,
    /// Its client had gone.
    Cancelled,
    /// Its deadline had passed.
    Expired,
    /// The engine was stopped.
    Stopped,
}

impl Outcome {
    const ALL: [Self; 7] =
        [Self::Ok, Self::Cached, Self::Invalid, Self::Failed, Self::Cancelled, Self::Expired, Self::Stopped];

    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Cached => "cached",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Stopped => "stopped",
        }
    }
}

impl LaneMetrics {
    /// `lane` is its label.
    pub(super) fn new(model: &str, lane: &'static str) -> Self {
        let model = model.to_owned();
        let labels = [("model", model.clone()), ("lane", lane.to_owned())];
        let panics =
            |stage: &'static str| counter!(telemetry::PANICS, "model" => model.clone(), "stage" => stage);
        Self {
            queue_depth: gauge!(telemetry::QUEUE_DEPTH, &labels),
            queue_wait: histogram!(telemetry::QUEUE_WAIT, &labels),
            prepare: histogram!(telemetry::PREPARE_DURATION, "kind" => lane),
            inference: histogram!(telemetry::INFERENCE_DURATION, &labels),
            batch_items: histogram!(telemetry::BATCH_ITEMS, &labels),
            batch_tokens: histogram!(telemetry::BATCH_TOKENS, &labels),
            out_of_memory: counter!(telemetry::OUT_OF_MEMORY, &labels),
            batch_panics: panics("batch"),
            prepare_panics: panics("prepare"),
            handed_on: counter!(telemetry::HANDED_ON, &labels),
            unusable_vectors: counter!(telemetry::UNUSABLE_VECTORS, &labels),
            cache_hits: counter!(telemetry::TEXT_CACHE_HITS, "model" => model.clone()),
            cache_misses: counter!(telemetry::TEXT_CACHE_MISSES, "model" => model.clone()),
            outcomes: Outcome::ALL.map(|outcome| {
                counter!(telemetry::ITEMS, "model" => model.clone(), "lane" => lane, "outcome" => outcome.label())
            }),
        }
    }

    /// Counts an input that has ended.
    pub(super) fn ended(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
    }
}
