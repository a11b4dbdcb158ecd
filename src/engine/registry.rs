//! The models of an engine by their names, and how each of them is.

use std::sync::Arc;

use tokio::sync::watch;

use super::EngineError;
use super::runtime::ModelRuntime;
use super::state::{ModelState, ModelStatus, Progress};
use super::sync::{Mutex, MutexGuard, lock};

/// Every model, in the order they were added; the first is the one that requests without a name get.
pub(super) struct Registry {
    entries: Mutex<Vec<Arc<Entry>>>,
    /// Told whenever the state of a model may have changed.
    changed: watch::Sender<()>,
}

/// A model by its names: the one that serves, if any, and the one that is being loaded, if any.
pub(super) struct Entry {
    /// The first is the name that answers use.
    names: Vec<Arc<str>>,
    models: Mutex<Models>,
}

struct Models {
    serving: Option<Arc<ModelRuntime>>,
    /// How the load is that was begun last: under way or failed.
    loading: Option<ModelState>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Adds a model that is being loaded under names that no other has.
    pub(super) fn add(&self, names: Vec<Arc<str>>) -> Result<Arc<Entry>, EngineError> {
        let mut entries = self.entries();
        if let Some(taken) = names.iter().find(|name| entries.iter().any(|entry| entry.has_name(name))) {
            return Err(EngineError::NameTaken { name: taken.to_string() });
        }
        let models = Models { serving: None, loading: Some(ModelState::Loading) };
        let entry = Arc::new(Entry { names, models: Mutex::new(models) });
        entries.push(Arc::clone(&entry));
        drop(entries);
        self.notify();
        Ok(entry)
    }

    /// The model of that name; the first one for `None`.
    pub(super) fn find(&self, name: Option<&str>) -> Result<Arc<Entry>, EngineError> {
        let entries = self.entries();
        let found = match name {
            Some(name) => entries.iter().find(|entry| entry.has_name(name)),
            None => entries.first(),
        };
        found.cloned().ok_or_else(|| EngineError::UnknownModel {
            name: name.unwrap_or_default().to_owned(),
            known: entries.iter().map(|entry| entry.name().to_string()).collect(),
        })
    }

    /// Takes out a model: no request finds it any more.
    pub(super) fn remove(&self, name: &str) -> Result<Arc<Entry>, EngineError> {
        let entry = self.find(Some(name))?;
        self.entries().retain(|known| !Arc::ptr_eq(known, &entry));
        self.notify();
        Ok(entry)
    }

    /// Whether the entry has not been taken out.
    pub(super) fn has(&self, entry: &Arc<Entry>) -> bool {
        self.entries().iter().any(|known| Arc::ptr_eq(known, entry))
    }

    /// Every model.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        self.entries().clone()
    }

    /// Tells those who watch that the state of a model may have changed.
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Watches for changes.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Where the loader of an entry says how far it is.
    pub(super) fn progress(&self, entry: &Arc<Entry>) -> Progress {
        let (entry, changed) = (Arc::clone(entry), self.changed.clone());
        Progress::new(move |state| {
            entry.set_loading(Some(state));
            changed.send_replace(());
        })
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        lock(&self.entries)
    }
}

impl Entry {
    /// The name that answers use.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.names[0]
    }

    fn has_name(&self, name: &str) -> bool {
        self.names.iter().any(|known| **known == *name)
    }

    /// The model that serves.
    pub(super) fn serving(&self) -> Option<Arc<ModelRuntime>> {
        lock(&self.models).serving.clone()
    }

    /// Sets the model that serves from now on; gives the one that did.
    pub(super) fn serve(&self, model: Arc<ModelRuntime>) -> Option<Arc<ModelRuntime>> {
        let mut models = lock(&self.models);
        models.loading = None;
        models.serving.replace(model)
    }

    /// Says how the load is; `false` if one is under way and another was to begin.
    pub(super) fn begin_loading(&self) -> bool {
        let mut models = lock(&self.models);
        let free = !models.loading.as_ref().is_some_and(ModelState::is_starting);
        if free {
            models.loading = Some(ModelState::Loading);
        }
        free
    }

    pub(super) fn set_loading(&self, state: Option<ModelState>) {
        lock(&self.models).loading = state;
    }

    /// How the model is: the one that serves, else the one that is being loaded.
    pub(super) fn state(&self) -> ModelState {
        let models = lock(&self.models);
        match (&models.serving, &models.loading) {
            (Some(model), _) => model.state(),
            (None, Some(loading)) => loading.clone(),
            (None, None) => ModelState::Unloaded,
        }
    }

    pub(super) fn status(&self) -> ModelStatus {
        let (serving, loading) = {
            let models = lock(&self.models);
            (models.serving.clone(), models.loading.clone())
        };
        ModelStatus {
            name: self.name().to_string(),
            aliases: self.names[1..].iter().map(|name| name.to_string()).collect(),
            state: self.state(),
            replacement: loading.filter(|_| serving.is_some()),
            info: serving.map(|model| model.model.info().clone()),
        }
    }
}
