//! What the handles and the threads of an engine share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;

use super::admission::Admission;
use super::batch::panic_message;
use super::cache::TextCache;
use super::error::Result;
use super::job::Lane;
use super::model::{Model, Towers};
use super::preparation::Preparation;
use super::registry::{Entry, Registry};
use super::request::Ticket;
use super::residency::Residency;
use super::runtime::{ModelRuntime, ReplicaSet};
use super::state::{ModelState, Progress};
use super::sync::{self, JoinHandle, Mutex, lock};
use super::{EngineConfig, EngineError, prepare, worker};

pub(super) struct Shared {
    pub(super) config: EngineConfig,
    pub(super) registry: Registry,
    pub(super) preparation: Preparation,
    pub(super) cache: TextCache,
    pub(super) admission: Arc<Admission>,
    pub(super) residency: Residency,
    pub(super) phase: watch::Sender<Phase>,
    /// Whether the engine was ready before: models that are added later do not change that while they load.
    pub(super) was_ready: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How far the engine is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Takes nothing new.
    Draining,
    /// Answers nothing any more.
    Closed,
}

impl Shared {
    /// An engine without models, with its preparation threads.
    pub(super) fn start(config: EngineConfig) -> Arc<Self> {
        let shared = Arc::new(Self {
            registry: Registry::new(),
            preparation: Preparation::new(config.max_decode_bytes, config.memory.clone()),
            cache: TextCache::new(config.cache_bytes),
            admission: Admission::within(
                config.max_queue_items,
                config.max_queue_bytes,
                config.memory.clone(),
            ),
            residency: Residency::new(config.max_model_memory),
            phase: watch::Sender::new(Phase::Running),
            was_ready: AtomicBool::new(false),
            threads: Mutex::default(),
            config,
        });
        let threads =
            [(Lane::Images, shared.config.prepare_threads), (Lane::Texts, shared.config.tokenize_threads)];
        for (lane, count) in threads {
            for i in 0..count.max(1) {
                let name = format!("prepare-{}-{i}", lane.label());
                shared.spawn(name, move |shared| prepare::run(shared, lane));
            }
        }
        if let Some(limit) = shared.config.idle_unload {
            shared.spawn("unload".to_owned(), move |shared| shared.unload_idle(limit));
        }
        shared
    }

    /// Starts a thread that goes on after a panic of its own: batches and preparations catch theirs, so that this would
    /// be a fault of the engine, and the tickets that it held answer for themselves.
    fn spawn(self: &Arc<Self>, name: String, mut run: impl FnMut(&Arc<Self>) + Send + 'static) {
        let shared = Arc::clone(self);
        let thread = sync::spawn(name, move || {
            while let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&shared))) {
                let message = panic_message(panic.as_ref());
                tracing::error!(panic = %message, "a thread of the engine panicked; it goes on");
            }
        });
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !sync::is_finished(thread));
        threads.push(thread);
    }

    /// The threads that have not been taken yet.
    pub(super) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *lock(&self.threads))
    }

    /// Loads the model of an entry and lets it serve. The model that served before finishes what it has.
    pub(super) fn load(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        loader: impl FnOnce(&Progress) -> crate::Result<Arc<dyn Model>>,
    ) -> Result<Arc<ModelRuntime>> {
        let progress = self.registry.progress(entry);
        let loaded = catch_unwind(AssertUnwindSafe(|| loader(&progress)));
        let loaded = loaded.map(|loaded| Ok(loaded?)).unwrap_or_else(|panic| {
            Err(EngineError::Worker(format!("loading it panicked: {}", panic_message(panic.as_ref()))).into())
        });
        let result = loaded.and_then(|model| {
            progress.loading();
            self.bring_in(&model, &progress, |towers| self.serve(entry, Arc::clone(&model), towers))
        });
        if let Err(error) = &result {
            tracing::error!(model = %entry.name(), %error, "the model could not be loaded");
            entry.set_loading(Some(ModelState::Failed { reason: error.to_string() }));
        }
        self.registry.notify();
        // Whoever closed the engine meanwhile has not seen this model.
        if *self.phase.borrow() == Phase::Closed {
            self.close();
        }
        result
    }

    fn serve(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        model: Arc<dyn Model>,
        towers: Vec<Arc<dyn Towers>>,
    ) -> Result<Arc<ModelRuntime>> {
        if *self.phase.borrow() == Phase::Closed || !self.registry.has(entry) {
            return Err(EngineError::ShuttingDown.into());
        }
        let runtime = ModelRuntime::new(Arc::clone(entry.name()), model, towers.len(), &self.config);
        let runtime = Arc::new(runtime);
        self.start_workers(&runtime, towers);
        self.preparation.add(Arc::clone(&runtime));
        if let Some(before) = entry.serve(Arc::clone(&runtime)) {
            self.retire(&before);
        }
        Ok(runtime)
    }

    /// Starts the workers of towers that are in memory now.
    pub(super) fn start_workers(self: &Arc<Self>, model: &Arc<ModelRuntime>, towers: Vec<Arc<dyn Towers>>) {
        let set = model.set_towers(towers, self.config.warm_up);
        for (i, (replica, first)) in model.workers(&set).enumerate() {
            let worker = WorkerThread { model: Arc::clone(model), towers: Some(Arc::clone(&set)) };
            let mut cold = self.config.warm_up && first;
            self.spawn(format!("{}-{i}", short(&model.name)), move |shared| {
                let cold = std::mem::take(&mut cold);
                if let Some(towers) = &worker.towers {
                    worker::run(shared, &worker.model, towers, replica, cold);
                }
            });
        }
    }

    /// Lets a model that nobody finds any more finish what it has, then frees it. Returns at once.
    pub(super) fn retire(self: &Arc<Self>, model: &Arc<ModelRuntime>) {
        model.retire();
        self.free_if_done(model);
    }

    /// Frees a retired model once nothing of it is left.
    pub(super) fn free_if_done(&self, model: &Arc<ModelRuntime>) {
        if model.is_retired() && model.queues.close_if_idle() {
            self.preparation.remove(model);
            model.drop_towers();
        }
    }

    fn free(&self, model: &Arc<ModelRuntime>) {
        self.preparation.remove(model);
        model.queues.close().into_iter().for_each(Ticket::stop);
        model.drop_towers();
    }

    /// Takes nothing new, stops what waits, and ends the threads once they are done with what they have.
    pub(super) fn close(&self) {
        self.admission.close();
        self.phase.send_replace(Phase::Closed);
        self.residency.close();
        for model in self.preparation.close() {
            self.free(&model);
        }
    }
}

/// What a worker thread holds, from its start to its end.
struct WorkerThread {
    model: Arc<ModelRuntime>,
    towers: Option<Arc<ReplicaSet>>,
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        self.towers = None;
        self.model.worker_ended();
    }
}

/// The name of a thread has 15 characters at most.
fn short(name: &str) -> String {
    name.chars().take(12).collect()
}
