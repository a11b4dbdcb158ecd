//! Sets that are stored, replaced and removed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ACCOUNT, Entry, LabelSets, SetLimits, json_bytes};
use crate::budget::{Charge, MemoryBudget, MemoryKind, Tally};
use crate::engine::{EngineError, ModelHandle};
use crate::labels::content::Content;
use crate::labels::definition::{Definition, check_name};
use crate::labels::encode;
use crate::labels::error::LabelError;
use crate::labels::examples::Examples;
use crate::labels::version::{Condition, Ready, Space, Version, lock};
use crate::model::Scores;

/// What became of a set that was sent.
#[derive(Debug)]
pub struct Put {
    /// Its version.
    pub version: Arc<Version>,
    /// Whether there was no set of that name.
    pub created: bool,
}

impl LabelSets {
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
        let versions: Vec<Arc<Version>> = lock(&self.inner.sets)
            .get(name)
            .map(|entry| entry.versions().cloned().collect())
            .unwrap_or_default();
        let before = versions.first();
        condition.check(name, before.map(Arc::as_ref))?;
        if before.is_none() {
            self.check_number(owner)?;
        }
        let content = make(before.map(Arc::as_ref))?;
        content.check_examples()?;
        // What its charges sum up to says whether the set can ever be stored.
        let memory = self.inner.memory.of_request(&Tally::default());
        // The names, and for a while its bytes.
        let mut charge = charge_of(&memory, content.heap().saturating_mul(3))?;
        let (bytes, id) = content.encode().map_err(|error| LabelError::Fault(error.to_string()))?;
        if let Some(before) = before.filter(|before| before.id() == id) {
            return Ok(Put { version: Arc::clone(before), created: false });
        }
        let model = self.model_of(&content)?;
        let ready = self.kept(&versions, &content, &memory)?;
        let reserved = match &model {
            Some(model) if !ready.iter().any(|(space, _)| *space == model.info().fingerprint) => {
                let room = encode::room(&content, &model.info().template, model.info().embedding_dim);
                Some(charge_of(&memory, room)?)
            }
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
        let models = {
            let mut sets = lock(&self.inner.sets);
            let entry = sets.entry(name.into()).or_insert_with(|| Entry {
                owner: owner.map(Arc::from),
                current: Arc::clone(&version),
                before: Vec::new(),
                models: BTreeSet::new(),
            });
            let old = std::mem::replace(&mut entry.current, Arc::clone(&version));
            if !Arc::ptr_eq(&old, &version) {
                // What is not done yet is superseded by the new version.
                old.keep_what_is_ready();
                entry.before.insert(0, old);
            }
            entry.models.clone()
        };
        if let Some(model) = &model {
            self.begin(&version, model, reserved)?;
        }
        // Those that were asked for before will be again; until they are ready the old version answers.
        for model in models.iter().filter_map(|name| self.inner.engine.model(Some(name)).ok()) {
            if let Err(error) = self.begin(&version, &model, None) {
                tracing::warn!(name, model = model.name(), %error, "a label set cannot be encoded");
            }
        }
        self.settle(name);
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
        let before = lock(&self.inner.sets).get(name).map(|entry| Arc::clone(&entry.current));
        let before = before.ok_or_else(|| LabelError::Unknown { name: name.to_owned() })?;
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

    /// Directions of earlier versions that the new one has, too, by embedding space: of each those of the newest version.
    fn kept(
        &self,
        versions: &[Arc<Version>],
        content: &Content,
        memory: &MemoryBudget,
    ) -> Result<Vec<(String, Arc<Ready>)>, LabelError> {
        let mut kept: Vec<(String, Arc<Ready>)> = Vec::new();
        let models = self.inner.engine.models();
        let close_gap = |content: &Content| content.definition.close_modality_gap == Some(true);
        for (before, (space, ready)) in
            versions.iter().flat_map(|before| before.ready_spaces().into_iter().map(move |of| (before, of)))
        {
            let Some(text) = &ready.text else { continue };
            let Some(model) = models.iter().find(|model| model.info().fingerprint == space) else { continue };
            let has_it = kept.iter().any(|(kept, _)| *kept == space);
            if has_it || content.definition.texts_key(&model.info().template) != text.key {
                continue;
            }
            let same = content.examples == before.content().examples
                && (content.examples.is_none() || close_gap(content) == close_gap(before.content()));
            if same {
                kept.push((space, ready));
                continue;
            }
            let info = model.info();
            let fitting = match content.examples {
                Some(_) => encode::room(content, &info.template, info.embedding_dim),
                None => 0,
            };
            let charge = charge_of(memory, fitting)?;
            let scores = info.logit_scale.zip(info.logit_bias).map(|(scale, bias)| Scores { scale, bias });
            let ready =
                encode::combine(content, Arc::clone(text), scores, charge).map_err(LabelError::Fault)?;
            kept.push((space, Arc::new(ready)));
        }
        Ok(kept)
    }
}

fn charge_of(memory: &MemoryBudget, bytes: usize) -> Result<Charge, LabelError> {
    Ok(memory.charge(ACCOUNT, MemoryKind::Labels, bytes)?)
}

/// The examples of labels that a new definition has, too.
fn carried(before: &Version, definition: &Definition) -> Option<Arc<Examples>> {
    let examples = before.content().examples.as_ref()?;
    let index: std::collections::HashMap<&str, u32> =
        definition.labels.0.iter().enumerate().map(|(i, label)| (label.name.as_str(), i as u32)).collect();
    let moved = examples.mapped(|label| index.get(&*before.names()[label as usize]).copied());
    (!moved.is_empty()).then(|| Arc::new(moved))
}
