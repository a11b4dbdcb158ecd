//! An engine: its models, its life from start to drain.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::error::Result;
use super::handle::ModelHandle;
use super::model::Model;
use super::runtime::ModelRuntime;
use super::shared::{Phase, Shared};
use super::state::{ModelState, ModelStatus, Progress};
use super::sync;
use super::{EngineConfig, EngineError};

/// All models of the process behind one admission. Cheap to clone; when the last clone is gone, the threads end.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What the engine holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Inputs admitted and not yet answered.
    pub items: usize,
    /// Bytes that they hold.
    pub bytes: usize,
    /// Bytes of decoded pixels on the preparation threads.
    pub decode_bytes: usize,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Inputs that were in the engine when the drain began and left it.
    pub finished: usize,
    /// Inputs that were answered with [`EngineError::ShuttingDown`] when the time was up.
    pub abandoned: usize,
    /// How long it took.
    pub waited: Duration,
}

struct Inner {
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts the preparation threads of an engine that has no model yet.
    ///
    /// Install the metrics recorder before, or nothing is recorded.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(config: EngineConfig) -> Self {
        Self { inner: Arc::new(Inner { shared: Shared::start(config) }) }
    }

    /// Adds a model that `loader` loads on a thread of its own; returns at once. The first of `names` is the one that
    /// answers use, every one finds it. The first model that is added is the one that a request without a name gets.
    /// A load that fails leaves the model in [`ModelState::Failed`].
    ///
    /// # Errors
    /// [`EngineError::NameTaken`] if one of the names is another model's.
    ///
    /// # Panics
    /// If `names` is empty, or if the system gives no thread.
    pub fn add(
        &self,
        names: &[&str],
        loader: impl FnOnce(&Progress) -> crate::Result<Arc<dyn Model>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let shared = Arc::clone(self.shared());
        let entry = shared.registry.add(names.iter().map(|&name| name.into()).collect())?;
        // The entry has the result.
        sync::spawn("load".to_owned(), move || drop(shared.load(&entry, loader)));
        Ok(())
    }

    /// Adds a model whose preprocessing is loaded already, and loads its towers before it returns; else as
    /// [`Self::add`].
    ///
    /// # Errors
    /// As [`Self::add`], and if the towers cannot be loaded; then the model is not added.
    ///
    /// # Panics
    /// As [`Self::add`].
    pub fn insert(&self, names: &[&str], model: Arc<dyn Model>) -> Result<ModelHandle> {
        let shared = self.shared();
        let entry = shared.registry.add(names.iter().map(|&name| name.into()).collect())?;
        match shared.load(&entry, |_| Ok(model)) {
            Ok(runtime) => Ok(self.handle(runtime)),
            Err(error) => {
                let _ = shared.registry.remove(entry.name());
                Err(error)
            }
        }
    }

    /// Loads another model under the names of one there is. The old one serves until the new one is in its place, then
    /// it finishes what it has; if the load fails, nothing changes but [`ModelStatus::replacement`].
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`]; [`EngineError::Loading`] if it is being loaded already.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn replace(
        &self,
        name: &str,
        loader: impl FnOnce(&Progress) -> crate::Result<Arc<dyn Model>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let shared = Arc::clone(self.shared());
        let entry = shared.registry.find(Some(name))?;
        if !entry.begin_loading() {
            return Err(EngineError::loading(entry.name(), ModelState::Loading));
        }
        shared.registry.notify();
        sync::spawn("load".to_owned(), move || drop(shared.load(&entry, loader)));
        Ok(())
    }

    /// Takes a model out: no new request finds it. It finishes what it has, then its memory is freed.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`].
    pub fn remove(&self, name: &str) -> Result<(), EngineError> {
        let shared = self.shared();
        if let Some(model) = shared.registry.remove(name)?.serving() {
            shared.retire(&model);
        }
        Ok(())
    }

    /// How every model is, in the order they were added.
    pub fn status(&self) -> Vec<ModelStatus> {
        self.shared().registry.all().iter().map(|entry| entry.status()).collect()
    }

    /// Every model that has been loaded, in the order they were added.
    pub fn models(&self) -> Vec<ModelHandle> {
        let entries = self.shared().registry.all();
        entries.iter().filter_map(|entry| entry.serving()).map(|runtime| self.handle(runtime)).collect()
    }

    /// Told whenever the state of a model may have changed: one was loaded, replaced, removed, or failed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared().registry.watch()
    }

    /// The model of that name; the first one for `None`.
    ///
    /// # Errors
    /// [`EngineError::UnknownModel`] with the names there are; [`EngineError::Loading`] if it has not been loaded yet.
    pub fn model(&self, name: Option<&str>) -> Result<ModelHandle, EngineError> {
        let entry = self.shared().registry.find(name)?;
        match entry.serving() {
            Some(runtime) => Ok(self.handle(runtime)),
            None => Err(EngineError::loading(entry.name(), entry.state())),
        }
    }

    /// Whether requests should be sent here: a model works, none of those at the start is still being loaded, and the
    /// engine is not draining. A model that fails beside one that works does not change that, nor one that is added
    /// later.
    pub fn ready(&self) -> bool {
        let shared = self.shared();
        if *shared.phase.borrow() != Phase::Running {
            return false;
        }
        let was_ready = shared.was_ready.load(Ordering::Acquire);
        let (mut works, mut starting) = (false, false);
        for entry in shared.registry.all() {
            let state = entry.state();
            // Towers that left the memory come back with the next request.
            works |= entry.serving().is_some() && !matches!(state, ModelState::Failed { .. });
            starting |= state.is_starting();
        }
        let ready = works && (was_ready || !starting);
        if ready {
            shared.was_ready.store(true, Ordering::Release);
        }
        ready
    }

    /// Whether every model that is in memory fails on all its devices, on inputs known to be good too: the devices are
    /// lost, or out of memory for good. Such models are tried again every few seconds.
    pub fn failing(&self) -> bool {
        let models = self.models();
        !models.is_empty() && models.iter().all(|model| model.runtime().is_failing())
    }

    /// Waits until every model has been loaded and warmed up, or has failed.
    ///
    /// # Errors
    /// [`EngineError::Worker`] with the name and the reason of the first that failed; [`EngineError::ShuttingDown`] if
    /// the engine was stopped before.
    pub async fn warmed_up(&self) -> Result<(), EngineError> {
        let shared = self.shared();
        let (mut changes, mut phase) = (shared.registry.watch(), shared.phase.subscribe());
        loop {
            changes.mark_unchanged();
            if *phase.borrow() != Phase::Running {
                return Err(EngineError::ShuttingDown);
            }
            let status = self.status();
            if !status.iter().any(|model| model.state.is_starting()) {
                let failed = status.into_iter().find_map(|model| match model.state {
                    ModelState::Failed { reason } => Some(format!("{}: {reason}", model.name)),
                    _ => None,
                });
                return failed.map_or(Ok(()), |text| Err(EngineError::Worker(text)));
            }
            tokio::select! {
                _ = changes.changed() => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// What is in the engine now.
    pub fn load(&self) -> Load {
        let shared = self.shared();
        let (items, bytes) = shared.admission.load();
        Load { items, bytes, decode_bytes: shared.preparation.decode_bytes() }
    }

    /// Refuses new requests, waits until everything admitted is answered, then ends the threads. What is left after
    /// `timeout` is answered with [`EngineError::ShuttingDown`]. Returns by then, whatever the threads are doing.
    pub async fn drain(&self, timeout: Duration) -> DrainReport {
        let (start, shared) = (Instant::now(), self.shared());
        shared.admission.close();
        shared.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Draining;
            }
            running
        });
        let held = shared.admission.unanswered();
        // Whether the time was up is seen by what is left.
        let _ = tokio::time::timeout(timeout, shared.admission.idle()).await;
        let abandoned = shared.admission.unanswered();
        shared.close();
        if abandoned == 0 {
            // Every thread is idle or about to be; a device is best left by a process without them. They are joined on
            // a thread that the runtime does not wait for.
            let threads = shared.take_threads();
            let (done, joined) = oneshot::channel();
            sync::spawn("join".to_owned(), move || {
                threads.into_iter().for_each(|thread| drop(thread.join()));
                let _ = done.send(());
            });
            let _ = tokio::time::timeout(timeout.saturating_sub(start.elapsed()), joined).await;
        }
        DrainReport { finished: held - abandoned.min(held), abandoned, waited: start.elapsed() }
    }

    fn handle(&self, runtime: Arc<ModelRuntime>) -> ModelHandle {
        ModelHandle::new(Arc::clone(self.shared()), runtime)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}
