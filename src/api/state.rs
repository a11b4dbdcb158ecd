//! What every handler shares.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::api::config::ApiConfig;
use crate::api::edge::ending::Note;
use crate::api::edge::error::ApiError;
use crate::api::edge::lifecycle::{Lifecycle, Phase};
use crate::api::source::Fetcher;
use crate::budget::{MemoryBudget, Tally};
use crate::engine::Engine;
use crate::labels::LabelSets;

/// Renders the metrics in Prometheus' text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What every handler shares; cheap to clone.
#[derive(Clone)]
pub struct AppState {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    labels: LabelSets,
    config: ApiConfig,
    fetcher: Option<Fetcher>,
    metrics: Option<RenderMetrics>,
    lifecycle: Lifecycle,
    started: u64,
    clients: RandomState,
}

impl AppState {
    /// Puts the service's parts together. Without `metrics`, `/metrics` answers 404.
    pub fn new(engine: Engine, config: ApiConfig, metrics: Option<RenderMetrics>) -> Self {
        let labels = LabelSets::in_memory(engine.clone(), config.memory.clone(), config.max_label_sets);
        Self::with_label_sets(engine, config, metrics, labels)
    }

    /// [`AppState::new`] with label sets that are somewhere else than in memory.
    pub fn with_label_sets(
        engine: Engine,
        config: ApiConfig,
        metrics: Option<RenderMetrics>,
        labels: LabelSets,
    ) -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let inner = Inner {
            fetcher: config.fetch.clone().map(Fetcher::new),
            engine,
            labels,
            config,
            metrics,
            lifecycle: Lifecycle::default(),
            started,
            clients: RandomState::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// The label sets.
    pub fn label_sets(&self) -> &LabelSets {
        &self.inner.labels
    }

    /// The settings.
    pub fn config(&self) -> &ApiConfig {
        &self.inner.config
    }

    /// What bounds the memory that requests make the service hold.
    pub fn memory(&self) -> &MemoryBudget {
        &self.inner.config.memory
    }

    /// Fetches pictures by URL, where that is allowed.
    pub fn fetcher(&self) -> Option<&Fetcher> {
        self.inner.fetcher.as_ref()
    }

    /// The metrics as text.
    pub fn metrics(&self) -> Option<String> {
        self.inner.metrics.as_ref().map(|render| render())
    }

    /// When the service started, in seconds since 1970.
    pub fn started(&self) -> u64 {
        self.inner.started
    }

    /// From now on the service says that it is not ready; it goes on answering.
    pub fn begin_drain(&self) {
        self.inner.lifecycle.advance(Phase::Unready);
    }

    /// Whether the service is stopping.
    pub fn is_draining(&self) -> bool {
        self.inner.lifecycle.phase() > Phase::Serving
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        self.engine().ready() && !self.engine().failing() && !self.is_draining()
    }

    /// How far the service has stopped.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.inner.lifecycle
    }

    /// A number for a client, the same for the same client while the service runs; without meaning outside.
    pub fn client_id(&self, client: impl Hash) -> u64 {
        self.inner.clients.hash_one(client)
    }
}

/// One request, as the middleware saw it first.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// When its head was read.
    pub started: Instant,
    /// When its answer is no longer wanted.
    pub deadline: Instant,
    /// Who asks, see [`AppState::client_id`].
    pub client: u64,
    /// What all memory that it holds sums up to.
    pub tally: Tally,
    /// What its line in the log says of it.
    pub note: Arc<Note>,
}

impl RequestContext {
    /// The error of a request that ran out of time.
    pub fn late(&self) -> ApiError {
        ApiError::deadline(self.deadline - self.started)
    }
}
