//! One model in the engine: its preprocessing, its queues, its towers while they are in memory, and how they are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::EngineConfig;
use super::health::Health;
use super::job::Lane;
use super::metrics::{LaneMetrics, TowerMetrics};
use super::model::{Model, Towers};
use super::queues::ModelQueues;
use super::state::ModelState;
use super::sync::{Condvar, Mutex, MutexGuard, lock, wait};

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
    pub(super) metrics: TowerMetrics,
    workers_per_replica: usize,
    towers: Mutex<Towering>,
    /// Told when a worker has ended.
    gone: Condvar,
    /// No request finds it any more.
    retired: AtomicBool,
}

/// The towers, and when they were used.
struct Towering {
    residence: Residence,
    loaded: Instant,
    used: Instant,
}

/// Whether the towers are in memory.
enum Residence {
    Resident(Arc<ReplicaSet>),
    /// Being brought back.
    Loading,
    Gone,
    /// They did not come back.
    Failed(String),
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
        let now = Instant::now();
        let towers = Towering { residence: Residence::Gone, loaded: now, used: now };
        Self {
            queues: ModelQueues::new(&lanes, workers, device, config),
            space: model.info().fingerprint.as_str().into(),
            scores: Arc::new(LaneMetrics::new(&name, "score")),
            metrics: TowerMetrics::new(&name),
            name,
            model,
            lanes,
            workers_per_replica,
            towers: Mutex::new(towers),
            gone: Condvar::new(),
            retired: AtomicBool::new(false),
        }
    }

    /// Takes towers that are in memory now. The caller starts a worker for each pair of [`Self::workers`], each of which
    /// ends with [`Self::worker_ended`].
    pub(super) fn set_towers(&self, towers: Vec<Arc<dyn Towers>>, warm_up: bool) -> Arc<ReplicaSet> {
        let replica = |towers| Replica { towers, health: Health::new(warm_up) };
        let replicas = towers.into_iter().map(replica).collect();
        let mut towers = self.towers();
        let set = Arc::new(ReplicaSet { generation: self.queues.next_generation(), replicas });
        (towers.loaded, towers.used) = (Instant::now(), Instant::now());
        towers.residence = Residence::Resident(Arc::clone(&set));
        drop(towers);
        self.metrics.loads.increment(1);
        self.metrics.memory.set(self.model.memory_bytes() as f64);
        set
    }

    /// Lets the towers go: their workers end once they are done with what they have. What waits stays. Returns at once,
    /// with what [`Self::wait_until_gone`] takes; `None` if they were not in memory.
    pub(super) fn drop_towers(&self) -> Option<Weak<ReplicaSet>> {
        let mut towers = self.towers();
        let Residence::Resident(set) = &towers.residence else { return None };
        let set = Arc::downgrade(set);
        towers.residence = Residence::Gone;
        // Under the lock, or it could end the workers of towers that come next.
        self.queues.next_generation();
        drop(towers);
        self.metrics.memory.set(0.0);
        Some(set)
    }

    /// Waits until no worker holds towers that were dropped.
    pub(super) fn wait_until_gone(&self, set: &Weak<ReplicaSet>) {
        let mut towers = self.towers();
        while set.strong_count() > 0 {
            towers = wait(&self.gone, towers);
        }
    }

    /// A worker has ended and holds its towers no longer.
    pub(super) fn worker_ended(&self) {
        // The lock is taken so that nobody is between the look and the wait of `wait_until_gone`.
        drop(self.towers());
        self.gone.notify_all();
    }

    /// Whether the caller is to bring the towers back: they are not in memory, and nobody else does.
    pub(super) fn begin_reload(&self) -> bool {
        let mut towers = self.towers();
        let needed = matches!(towers.residence, Residence::Gone | Residence::Failed(_)) && !self.is_retired();
        if needed {
            towers.residence = Residence::Loading;
        }
        needed
    }

    /// The towers did not come back.
    pub(super) fn reload_failed(&self, reason: String) {
        self.towers().residence = Residence::Failed(reason);
    }

    /// Notes that the towers are used now.
    pub(super) fn used(&self) {
        self.towers().used = Instant::now();
    }

    /// Whether it has nothing to do, its first batch included.
    pub(super) fn is_idle(&self) -> bool {
        self.queues.is_idle() && self.state() != ModelState::Warming
    }

    /// Since when the towers are in memory and when they were used last; `None` if they are not in memory, or on their
    /// way.
    pub(super) fn residence(&self) -> Option<(Instant, Instant)> {
        let towers = self.towers();
        matches!(towers.residence, Residence::Resident(_)).then_some((towers.loaded, towers.used))
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
        match &self.towers().residence {
            Residence::Gone => ModelState::Unloaded,
            Residence::Loading => ModelState::Loading,
            Residence::Failed(reason) => ModelState::Failed { reason: reason.clone() },
            Residence::Resident(set) => set.state(),
        }
    }

    /// Whether its towers are in memory and work on no device.
    pub(super) fn is_failing(&self) -> bool {
        match &self.towers().residence {
            Residence::Resident(set) => set.is_failing(),
            _ => false,
        }
    }

    /// No request will find it from now on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    fn towers(&self) -> MutexGuard<'_, Towering> {
        lock(&self.towers)
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
