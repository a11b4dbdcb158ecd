//! The label sets of a service: stored, encoded for its models, replaced while they are used.

mod encoding;
mod levels;
mod own;
mod replace;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::built_in;
use super::content::Content;
use super::definition::Definition;
use super::error::LabelError;
use super::store::{Found, Store};
use super::version::{Ready, SpaceState, Version, lock};
use crate::budget::{Charge, MemoryBudget, MemoryKind};
use crate::engine::{Engine, ModelHandle};
use crate::model::PatchVectors;
use levels::Held;
pub(super) use levels::LevelsCache;
pub use replace::Put;

/// Whom the budget holds the sets of all clients against: they outlive their requests.
const ACCOUNT: u64 = u64::MAX;

/// How many sets are stored at most.
#[derive(Debug, Clone, Copy)]
pub struct SetLimits {
    /// Of all.
    pub all: usize,
    /// Of each API key.
    pub per_key: usize,
}

impl From<usize> for SetLimits {
    /// So many, whoever makes them.
    fn from(all: usize) -> Self {
        Self { all, per_key: all }
    }
}

/// The label sets of a service; clones share them.
///
/// Blocking: [`Self::put`], [`Self::delete`] and the like write to the disk. [`Self::resolve`] does not block.
#[derive(Clone)]
pub struct LabelSets {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    memory: MemoryBudget,
    most: SetLimits,
    store: Option<Store>,
    sets: Mutex<BTreeMap<Arc<str>, Entry>>,
    /// Built-in sets that were asked for, by name.
    built_in: Mutex<BTreeMap<&'static str, Arc<Version>>>,
    /// The classifiers of checkpoints, by embedding space.
    own: Mutex<BTreeMap<String, Resolved>>,
    /// Pictures of all kinds, by name.
    backgrounds: Mutex<BTreeMap<String, Held>>,
    /// One change at a time, from looking at the old version to having the new one.
    writing: Mutex<()>,
    /// Those who want to change something, in their order; see [`LabelSets::turn`].
    turns: Arc<tokio::sync::Mutex<()>>,
    /// Told when a set may have become ready.
    settled: watch::Sender<()>,
}

struct Entry {
    /// The name of the key that made it; none where no key is asked for.
    owner: Option<Arc<str>>,
    current: Arc<Version>,
    /// Versions that answer for some model until a newer one is ready for it, the newest first: at most one a model.
    before: Vec<Arc<Version>>,
    /// Models that were asked for.
    models: BTreeSet<String>,
}

impl Entry {
    /// Every version that may answer, the newest first.
    fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        std::iter::once(&self.current).chain(&self.before)
    }

    /// Lets versions go that answer for no model: those of `known` embedding spaces that they are ready in have a newer one.
    fn prune(&mut self, known: &[String]) {
        let mut answered: BTreeSet<String> = self.current.ready_in().into_iter().collect();
        self.before.retain(|version| {
            let spaces = version.ready_in();
            let needed = spaces.iter().any(|space| known.contains(space) && !answered.contains(space));
            answered.extend(spaces);
            needed
        });
    }
}

/// A set that can be used with a model.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The version that answers.
    pub version: Arc<Version>,
    /// Its labels in the model's embedding space.
    pub ready: Arc<Ready>,
    /// What its labels look at in place of embeddings: a checkpoint's own classifier may.
    pub looks_at: Option<PatchVectors>,
}

/// How a set is for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelState {
    /// The model's name.
    pub model: String,
    /// Its embedding space.
    pub fingerprint: String,
    /// How far the set is.
    pub state: SpaceState,
}

impl LabelSets {
    /// Sets in memory, at most `most` of them.
    pub fn in_memory(engine: Engine, memory: MemoryBudget, most: impl Into<SetLimits>) -> Self {
        Self::new(engine, memory, most.into(), None)
    }

    /// Sets that are kept in a folder, with those that are there. One that is damaged, or has no room in memory, is logged and
    /// left where it is.
    ///
    /// # Errors
    /// If the folder cannot be used.
    pub fn open(
        engine: Engine,
        memory: MemoryBudget,
        most: impl Into<SetLimits>,
        data: &Path,
    ) -> Result<Self, LabelError> {
        let failed = |error: std::io::Error| LabelError::Fault(format!("{}: {error}", data.display()));
        let store = Store::open(data).map_err(failed)?;
        let found = store.load().map_err(failed)?;
        let sets = Self::new(engine, memory, most.into(), Some(store));
        for Found { name, owner, content } in found {
            let added = content.map_err(LabelError::Fault).and_then(|(content, id)| {
                let charge = sets.charge(content.heap().saturating_mul(2))?;
                let json = json_bytes(&content.definition)?;
                let name: Arc<str> = name.as_str().into();
                let version = Version::new(Arc::clone(&name), id, content, json, charge);
                let (current, owner) = (Arc::new(version), owner.map(Arc::from));
                let entry = Entry { owner, current, before: Vec::new(), models: BTreeSet::new() };
                lock(&sets.inner.sets).insert(name, entry);
                Ok(())
            });
            if let Err(error) = added {
                tracing::error!(name, %error, "a label set on disk cannot be used");
            }
        }
        Ok(sets)
    }

    fn new(engine: Engine, memory: MemoryBudget, most: SetLimits, store: Option<Store>) -> Self {
        let inner = Inner {
            engine,
            memory,
            most,
            store,
            sets: Mutex::default(),
            built_in: Mutex::default(),
            own: Mutex::default(),
            backgrounds: Mutex::default(),
            writing: Mutex::default(),
            turns: Arc::default(),
            settled: watch::Sender::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits for the turn to change something. A change may take seconds; whoever has threads to lose waits here and not in
    /// [`Self::put`], where each would take a thread.
    pub async fn turn(&self) -> tokio::sync::OwnedMutexGuard<()> {
        Arc::clone(&self.inner.turns).lock_owned().await
    }

    /// Whether sets are there after a restart.
    pub fn is_persistent(&self) -> bool {
        self.inner.store.is_some()
    }

    /// Every set, by name.
    pub fn list(&self) -> Vec<Arc<Version>> {
        lock(&self.inner.sets).values().map(|entry| Arc::clone(&entry.current)).collect()
    }

    /// A set by `name` or `name@version`: the current version, or one that answers until that is ready. Where none of that name
    /// is stored it may be a built-in one.
    ///
    /// # Errors
    /// [`LabelError::Unknown`], [`LabelError::UnknownVersion`].
    pub fn get(&self, reference: &str) -> Result<Arc<Version>, LabelError> {
        let (name, wanted) = parts(reference);
        let stored = lock(&self.inner.sets).get(name).map(|entry| entry.versions().cloned().collect());
        let versions: Vec<Arc<Version>> = match stored {
            Some(versions) => versions,
            None => self.built_in(name)?.into_iter().collect(),
        };
        let current = versions.first().ok_or_else(|| LabelError::Unknown { name: name.to_owned() })?;
        let Some(wanted) = wanted else { return Ok(Arc::clone(current)) };
        let found = versions.iter().find(|version| version.id() == wanted).cloned();
        found.ok_or_else(|| LabelError::UnknownVersion {
            name: name.to_owned(),
            version: wanted.to_owned(),
            current: current.id().to_owned(),
        })
    }

    /// A built-in set, made when it is first asked for; none if there is none of that name.
    fn built_in(&self, name: &str) -> Result<Option<Arc<Version>>, LabelError> {
        let Some(name) = built_in::known(name) else { return Ok(None) };
        let mut made = lock(&self.inner.built_in);
        if let Some(version) = made.get(name) {
            return Ok(Some(Arc::clone(version)));
        }
        let Some(definition) = built_in::definition(name) else { return Ok(None) };
        let version = self.unstored(name, Content::of(definition))?;
        made.insert(name, Arc::clone(&version));
        Ok(Some(version))
    }

    /// A version of a set that nobody stored.
    fn unstored(&self, name: &str, content: Content) -> Result<Arc<Version>, LabelError> {
        let charge = self.charge(content.heap().saturating_mul(2))?;
        let (_, id) = content.encode().map_err(|error| LabelError::Fault(error.to_string()))?;
        let json = json_bytes(&content.definition)?;
        Ok(Arc::new(Version::new(name.into(), id, content, json, charge)))
    }

    /// What answers for a model now: the current version, or the newest one before that is ready until that is encoded. Begins
    /// to encode what is not.
    ///
    /// # Errors
    /// [`LabelError::Unknown`], [`LabelError::UnknownVersion`]; [`LabelError::Encoding`] or [`LabelError::Failed`] if no version
    /// is ready; [`LabelError::Invalid`] if it does not fit the model.
    pub fn resolve(&self, reference: &str, model: &ModelHandle) -> Result<Resolved, LabelError> {
        let (name, pinned) = parts(reference);
        let wanted = self.get(reference)?;
        let space = &model.info().fingerprint;
        self.begin(&wanted, model, None)?;
        let before = {
            let mut sets = lock(&self.inner.sets);
            let entry = sets.get_mut(name);
            let before = entry.map(|entry| {
                if !entry.models.contains(model.name()) {
                    entry.models.insert(model.name().to_owned());
                }
                entry.before.clone()
            });
            before.filter(|_| pinned.is_none()).unwrap_or_default()
        };
        for version in std::iter::once(wanted.clone()).chain(before) {
            if let Some(ready) = version.ready(space) {
                return Ok(Resolved { version, ready, looks_at: None });
            }
        }
        let (name, model) = (wanted.name().to_string(), model.name().to_owned());
        Err(match wanted.state(space) {
            SpaceState::Failed { reason } => LabelError::Failed { name, model, reason },
            SpaceState::Encoding { done, left } => {
                LabelError::Encoding { name, model, done, total: wanted.names().len(), retry_after: left }
            }
            SpaceState::Waiting | SpaceState::Ready => LabelError::Encoding {
                name,
                model,
                done: 0,
                total: wanted.names().len(),
                retry_after: Duration::from_secs(1),
            },
        })
    }

    /// [`Self::resolve`], once the current version is ready or cannot be made so; until `deadline`.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub async fn when_ready(
        &self,
        reference: &str,
        model: &ModelHandle,
        deadline: Instant,
    ) -> Result<Resolved, LabelError> {
        let mut settled = self.inner.settled.subscribe();
        loop {
            settled.mark_unchanged();
            let current = self.get(reference)?;
            let resolved = self.resolve(reference, model);
            let waits = match &resolved {
                Ok(resolved) => !Arc::ptr_eq(&resolved.version, &current),
                Err(LabelError::Encoding { .. }) => true,
                Err(_) => false,
            };
            let failed = matches!(current.state(&model.info().fingerprint), SpaceState::Failed { .. });
            if !waits || failed || tokio::time::timeout_at(deadline.into(), settled.changed()).await.is_err()
            {
                return resolved;
            }
        }
    }

    /// How a version is for every model that is loaded.
    pub fn states(&self, version: &Version) -> Vec<ModelState> {
        let models = self.inner.engine.models();
        let state = |model: &ModelHandle| {
            let fingerprint = model.info().fingerprint.clone();
            ModelState { model: model.name().to_owned(), state: version.state(&fingerprint), fingerprint }
        };
        models.iter().map(state).collect()
    }

    /// The embedding spaces of the models that are loaded.
    fn known_spaces(&self) -> Vec<String> {
        self.inner.engine.models().iter().map(|model| model.info().fingerprint.clone()).collect()
    }

    fn charge(&self, bytes: usize) -> Result<Charge, LabelError> {
        Ok(self.inner.memory.charge(ACCOUNT, MemoryKind::Labels, bytes)?)
    }
}

/// `name@version`.
fn parts(reference: &str) -> (&str, Option<&str>) {
    match reference.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (reference, None),
    }
}

/// Bytes of a definition as JSON, without building it.
fn json_bytes(definition: &Definition) -> Result<usize, LabelError> {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    serde_json::to_writer(&mut count, definition).map_err(|error| LabelError::Fault(error.to_string()))?;
    Ok(count.0)
}
