//! One model in the engine: its preprocessing, its queues, its towers while they are in memory, and how they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::EngineConfig;
use super::health::Health;
use super::job::Lane;
use super::metrics::LaneMetrics;
use super::model::{Model, Towers};
use super::queues::ModelQueues;
use super::state::ModelState;
use super::sync::{Mutex, lock};

/// A model that requests are queued for. It lives until it is removed or replaced; its towers may go before.
pub(super) struct ModelRuntime {
    pub(super) name: Arc<str>,
    /// The embedding space: what is cached under it may be used by every model of the same fingerprint.
    pub(super) space: Arc<str>,
    pub(super) model: Arc<dyn Model>,
    pub(super) queues: ModelQueues,
    lanes: [Arc<LaneMetrics>; 2],
    /// Of scoring jobs.
    pub(super) scores: Arc<LaneMetrics>,
    workers_per_replica: usize,
    towers: Mutex<Residence>,
    /// No request finds it any more.
    retired: AtomicBool,
}

/// Whether the towers are in memory.
enum Residence {
    Resident(Arc<ReplicaSet>),
    Gone,
}

/// The towers of a model on each of its devices, from one load to the next unload.
pub(super) struct ReplicaSet {
    /// See [`ModelQueues::next_batch`].
    pub(super) generation: u64,
    pub(super) replicas: Vec<Replica>,
}

/// The towers on one device.
pub(super) struct Replica {
    pub(super) towers: Arc<dyn Towers>,
    pub(super) health: Health,
}

impl ModelRuntime {
    /// A model whose towers are on `replicas` devices when they are in memory; now they are not.
    pub(super) fn new(name: Arc<str>, model: Arc<dyn Model>, replicas: usize, config: &EngineConfig) -> Self {
        let device = model.info().device;
        let workers_per_replica = config.workers_on(device);
        let lanes = Lane::ALL.map(|lane| Arc::new(LaneMetrics::new(&name, lane.label())));
        let workers = replicas.saturating_mul(workers_per_replica);
        Self {
            scores: Arc::new(LaneMetrics::new(&name, "score")),
            queues: ModelQueues::new(&lanes, workers, config.batch_tokens_on(device), config),
            space: model.info().fingerprint.as_str().into(),
            name,
            model,
            lanes,
            workers_per_replica,
            towers: Mutex::new(Residence::Gone),
            retired: AtomicBool::new(false),
        }
    }

    /// Takes towers that are in memory now. The caller starts a worker for each pair of [`ReplicaSet::workers`].
    pub(super) fn set_towers(&self, towers: Vec<Arc<dyn Towers>>, warm_up: bool) -> Arc<ReplicaSet> {
        let generation = self.queues.next_generation();
        let replica = |towers| Replica { towers, health: Health::new(warm_up) };
        let set = Arc::new(ReplicaSet { generation, replicas: towers.into_iter().map(replica).collect() });
        *lock(&self.towers) = Residence::Resident(Arc::clone(&set));
        set
    }

    /// Lets the towers go: their workers end once they are done with what they have.
    pub(super) fn drop_towers(&self) {
        *lock(&self.towers) = Residence::Gone;
        self.queues.next_generation();
    }

    /// The replica of each worker, and whether that worker is to warm it up.
    pub(super) fn workers(&self, set: &ReplicaSet) -> impl Iterator<Item = (usize, bool)> {
        let (replicas, each) = (set.replicas.len(), self.workers_per_replica);
        (0..replicas).flat_map(move |replica| (0..each).map(move |i| (replica, i == 0)))
    }

    /// The metrics of a lane.
    pub(super) fn lane(&self, lane: Lane) -> &Arc<LaneMetrics> {
        &self.lanes[lane as usize]
    }

    /// How the model is.
    pub(super) fn state(&self) -> ModelState {
        match &*lock(&self.towers) {
            Residence::Gone => ModelState::Unloaded,
            Residence::Resident(set) => set.state(),
        }
    }

    /// Whether its towers are in memory and work on no device.
    pub(super) fn is_failing(&self) -> bool {
        match &*lock(&self.towers) {
            Residence::Gone => false,
            Residence::Resident(set) => set.is_failing(),
        }
    }

    /// No request will find it from now on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }
}

impl ReplicaSet {
    /// Whether a replica other than this one works.
    pub(super) fn another_works(&self, index: usize) -> bool {
        self.replicas.iter().enumerate().any(|(i, replica)| i != index && !replica.health.is_failing())
    }

    fn is_failing(&self) -> bool {
        self.replicas.iter().all(|replica| replica.health.is_failing())
    }

    fn state(&self) -> ModelState {
        if self.replicas.iter().any(|replica| replica.health.is_cold()) {
            return ModelState::Warming;
        }
        let mut reasons = Vec::new();
        for replica in &self.replicas {
            match replica.health.failure() {
                Some(reason) => reasons.push(reason),
                None => return ModelState::Ready,
            }
        }
        reasons.dedup();
        ModelState::Failed { reason: reasons.join("; ") }
    }
}
