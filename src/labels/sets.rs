//! The label sets of a service: stored, encoded for its models, replaced while they are used.

mod levels;
mod own;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::content::Content;
use super::definition::{Definition, check_name};
use super::encode::{self, Job};
use super::error::LabelError;
use super::examples::Examples;
use super::store::{Found, Store};
use super::version::{Condition, Encoding, Ready, Space, SpaceState, Version, lock};
use crate::budget::{Charge, MemoryBudget, MemoryKind};
use crate::engine::{Engine, EngineError, ModelHandle};
use crate::model::Scores;
use levels::Held;
use own::head_for;

/// Whom the budget holds the sets of all clients against: they outlive their requests.
const ACCOUNT: u64 = u64::MAX;
/// After so long a set that could not be encoded is tried again when somebody asks for it.
const RETRY: Duration = Duration::from_secs(30);

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
    /// The version that answers until the current one is ready.
    before: Option<Arc<Version>>,
    /// Models that were asked for.
    models: BTreeSet<String>,
}

/// A set that can be used with a model.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The version that answers.
    pub version: Arc<Version>,
    /// Its labels in the model's embedding space.
    pub ready: Arc<Ready>,
}

/// What became of a set that was sent.
#[derive(Debug)]
pub struct Put {
    /// Its version.
    pub version: Arc<Version>,
    /// Whether there was no set of that name.
    pub created: bool,
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
                let entry = Entry { owner, current, before: None, models: BTreeSet::new() };
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

    /// A set by `name` or `name@version`: the current version, or the one that answers until that is ready.
    ///
    /// # Errors
    /// [`LabelError::Unknown`], [`LabelError::UnknownVersion`].
    pub fn get(&self, reference: &str) -> Result<Arc<Version>, LabelError> {
        let (name, wanted) = parts(reference);
        let sets = lock(&self.inner.sets);
        let entry = sets.get(name).ok_or_else(|| LabelError::Unknown { name: name.to_owned() })?;
        let Some(wanted) = wanted else { return Ok(Arc::clone(&entry.current)) };
        let versions = std::iter::once(&entry.current).chain(&entry.before);
        versions.into_iter().find(|version| version.id() == wanted).cloned().ok_or_else(|| {
            LabelError::UnknownVersion {
                name: name.to_owned(),
                version: wanted.to_owned(),
                current: entry.current.id().to_owned(),
            }
        })
    }

    /// Stores a set and begins to encode it. Examples of labels that it still has are kept. Nothing changes if it is what is
    /// stored already. `owner` is the name of the key that asks: a set that is new is counted as one of its sets.
    ///
    /// # Errors
    /// If the name or the definition cannot be used, the condition does not hold, there is no room, or the disk fails.
    pub fn put(
        &self,
        name: &str,
        definition: Definition,
        condition: &Condition,
        owner: Option<&str>,
    ) -> Result<Put, LabelError> {
        self.put_as(name, Content::of(definition), condition, owner)
    }

    /// Replaces a set that exists by what `make` makes of it.
    ///
    /// # Errors
    /// As [`Self::put`]; [`LabelError::Unknown`]; those of `make`.
    pub fn update(
        &self,
        name: &str,
        condition: &Condition,
        make: impl FnOnce(&Version) -> Result<Content, LabelError>,
    ) -> Result<Put, LabelError> {
        self.change(name, condition, None, |before| match before {
            Some(before) => make(before),
            None => Err(LabelError::Unknown { name: name.to_owned() }),
        })
    }

    /// [`Self::put`] of what was read out of a file: a definition, a head, or a set that was kept.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_content(
        &self,
        name: &str,
        content: Content,
        condition: &Condition,
    ) -> Result<Put, LabelError> {
        self.put_as(name, content, condition, None)
    }

    fn put_as(
        &self,
        name: &str,
        content: Content,
        condition: &Condition,
        owner: Option<&str>,
    ) -> Result<Put, LabelError> {
        check_name(name)?;
        content.definition.check()?;
        self.change(name, condition, owner, |before| {
            let keeps = content.examples.is_none() && content.head.is_none();
            let examples = before.filter(|_| keeps).and_then(|before| carried(before, &content.definition));
            Ok(Content { examples: examples.or(content.examples.clone()), ..content })
        })
    }

    fn change(
        &self,
        name: &str,
        condition: &Condition,
        owner: Option<&str>,
        make: impl FnOnce(Option<&Version>) -> Result<Content, LabelError>,
    ) -> Result<Put, LabelError> {
        let _writing = lock(&self.inner.writing);
        let before = lock(&self.inner.sets).get(name).map(|entry| Arc::clone(&entry.current));
        condition.check(name, before.as_deref())?;
        if before.is_none() {
            self.check_number(owner)?;
        }
        let content = make(before.as_deref())?;
        content.check_examples()?;
        // The names, and for a while its bytes.
        let mut charge = self.charge(content.heap().saturating_mul(3))?;
        let (bytes, id) = content.encode().map_err(|error| LabelError::Fault(error.to_string()))?;
        if let Some(before) = before.as_ref().filter(|before| before.id() == id) {
            return Ok(Put { version: Arc::clone(before), created: false });
        }
        let model = self.model_of(&content)?;
        let ready = self.kept(before.as_deref(), &content)?;
        let reserved = match &model {
            Some(model) if !ready.iter().any(|(space, _)| *space == model.info().fingerprint) => Some(
                self.charge(encode::room(&content, &model.info().template, model.info().embedding_dim))?,
            ),
            _ => None,
        };
        if let Some(store) = &self.inner.store {
            let new_owner = if before.is_none() { owner } else { None };
            store
                .put(name, &bytes, new_owner)
                .map_err(|error| LabelError::Fault(format!("storing {name}: {error}")))?;
        }
        drop(bytes);
        charge.shrink(content.heap());
        let json = json_bytes(&content.definition)?;
        let version = Arc::new(Version::new(name.into(), id, content, json, charge));
        version.spaces().extend(ready.into_iter().map(|(space, ready)| (space, Space::Ready(ready))));
        {
            let mut sets = lock(&self.inner.sets);
            let entry = sets.entry(name.into()).or_insert_with(|| Entry {
                owner: owner.map(Arc::from),
                current: Arc::clone(&version),
                before: None,
                models: BTreeSet::new(),
            });
            let old = std::mem::replace(&mut entry.current, Arc::clone(&version));
            if !Arc::ptr_eq(&old, &version) && !old.ready_spaces().is_empty() {
                entry.before = Some(old);
            }
        }
        if let Some(model) = &model {
            self.begin(&version, model, reserved)?;
        }
        self.settle(&version);
        Ok(Put { version, created: before.is_none() })
    }

    /// Checks that there may be one more set, and one more of this owner.
    fn check_number(&self, owner: Option<&str>) -> Result<(), LabelError> {
        let (sets, SetLimits { all, per_key }) = (lock(&self.inner.sets), self.inner.most);
        if sets.len() >= all {
            return Err(LabelError::Full {
                limit: all,
                whose: "the service keeps",
                flag: "--max-label-sets",
            });
        }
        let own =
            owner.map_or(0, |owner| sets.values().filter(|e| e.owner.as_deref() == Some(owner)).count());
        if own >= per_key {
            let (whose, flag) = ("the service keeps for each key", "--max-label-sets-per-key");
            return Err(LabelError::Full { limit: per_key, whose, flag });
        }
        Ok(())
    }

    /// Removes a set. Requests that use it are answered.
    ///
    /// # Errors
    /// [`LabelError::Unknown`], [`LabelError::Changed`], or if the disk fails.
    pub fn delete(&self, name: &str, condition: &Condition) -> Result<(), LabelError> {
        let _writing = lock(&self.inner.writing);
        check_name(name)?;
        let before = self.get(name)?;
        condition.check(name, Some(&before))?;
        if let Some(store) = &self.inner.store {
            store
                .remove(before.name())
                .map_err(|error| LabelError::Fault(format!("removing {name}: {error}")))?;
        }
        lock(&self.inner.sets).remove(before.name());
        self.inner.settled.send_replace(());
        Ok(())
    }

    /// What answers for a model now: the current version, or the one before until that is encoded. Begins to encode what is
    /// not.
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
            if let Some(entry) = entry.filter(|entry| !entry.models.contains(model.name())) {
                entry.models.insert(model.name().to_owned());
            }
            sets.get(name).and_then(|entry| entry.before.clone()).filter(|_| pinned.is_none())
        };
        for version in std::iter::once(wanted.clone()).chain(before) {
            if let Some(ready) = version.ready(space) {
                return Ok(Resolved { version, ready });
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

    /// Encodes every set again when a model is loaded or replaced by another, for as long as it is polled.
    pub async fn keep_up(self) {
        let mut changes = self.inner.engine.changes();
        loop {
            changes.mark_unchanged();
            let wanted: Vec<(Arc<Version>, Vec<Option<String>>)> = lock(&self.inner.sets)
                .values()
                .map(|entry| {
                    let own = entry.current.definition().model.clone();
                    let models = std::iter::once(own).chain(entry.models.iter().cloned().map(Some));
                    (Arc::clone(&entry.current), models.collect())
                })
                .collect();
            for (version, models) in wanted {
                for model in models {
                    let Ok(model) = self.inner.engine.model(model.as_deref()) else { continue };
                    if let Err(error) = self.begin(&version, &model, None) {
                        tracing::warn!(name = %version.name(), %error, "a label set cannot be encoded");
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn charge(&self, bytes: usize) -> Result<Charge, LabelError> {
        Ok(self.inner.memory.charge(ACCOUNT, MemoryKind::Labels, bytes)?)
    }

    /// The model that a set is encoded for at once; none while it is being loaded, nor for a head.
    fn model_of(&self, content: &Content) -> Result<Option<ModelHandle>, LabelError> {
        let name = content.definition.model.as_deref();
        match self.inner.engine.model(name) {
            Ok(model) if content.head.is_none() => {
                if model.info().text.is_none() {
                    let message =
                        format!("the model {:?} has no text tower to encode labels with", model.name());
                    return Err(LabelError::invalid("model", message));
                }
                Ok(Some(model))
            }
            Ok(_) | Err(EngineError::Loading { .. }) => Ok(None),
            Err(error @ EngineError::UnknownModel { .. }) if name.is_some() => {
                Err(LabelError::invalid("model", error.to_string()))
            }
            Err(EngineError::UnknownModel { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Directions of the version before that the new one has, too, by embedding space.
    fn kept(
        &self,
        before: Option<&Version>,
        content: &Content,
    ) -> Result<Vec<(String, Arc<Ready>)>, LabelError> {
        let mut kept = Vec::new();
        let Some(before) = before else { return Ok(kept) };
        let models = self.inner.engine.models();
        for (space, ready) in before.ready_spaces() {
            let Some(text) = &ready.text else { continue };
            let Some(model) = models.iter().find(|model| model.info().fingerprint == space) else { continue };
            if content.definition.texts_key(&model.info().template) != text.key {
                continue;
            }
            let close_gap = |content: &Content| content.definition.close_modality_gap == Some(true);
            let same = content.examples == before.content().examples
                && (content.examples.is_none() || close_gap(content) == close_gap(before.content()));
            if same {
                kept.push((space, ready));
                continue;
            }
            let fitting = if content.examples.is_some() {
                encode::room(content, &model.info().template, model.info().embedding_dim)
            } else {
                0
            };
            let charge = self.charge(fitting)?;
            let info = model.info();
            let scores = info.logit_scale.zip(info.logit_bias).map(|(scale, bias)| Scores { scale, bias });
            let ready =
                encode::combine(content, Arc::clone(text), scores, charge).map_err(LabelError::Fault)?;
            kept.push((space, Arc::new(ready)));
        }
        Ok(kept)
    }

    /// Begins to encode a version for a model, unless it is ready, on its way, or failed a moment ago.
    fn begin(
        &self,
        version: &Arc<Version>,
        model: &ModelHandle,
        charge: Option<Charge>,
    ) -> Result<(), LabelError> {
        let info = model.info();
        let space = info.fingerprint.clone();
        // Taken before the version's lock: the engine has locks of its own.
        let known: Vec<String> =
            self.inner.engine.models().iter().map(|model| model.info().fingerprint.clone()).collect();
        let mut spaces = version.spaces();
        match spaces.get(&space) {
            Some(Space::Failed { at, .. }) if at.elapsed() >= RETRY => {}
            Some(_) => return Ok(()),
            None => {}
        }
        let content = version.content();
        if let Some(head) = &content.head {
            let charge = self.charge(size_of_val(&*head.rows))?;
            let ready = head_for(version, head, model, charge)?;
            spaces.insert(space, Space::Ready(Arc::new(ready)));
            return Ok(());
        }
        if info.text.is_none() {
            let message = format!("the model {:?} has no text tower to encode labels with", model.name());
            return Err(LabelError::invalid("label_set", message));
        }
        let runtime = Handle::try_current().map_err(|error| LabelError::Fault(error.to_string()))?;
        let charge = match charge {
            Some(charge) => charge,
            None => self.charge(encode::room(content, &info.template, info.embedding_dim))?,
        };
        // Directions in the space of a model that is gone are of no use to anybody.
        spaces.retain(|other, _| known.contains(other));
        let progress = Arc::new(AtomicUsize::new(0));
        let job = Job {
            content: Arc::clone(content),
            names: Arc::clone(version.names()),
            model: model.clone(),
            progress: Arc::clone(&progress),
            file: self.inner.store.as_ref().map(|store| store.rows_of(version.name(), &space)),
            key: content.definition.texts_key(&info.template),
            charge,
        };
        let (inner, version) = (Arc::downgrade(&self.inner), Arc::downgrade(version));
        let task = runtime.spawn({
            let space = space.clone();
            async move {
                let result = encode::run(job).await;
                finished(&inner, &version, space, result);
            }
        });
        let encoding = Encoding { progress, since: Instant::now(), task: task.abort_handle() };
        spaces.insert(space, Space::Encoding(encoding));
        Ok(())
    }

    /// Lets the version before go once the current one is ready wherever it was, and tells those who wait.
    fn settle(&self, version: &Arc<Version>) {
        let known: Vec<String> =
            self.inner.engine.models().iter().map(|model| model.info().fingerprint.clone()).collect();
        let mut sets = lock(&self.inner.sets);
        if let Some(entry) = sets.get_mut(version.name()).filter(|entry| Arc::ptr_eq(&entry.current, version))
            && let Some(before) = &entry.before
        {
            let waits = before
                .ready_spaces()
                .iter()
                .any(|(space, _)| known.contains(space) && version.ready(space).is_none());
            if !waits {
                entry.before = None;
            }
        }
        drop(sets);
        self.inner.settled.send_replace(());
    }
}

/// Takes the result of an encoding.
fn finished(inner: &Weak<Inner>, version: &Weak<Version>, space: String, result: Result<Ready, String>) {
    let (Some(inner), Some(version)) = (inner.upgrade(), version.upgrade()) else { return };
    let state = match result {
        Ok(ready) => Space::Ready(Arc::new(ready)),
        Err(reason) => {
            tracing::warn!(name = %version.name(), reason, "a label set could not be encoded");
            Space::Failed { reason, at: Instant::now() }
        }
    };
    let before = version.spaces().insert(space, state);
    LabelSets { inner }.settle(&version);
    // It holds this task, which has nothing left to wait for.
    drop(before);
}

/// The examples of labels that a new definition has, too.
fn carried(before: &Version, definition: &Definition) -> Option<Arc<Examples>> {
    let examples = before.content().examples.as_ref()?;
    let index: std::collections::HashMap<&str, u32> =
        definition.labels.0.iter().enumerate().map(|(i, label)| (label.name.as_str(), i as u32)).collect();
    let moved = examples.mapped(|label| index.get(&*before.names()[label as usize]).copied());
    (!moved.is_empty()).then(|| Arc::new(moved))
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
